//! What has waited, or was kept, for longer than it may.

use super::{Assumed, MAX_STEPS, Plan, Step};
use crate::clock::Instant;
use crate::id::DefinitionId;
use crate::view::Definition;

/// A plan that has so many steps leaves what expires to the next one: there must be room
/// for work.
const MAX_EXPIRING: usize = MAX_STEPS * 3 / 4;

/// Plans the end of one definition's tasks that waited too long, and the removal of
/// parked ones past their retention. What is asked of a task comes first.
pub(super) fn plan(
    plan: &mut Plan,
    id: &DefinitionId,
    definition: &Definition,
    assumed: &Assumed,
    now: Instant,
) {
    plan.wake_at(definition.next_expiry(now));
    let waiting = definition.expired(now).filter_map(|task| {
        let known = definition.task(task)?;
        Some(Step::Expire { task, seen: known.task_revision(), tally: known.tally_revision() })
    });
    let parked = definition
        .expired_parked(now)
        .filter_map(|task| definition.parked(task).map(|parked| Step::purge(task, parked)));
    for step in waiting.chain(parked) {
        if plan.steps.len() >= MAX_EXPIRING {
            return;
        }
        let task = step.task();
        if !assumed.is_busy(id, task) && definition.request(task).is_none() {
            plan.steps.push((id.clone(), step));
        }
    }
}
