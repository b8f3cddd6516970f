//! A step as a move: the records to write, from the view the step was planned from.

use crate::clock::Now;
use crate::entropy::Entropy;
use crate::id::{AttemptId, DefinitionId, TaskId, WorkerId};
use crate::key::Keyspace;
use crate::plan::Step;
use crate::record::{AssignmentRecord, AttemptError, Ended, ErrorKind, Isolation, OutcomeRecord, Tally};
use crate::spec::{Policy, Retention};
use crate::txn::{self, AttemptRef, Move};
use crate::view::{Task, View};

/// A step, ready for the registry.
#[derive(Debug)]
pub enum Written {
    /// The move that does it.
    Move(Move),
    /// A task to park: the move needs the task's record, which the view does not keep.
    Park {
        /// The attempt that was lost.
        at: AttemptRef,
        /// The terminal record.
        outcome: Box<OutcomeRecord>,
    },
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
    let task = definition.task(step.task())?;
    let policy = definition.policy().map(|record| &record.policy);
    match step {
        Step::Assign { task: id, worker, isolation, seen } => {
            let at = attempt(def, worker, *id, entropy.attempt_id());
            let record = assignment(task, policy?, *isolation)?;
            Some(Written::Move(txn::assign(space, &at, *seen, &record)))
        }
        Step::Lost { task: id, worker, attempt: lost, isolation } => {
            let tally = after_loss(task, *isolation, now, worker);
            Some(Written::Move(txn::lost(space, &attempt(def, worker, *id, *lost), &tally)))
        }
        Step::TakeBack { task: id, worker, attempt: held } => {
            let tally = after_loss(task, Isolation::Shared, now, worker);
            Some(Written::Move(txn::take_back(space, &attempt(def, worker, *id, *held), &tally)))
        }
        Step::LostForGood { task: id, worker, attempt: lost } => {
            let tally = after_loss(task, Isolation::Alone, now, worker);
            let retention = policy.map_or_else(Retention::default, |p| p.retention.clone());
            let outcome = OutcomeRecord {
                ended: Ended::Parked,
                attempt: tally.attempts,
                attempt_id: Some(*lost),
                worker: Some(worker.clone()),
                published: task.published(),
                started: now.wall,
                finished: now.wall,
                expires: now.wall.plus(retention.failed.get().max(Retention::FLOOR)),
                tally,
                codecs: Vec::new(),
                result: bytes::Bytes::new(),
            };
            Some(Written::Park { at: attempt(def, worker, *id, *lost), outcome: Box::new(outcome) })
        }
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

/// The tally after a worker was lost: infrastructure is not the task's fault, so no
/// attempt is counted, and the task is due at once (law 17).
fn after_loss(task: &Task, isolation: Isolation, now: &Now, worker: &WorkerId) -> Tally {
    let mut tally = task.tally();
    tally.losses += 1;
    tally.losses_alone += u32::from(isolation == Isolation::Alone);
    tally.delay = None;
    let text = format!("worker {worker} was lost");
    tally.remember(AttemptError::new(tally.attempts + 1, now.wall, ErrorKind::WorkerLost, &text));
    tally
}
