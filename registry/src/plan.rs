//! What to do next: `assign(&View, &Assumed, now) -> Plan`.
//!
//! Pure, and idempotent: planning again once the plan is in the view gives nothing to
//! do (law 18). A plan is inert data that carries its reasons; executing it leaves no
//! meaningful choice, only ids to draw and records to write.
//!
//! In this order:
//! 1. tasks of dead workers go back to the queue, or are parked if they keep losing
//!    workers while alone;
//! 2. tasks held beyond every bound go back (law 15);
//! 3. what people and tools ask for is done: a task to be cancelled is no longer given out;
//! 4. tasks that waited longer than they may end, parked ones past their time are removed;
//! 5. due tasks are given to active workers with free slots, the freest first. A
//!    suspect task waits for an idle worker and has it to itself (law 17). Where a plan
//!    has not room for all, every definition has its share of it. Within a definition
//!    fairness keys take turns, and within a key the rank decides ([`crate::view::Lanes`]).
//!    What limits do not allow is passed over, and holds up nothing else.

mod asked;
mod assumed;
mod expiring;
mod fill;
mod give;
mod limits;
mod rates;
pub mod versions;
mod write;

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::backend::Revision;
use crate::clock::Now;
use crate::id::{AttemptId, DefinitionId, TaskId, WorkerId};
use crate::record::{Isolation, Ties};
use crate::spec::RateLimit;
use crate::txn::AsSeen;
use crate::view::{Class, Definition, LaneKey, Parked, Task, View};

use give::Give;

pub use assumed::Assumed;
pub use limits::{BeingGiven, being_given, startable};
pub use write::{Fetch, Written, write};

/// How many steps one plan has at most: what two full batches take.
pub const MAX_STEPS: usize = 240;

/// One thing to do. The names are those of the table of moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Give a task to a worker.
    Assign {
        /// The task.
        task: TaskId,
        /// The worker.
        worker: WorkerId,
        /// What it takes of the worker.
        class: Class,
        /// The lane it waited in.
        lane: LaneKey,
        /// Whether it spends a part of its lane's turn.
        in_turn: bool,
        /// The rate limit that it counts for.
        rate: Option<RateLimit>,
        /// The revisions this was decided from.
        seen: AsSeen,
    },
    /// Return a dead worker's task.
    Lost {
        /// The task.
        task: TaskId,
        /// The dead worker.
        worker: WorkerId,
        /// The attempt that was lost.
        attempt: AttemptId,
        /// Whether the task had the worker to itself.
        isolation: Isolation,
    },
    /// Park a task that lost too many workers while alone. Its payload is read first.
    LostForGood {
        /// The task.
        task: TaskId,
        /// The last worker it lost.
        worker: WorkerId,
        /// The attempt that was lost.
        attempt: AttemptId,
    },
    /// Return a task that a living worker held beyond every bound.
    TakeBack {
        /// The task.
        task: TaskId,
        /// The worker that holds it.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// End a waiting task that somebody asked to cancel.
    Cancel {
        /// The task.
        task: TaskId,
        /// The task's mod-revision as seen.
        seen: Revision,
        /// The tally's mod-revision as seen; 0 if there is none.
        tally: Revision,
    },
    /// Tell the worker of a task that somebody asked to cancel it.
    FlagCancel {
        /// The task.
        task: TaskId,
        /// The worker that holds it.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// Whether the task has the worker to itself.
        isolation: Isolation,
    },
    /// End a task that has waited longer than it may.
    Expire {
        /// The task.
        task: TaskId,
        /// The task's mod-revision as seen.
        seen: Revision,
        /// The tally's mod-revision as seen; 0 if there is none.
        tally: Revision,
    },
    /// Run a parked task again. Its payload is read first.
    Replay {
        /// The task.
        task: TaskId,
    },
    /// Remove a parked task: somebody asked to, or it is past its retention.
    Purge {
        /// The task.
        task: TaskId,
        /// What it is tied to.
        ties: Ties,
        /// The parked record's mod-revision as seen.
        seen: Revision,
    },
    /// Remove a request that there is nothing left to do about.
    DropRequest {
        /// The task.
        task: TaskId,
        /// The request's mod-revision as seen.
        seen: Revision,
    },
}

impl Step {
    fn purge(task: TaskId, parked: Parked) -> Self {
        Self::Purge { task, ties: parked.ties, seen: parked.revision }
    }

    /// The task it is about.
    pub fn task(&self) -> TaskId {
        match self {
            Self::Assign { task, .. }
            | Self::Lost { task, .. }
            | Self::LostForGood { task, .. }
            | Self::TakeBack { task, .. }
            | Self::Cancel { task, .. }
            | Self::FlagCancel { task, .. }
            | Self::Expire { task, .. }
            | Self::Replay { task }
            | Self::Purge { task, .. }
            | Self::DropRequest { task, .. } => *task,
        }
    }
}

impl Step {
    /// Whether it needs a record that the view does not keep, so that it is read first.
    pub fn needs_record(&self) -> bool {
        matches!(self, Self::LostForGood { .. } | Self::Replay { .. })
    }

    /// The lane whose turn the step spends, if it does: to be told to the view with
    /// [`View::gave`] when it is sent, and with [`View::refused`] if it is refused.
    pub fn turn_of(&self) -> Option<&LaneKey> {
        match self {
            Self::Assign { lane, in_turn: true, .. } => Some(lane),
            _ => None,
        }
    }
}

/// Why due tasks of a definition are not being given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// No policy is known: the definition was never applied.
    NoPolicy,
    /// The definition is on hold.
    OnHold,
    /// The definition was deleted.
    Deleted,
    /// There is no active worker.
    NoWorkers,
    /// Every slot is taken.
    NoFreeSlot,
    /// A suspect task waits for an idle worker.
    NoIdleWorker,
    /// A task that some versions of the worker could not read waits for another one.
    NoOtherVersion,
    /// A task takes more slots than any worker has.
    TooHeavy,
    /// As many run as `concurrencyLimit.total` allows.
    ConcurrencyLimit,
    /// As many run as `concurrencyLimit.perKey` allows of each key that waits.
    KeyConcurrencyLimit,
    /// As many were given out as `rateLimit.tasks` allows for now.
    RateLimit,
    /// As many were given out as `rateLimit.perKey` allows for now of each key that waits.
    KeyRateLimit,
    /// The plan is full; the next one goes on.
    PlanFull,
}

/// What to do, and why the rest waits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, by definition.
    pub steps: Vec<(DefinitionId, Step)>,
    /// Why due tasks remain, by definition.
    pub waiting: BTreeMap<DefinitionId, Waiting>,
    /// When to plan again even if nothing changes.
    pub wake: Option<Instant>,
}

impl Plan {
    fn wake_at(&mut self, at: Option<Instant>) {
        self.wake = match (self.wake, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Nothing more is given out of a definition: why, and until when.
    fn ends(&mut self, give: &Give<'_>) {
        self.waiting.extend(give.waiting().map(|why| (give.id.clone(), why)));
        self.wake_at(give.wake());
    }

    fn is_full(&self) -> bool {
        self.steps.len() >= MAX_STEPS
    }
}

/// Plans for all definitions.
pub fn assign(view: &View, assumed: &Assumed, now: &Now) -> Plan {
    let mut plan = Plan::default();
    for (id, definition) in view.definitions() {
        lost(&mut plan, id, definition, assumed);
        take_back(&mut plan, id, definition, assumed, now.instant);
        asked::plan(&mut plan, id, definition, assumed, now.instant);
        expiring::plan(&mut plan, id, definition, assumed, now.instant);
        plan.wake_at(definition.next_due(now.instant));
        plan.wake_at(definition.next_overdue().filter(|at| *at > now.instant));
    }
    give_out(&mut plan, view, assumed, now);
    plan
}

/// Shares what room the plan has among the definitions with due tasks, whoever was given
/// to longest ago first: none waits for others to run dry.
fn give_out(plan: &mut Plan, view: &View, assumed: &Assumed, now: &Now) {
    let due = view.definitions().iter().filter(|(_, definition)| definition.due_count() > 0);
    let mut open: Vec<Give<'_>> =
        due.map(|(id, definition)| Give::of(id, definition, assumed, now.instant)).collect();
    open.sort_by_key(|give| (assumed.gives_to(give.id), give.definition.last_given()));
    while !plan.is_full() && !open.is_empty() {
        let share = ((MAX_STEPS - plan.steps.len()) / open.len()).max(1);
        open.retain_mut(|give| {
            for _ in 0..share.min(MAX_STEPS - plan.steps.len()) {
                let Some(step) = give.next() else {
                    plan.ends(give);
                    return false;
                };
                plan.steps.push((give.id.clone(), step));
            }
            true
        });
    }
    for mut give in open {
        if give.next().is_some() {
            plan.waiting.insert(give.id.clone(), Waiting::PlanFull);
        } else {
            plan.ends(&give);
        }
    }
}

fn lost(plan: &mut Plan, id: &DefinitionId, definition: &Definition, assumed: &Assumed) {
    let max_disruptions =
        definition.policy().map_or(u32::MAX, |record| record.policy.execution.max_disruptions);
    for worker in definition.dead_workers() {
        for task_id in definition.held_by(worker) {
            if plan.is_full() {
                return;
            }
            let ours = |task: &&Task| task.is_readable() && !assumed.is_busy(id, task_id);
            let Some(task) = definition.task(task_id).filter(ours) else {
                continue;
            };
            let Some(assigned) = task.assignment() else { continue };
            let alone = assigned.isolation == Isolation::Alone;
            // A singleton is never given up: there is nobody to replay it.
            let hopeless = alone
                && task.exists()
                && !task_id.is_singleton()
                && task.tally().losses_alone + 1 >= max_disruptions;
            // What is asked of it comes first.
            let hopeless = hopeless && definition.request(task_id).is_none();
            let (worker, attempt) = (worker.clone(), assigned.attempt);
            let step = if hopeless {
                Step::LostForGood { task: task_id, worker, attempt }
            } else {
                Step::Lost { task: task_id, worker, attempt, isolation: assigned.isolation }
            };
            plan.steps.push((id.clone(), step));
        }
    }
}

fn take_back(plan: &mut Plan, id: &DefinitionId, definition: &Definition, assumed: &Assumed, now: Instant) {
    for task_id in definition.overdue(now) {
        let held = definition.task(task_id).filter(|task| task.is_readable());
        let held = held.and_then(|task| task.assignment());
        let Some(assigned) = held.filter(|_| !assumed.is_busy(id, task_id)) else { continue };
        // A dead worker's tasks are returned as lost, above.
        if plan.is_full() || !definition.workers().contains_key(&assigned.worker) {
            continue;
        }
        let (worker, attempt) = (assigned.worker.clone(), assigned.attempt);
        plan.steps.push((id.clone(), Step::TakeBack { task: task_id, worker, attempt }));
    }
}

/// Whether everything up to `revision` is in the view: what an answer at `revision`
/// taught is then known (law 6).
pub fn has_passed(view: &View, revision: Revision) -> bool {
    view.revision() >= revision
}

#[cfg(test)]
mod tests;
