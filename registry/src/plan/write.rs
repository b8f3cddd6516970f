//! A step as a move: the records to write, from the view the step was planned from.

mod fetch;
mod leave;

use crate::clock::Now;
use crate::entropy::Entropy;
use crate::id::{AttemptId, DefinitionId, TaskId, WorkerId};
use crate::key::Keyspace;
use crate::plan::Step;
use crate::record::{AssignmentRecord, AttemptError, Ended, ErrorKind, Isolation, OutcomeRecord, Tally};
use crate::spec::Policy;
use crate::txn::{self, AttemptRef, Move, ParkedTask, WaitingTask};

use crate::view::{Task, View};

pub use fetch::Fetch;

/// A step, ready for the registry.
#[derive(Debug)]
pub enum Written {
    /// The move that does it.
    Move(Move),
    /// A move that needs a record which the view does not keep.
    Fetch(Fetch),
}

/// Writes a step as the move that does it; `None` if the step no longer makes sense.
pub fn write(
    space: &Keyspace,
    view: &View,
    def: &DefinitionId,
    step: &Step,
    entropy: &Entropy,
    now: &Now,
) -> Option<Written> {
    let definition = view.definitions().get(def)?;
    let policy = definition.policy().map(|record| &record.policy);
    // These are not about a task that waits or runs.
    match step {
        Step::DropRequest { task, seen } => {
            return Some(Written::Move(txn::drop_request(space, def, *task, *seen)));
        }
        Step::Purge { task, ties, seen } => {
            let at = ParkedTask { task: *task, ties: *ties, seen: *seen };
            return Some(Written::Move(txn::purge(space, def, at)));
        }
        Step::Replay { task } => return Some(Written::Fetch(Fetch::replay(def.clone(), *task, now.wall))),
        _ => {}
    }
    let task = definition.task(step.task())?;
    match step {
        Step::Assign { task: id, worker, class, seen, .. } => {
            let at = attempt(def, worker, *id, entropy.attempt_id());
            let record = assignment(task, policy?, class.isolation)?;
            Some(Written::Move(txn::assign(space, &at, *seen, &record)))
        }
        Step::Lost { task: id, worker, attempt: lost, isolation } => {
            let tally = after_loss(task, *isolation, now, &was_lost(worker));
            Some(Written::Move(txn::lost(space, &attempt(def, worker, *id, *lost), &tally)))
        }
        Step::TakeBack { task: id, worker, attempt: held } => {
            let text = format!(
                "worker {worker} held the task for longer than its time-out allows: it was taken back"
            );
            let tally = after_loss(task, Isolation::Shared, now, &text);
            Some(Written::Move(txn::take_back(space, &attempt(def, worker, *id, *held), &tally)))
        }
        Step::LostForGood { task: id, worker, attempt: lost } => {
            let tally = after_loss(task, Isolation::Alone, now, &was_lost(worker));
            let outcome = OutcomeRecord {
                ended: Ended::Parked,
                attempt: tally.attempts,
                // The attempt did not end it: its worker, should it live, is not to find itself.
                attempt_id: None,
                worker: Some(worker.clone()),
                published: task.published(),
                started: now.wall,
                finished: now.wall,
                expires: now.wall.plus(leave::kept(policy)),
                cancellation: None,
                tally,
                codecs: Vec::new(),
                result: bytes::Bytes::new(),
            };
            let at = attempt(def, worker, *id, *lost);
            Some(Written::Fetch(Fetch::park(at, Box::new(outcome))))
        }
        Step::Cancel { task: id, seen, tally } => {
            let at = WaitingTask { task: *id, ties: task.ties()?, seen: *seen, tally: *tally };
            let outcome = leave::outcome(task, policy, Ended::Cancelled, now);
            Some(Written::Move(txn::end_waiting(space, def, at, &outcome)))
        }
        Step::FlagCancel { task: id, worker, attempt: held, isolation } => {
            let policy = policy.cloned().unwrap_or_default();
            let record = AssignmentRecord { cancel: true, ..assignment(task, &policy, *isolation)? };
            Some(Written::Move(txn::flag_cancel(space, &attempt(def, worker, *id, *held), &record)))
        }
        Step::Expire { task: id, seen, tally } => {
            let at = WaitingTask { task: *id, ties: task.ties()?, seen: *seen, tally: *tally };
            let outcome = leave::outcome(task, policy, Ended::Expired, now);
            Some(Written::Move(txn::end_waiting(space, def, at, &outcome)))
        }
        Step::DropRequest { .. } | Step::Purge { .. } | Step::Replay { .. } => None, // above
    }
}

fn attempt(def: &DefinitionId, worker: &WorkerId, task: TaskId, attempt: AttemptId) -> AttemptRef {
    AttemptRef { definition: def.clone(), worker: worker.clone(), task, attempt }
}

fn assignment(task: &Task, policy: &Policy, isolation: Isolation) -> Option<AssignmentRecord> {
    let tally = task.tally();
    let payload = task.payload().cloned();
    Some(AssignmentRecord {
        number: tally.attempts + 1,
        max_attempts: policy.execution.retry.max_attempts,
        timeout: policy.execution.timeout,
        backoff: policy.execution.retry.backoff.clone(),
        retention: policy.retention.clone(),
        slot: task.slot()?,
        published: task.published(),
        isolation,
        cancel: false,
        has_checkpoint: task.has_checkpoint(),
        headers: task.headers(),
        options: task.options().cloned().unwrap_or_default(),
        inline: payload.is_some(),
        payload: payload.unwrap_or_default(),
        tally,
    })
}

fn was_lost(worker: &WorkerId) -> String {
    format!("worker {worker} was lost")
}

/// The tally after a worker was lost, or its task was taken from it: infrastructure is not
/// the task's fault, so no attempt is counted, and the task is due at once (law 17).
fn after_loss(task: &Task, isolation: Isolation, now: &Now, text: &str) -> Tally {
    let mut tally = task.tally();
    tally.losses += 1;
    tally.losses_alone += u32::from(isolation == Isolation::Alone);
    tally.due_at_once(now.wall);
    tally.remember(AttemptError::new(tally.attempts + 1, now.wall, ErrorKind::WorkerLost, text));
    tally
}
