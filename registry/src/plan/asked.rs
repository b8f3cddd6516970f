//! What people and tools have asked for, and what there is to do about it (law 7).

use tokio::time::Instant;

use super::{Assumed, MAX_STEPS, Plan, Step};
use crate::id::{DefinitionId, TaskId};
use crate::record::Ask;
use crate::view::{Definition, Request};

/// A plan has at most so many steps about requests: a flood of them leaves room for work.
const MAX_ASKED: usize = MAX_STEPS / 2;

/// Plans what is asked of one definition's tasks.
pub(super) fn plan(
    plan: &mut Plan,
    id: &DefinitionId,
    definition: &Definition,
    assumed: &Assumed,
    now: Instant,
) {
    for (task, request) in definition.requests() {
        if plan.steps.len() >= MAX_ASKED {
            return;
        }
        if assumed.is_busy(id, task) {
            continue;
        }
        let step = match request.ask {
            Ask::Cancel => cancel(definition, task, request, now),
            Ask::Replay | Ask::Purge => Some(parked(definition, task, request)),
        };
        plan.steps.extend(step.map(|step| (id.clone(), step)));
    }
}

/// Only a parked task can be replayed or purged.
fn parked(definition: &Definition, task: TaskId, request: Request) -> Step {
    match (definition.parked(task), request.ask) {
        (Some(_), Ask::Replay) => Step::Replay { task },
        (Some(parked), Ask::Purge) => Step::purge(task, parked),
        _ => Step::DropRequest { task, seen: request.revision },
    }
}

/// A waiting task ends now; a running one's worker is told, and the request stands until
/// the attempt has ended, so that the task does not run again whatever became of it.
fn cancel(definition: &Definition, task: TaskId, request: Request, now: Instant) -> Option<Step> {
    let known = definition.task(task).filter(|known| known.exists());
    // Nothing to cancel: it has ended. And a singleton is there while its definition is.
    let Some(known) = known.filter(|_| !task.is_singleton()) else {
        return Some(Step::DropRequest { task, seen: request.revision });
    };
    if !known.is_readable() {
        return None; // it is left to whoever can read it, and so is the request
    }
    let Some(assigned) = known.assignment() else {
        let (seen, tally) = (known.task_revision(), known.tally_revision());
        return Some(Step::Cancel { task, seen, tally });
    };
    // A dead worker's task is returned first, and so is one that is held for too long.
    let returned = !definition.workers().contains_key(&assigned.worker) || assigned.overdue <= now;
    (!assigned.cancel && !returned).then(|| Step::FlagCancel {
        task,
        worker: assigned.worker.clone(),
        attempt: assigned.attempt,
        isolation: assigned.isolation,
    })
}
