//! A plan: what it may do to the view it was made from.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::clock::Now;
use crate::id::{AttemptId, DefinitionId, WorkerId};
use crate::plan::{Assumed, Plan, Step};
use crate::record::{Ask, Isolation, WorkerState};
use crate::view::{Task, View};

/// Checks a plan against the view and the assumptions it was made from.
pub fn plan(view: &View, assumed: &Assumed, plan: &Plan, now: &Now) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    let mut given: BTreeMap<(DefinitionId, WorkerId), (usize, bool)> = BTreeMap::new();
    for (def, step) in &plan.steps {
        let task = step.task();
        let mut violation = |law: u8, what: &str| {
            broken.push(Violation { law, task: Some((def.clone(), task)), what: what.to_owned() });
        };
        if !seen.insert((def.clone(), task)) {
            violation(6, "planned twice in one plan");
        }
        if assumed.is_busy(def, task) {
            violation(6, "planned while a request about it is unanswered");
        }
        let Some(definition) = view.definitions().get(def) else { continue };
        let asked = definition.request(task).is_some();
        if let Step::DropRequest { seen, .. } = step {
            if definition.request(task).map(|request| request.revision) != Some(*seen) {
                violation(7, "a request is dropped that does not stand");
            }
            continue;
        }
        if matches!(step, Step::Replay { .. } | Step::Purge { .. }) {
            let wish = definition.request(task).map(|request| request.ask);
            let expired = definition.parked(task).is_some_and(|parked| parked.expires <= now.instant);
            let rightly = match step {
                Step::Replay { .. } => wish == Some(Ask::Replay),
                _ => wish == Some(Ask::Purge) || (wish.is_none() && expired),
            };
            if definition.parked(task).is_none() || !rightly {
                violation(7, "replayed or removed though it is not parked, or nobody asked");
            }
            continue;
        }
        let expired = definition.task(task).is_some_and(|known| known.has_expired(now.instant));
        let Some(known) = definition.task(task) else {
            violation(1, "planned though unknown");
            continue;
        };
        let waits = known.exists() && known.assignment().is_none();
        match step {
            Step::Cancel { .. } if !asked || !waits => violation(7, "cancelled though it runs, or unasked"),
            Step::FlagCancel { attempt, .. } if !asked || !holds(known, *attempt) => {
                violation(7, "flagged though nobody asked, or for another attempt");
            }
            Step::Expire { .. } if !waits || !expired => {
                violation(16, "expired though it runs, or too early");
            }
            Step::Assign { .. } if expired => violation(16, "given out though it has expired"),
            Step::Assign { .. } if asked => violation(7, "given out though something else is asked of it"),
            _ => {}
        }
        let Step::Assign { worker, class, .. } = step else { continue };
        if !waits {
            violation(1, "given out though it is not waiting");
        }
        if known.due().is_none_or(|due| due > now.instant) {
            violation(16, "given out before it is due");
        }
        let live = definition.workers().get(worker);
        let Some(live) = live.filter(|live| live.record.state == WorkerState::Active) else {
            violation(4, "given to a worker that takes nothing");
            continue;
        };
        let place = given.entry((def.clone(), worker.clone())).or_default();
        let held = definition.held_slots(worker) + place.0;
        if held + class.weight.slots() > live.record.slots as usize {
            violation(6, "given to a worker without enough free slots");
        }
        let alone = class.isolation == Isolation::Alone;
        if place.1 || definition.is_taken_alone(worker) || (alone && held > 0) {
            violation(17, "a suspect task does not have its worker to itself");
        }
        *place = (place.0 + class.weight.slots(), alone);
    }
    broken
}

fn holds(task: &Task, attempt: AttemptId) -> bool {
    task.assignment().is_some_and(|assigned| assigned.attempt == attempt)
}
