//! The records of tasks that end without their workers.

use bytes::Bytes;

use crate::clock::Now;
use crate::record::{Cancellation, Ended, OutcomeRecord};
use crate::spec::{Policy, Retention};
use crate::view::Task;

/// The terminal record of a task that ends while it waits.
pub(super) fn outcome(task: &Task, policy: Option<&Policy>, ended: Ended, now: &Now) -> OutcomeRecord {
    let tally = task.tally();
    OutcomeRecord {
        ended,
        attempt: tally.attempts,
        attempt_id: None,
        worker: None,
        published: task.published(),
        started: now.wall,
        finished: now.wall,
        expires: now.wall.plus(kept(policy)),
        cancellation: (ended == Ended::Cancelled).then_some(Cancellation::NotRunning),
        tally,
        codecs: Vec::new(),
        result: Bytes::new(),
    }
}

/// How long the record of a task that did not succeed is kept.
pub(super) fn kept(policy: Option<&Policy>) -> std::time::Duration {
    let retention = policy.map_or_else(Retention::default, |policy| policy.retention.clone());
    retention.failed.get().max(Retention::FLOOR)
}
