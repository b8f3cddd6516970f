//! Turns and order, judged from outside: what a plan gave while others waited.

use std::collections::{HashMap, HashSet};

use bellows_registry::clock::Now;
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::plan::{Assumed, Plan, Step};
use bellows_registry::record::{Isolation, PolicyState, Priority, WorkerState};
use bellows_registry::spec::{Execution, Mode};
use bellows_registry::view::{Class, Definition, LaneKey, Task, View};

/// A waiting task that any free slot serves.
const PLAIN: u32 = 1;

/// What each waiting key saw others being given since its own turn.
#[derive(Default)]
pub(crate) struct Fair {
    passed_over: HashMap<(DefinitionId, LaneKey), HashMap<LaneKey, i64>>,
    shares: HashMap<DefinitionId, Execution>,
    /// Sent, and perhaps not in the view.
    sent: Vec<(DefinitionId, TaskId, LaneKey)>,
}

fn is_plain(class: Class) -> bool {
    class.isolation == Isolation::Shared && class.weight.get() == PLAIN
}

/// The tasks of a definition that a plan may give out.
fn waiting<'a>(
    id: &'a DefinitionId,
    definition: &'a Definition,
    assumed: &'a Assumed,
    now: &'a Now,
) -> impl Iterator<Item = (TaskId, &'a Task)> {
    let waits = |task: &Task| task.exists() && task.is_readable() && task.assignment().is_none();
    let due = |task: &Task| task.due().is_some_and(|due| due <= now.instant);
    let tasks = definition.tasks().filter(move |(_, task)| waits(task) && due(task));
    let ends = |id: TaskId, task: &Task| definition.request(id).is_some() || task.has_expired(now.instant);
    tasks.filter(move |(task, known)| !assumed.is_busy(id, *task) && !ends(*task, known))
}

impl Fair {
    /// A new leader knows of no turns.
    pub(crate) fn reset(&mut self) {
        self.passed_over.clear();
        self.sent.clear();
    }

    /// What waits has changed in a way that turns do not survive.
    pub(crate) fn forget_turns(&mut self) {
        self.passed_over.clear();
    }

    /// What was refused was not given.
    pub(crate) fn refused(&mut self, def: &DefinitionId, lane: &LaneKey) {
        for ((of, _), passed) in &mut self.passed_over {
            if of == def {
                *passed.entry(lane.clone()).or_default() -= 1;
            }
        }
    }

    /// Judges a plan that is about to be sent.
    pub(crate) fn judge(&mut self, view: &View, assumed: &Assumed, plan: &Plan, now: &Now) {
        self.sent.retain(|(def, task, _)| {
            let seen = |d: &Definition| d.task(*task).is_some_and(|task| task.assignment().is_some());
            assumed.is_busy(def, *task) && !view.definitions().get(def).is_some_and(seen)
        });
        for (id, definition) in view.definitions() {
            let given: Vec<(TaskId, Class, LaneKey)> = plan
                .steps
                .iter()
                .filter(|(def, _)| def == id)
                .filter_map(|(_, step)| match step {
                    Step::Assign { task, class, lane, .. } => Some((*task, *class, lane.clone())),
                    _ => None,
                })
                .collect();
            let left: Vec<(TaskId, &Task)> = waiting(id, definition, assumed, now)
                .filter(|(task, _)| given.iter().all(|(given, ..)| given != task))
                .collect();
            in_order(definition, &given, &left);
            self.turns(id, definition, &given, &left);
            self.nothing_idles(id, definition, assumed, &given, &left);
            self.sent.extend(given.into_iter().map(|(task, _, lane)| (id.clone(), task, lane)));
        }
    }

    /// How many tasks of a key run, seen or not.
    fn running(&self, id: &DefinitionId, definition: &Definition, lane: &LaneKey) -> usize {
        let unseen = self.sent.iter().filter(|(def, _, of)| def == id && of == lane).count();
        definition.lanes().get(lane).map_or(0, bellows_registry::view::Lane::held) + unseen
    }

    /// While a key waits that no limit holds back, no other has more than two turns.
    fn turns(
        &mut self,
        id: &DefinitionId,
        definition: &Definition,
        given: &[(TaskId, Class, LaneKey)],
        left: &[(TaskId, &Task)],
    ) {
        let Some(record) = definition.policy() else { return };
        let execution = &record.policy.execution;
        if self.shares.get(id) != Some(execution) {
            self.shares.insert(id.clone(), execution.clone());
            self.passed_over.retain(|(def, _), _| def != id);
        }
        let keyed_rate = execution.rate_limit.is_some_and(|rate| rate.per_key.is_some());
        let in_plan = |lane: &LaneKey| given.iter().filter(|(_, _, of)| of == lane).count();
        let waits = |lane: &LaneKey| {
            // One whose turn is kept for a task that finds no place waits for that.
            let mut of_lane = left.iter().filter(|(_, task)| task.lane() == *lane);
            let plain = of_lane.all(|(_, task)| is_plain(task.class()));
            let running = self.running(id, definition, lane) + in_plan(lane);
            plain && !keyed_rate && execution.per_key_limit().is_none_or(|limit| running < limit as usize)
        };
        let lanes: HashSet<LaneKey> =
            left.iter().map(|(_, task)| task.lane()).filter(|lane| waits(lane)).collect();
        self.passed_over.retain(|(def, lane), _| def != id || lanes.contains(lane));
        for lane in lanes {
            let passed = self.passed_over.entry((id.clone(), lane.clone())).or_default();
            for (_, _, other) in given {
                if *other == lane {
                    passed.clear();
                    continue;
                }
                let count = passed.entry(other.clone()).or_default();
                *count += 1;
                let share = i64::from(definition.lanes().share(other));
                assert!(*count <= 2 * share, "{lane:?} waits while {other:?} has its turn {count} times");
            }
        }
    }

    /// A limit of one key, or a task that finds no place, holds up nobody else.
    fn nothing_idles(
        &self,
        id: &DefinitionId,
        definition: &Definition,
        assumed: &Assumed,
        given: &[(TaskId, Class, LaneKey)],
        left: &[(TaskId, &Task)],
    ) {
        let Some(record) = definition.policy() else { return };
        let execution = &record.policy.execution;
        let stands = record.policy.mode == Mode::Hold || record.state != PolicyState::Active;
        let total = execution.concurrency_limit.and_then(|limit| limit.total);
        let any_not_plain = left.iter().any(|(_, task)| !is_plain(task.class()))
            || given.iter().any(|(_, class, _)| !is_plain(*class));
        if stands || total.is_some() || execution.rate_limit.is_some() || any_not_plain || !assumed.is_empty()
        {
            return;
        }
        let active = definition.workers().iter().filter(|(_, w)| w.record.state == WorkerState::Active);
        let active = active.filter(|(worker, _)| !definition.is_taken_alone(worker));
        let free = active
            .map(|(worker, view)| (view.record.slots as usize).saturating_sub(definition.held_slots(worker)));
        let free = free.sum::<usize>() - given.len();
        let limit = execution.per_key_limit().map_or(usize::MAX, |limit| limit as usize);
        for (task, known) in left {
            let lane = known.lane();
            let running =
                self.running(id, definition, &lane) + given.iter().filter(|(_, _, of)| *of == lane).count();
            assert!(free == 0 || running >= limit, "{task} of {lane:?} waits beside {free} free slots");
        }
    }
}

/// Within a key and a class, nobody is overtaken who ranks before.
fn in_order(definition: &Definition, given: &[(TaskId, Class, LaneKey)], left: &[(TaskId, &Task)]) {
    let rank = |task: &Task| {
        let level = u32::from(9 - task.options().map_or(Priority::default(), |o| o.priority).get());
        task.due().map(|due| due + Priority::AGEING * level)
    };
    for (task, class, lane) in given {
        let Some(known) = definition.task(*task) else { continue };
        for (other, waits) in left {
            if waits.class() == *class && waits.lane() == *lane {
                assert!(rank(known) <= rank(waits), "{task} overtakes {other}");
            }
        }
    }
}
