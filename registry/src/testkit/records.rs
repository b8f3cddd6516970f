//! Records as tests of the moves need them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{self, WallMillis};
use crate::id::ResultSlot;
use crate::record::{AssignmentRecord, Ended, OutcomeRecord, TaskOptions, TaskRecord};
use crate::txn::AttemptRef;

/// The slot of tasks that [`task`] makes.
pub const SLOT: ResultSlot = ResultSlot::from_bits(1);

/// A task that is due at once, with nothing chosen.
pub fn task() -> TaskRecord {
    TaskRecord {
        slot: SLOT,
        published: WallMillis(0),
        delay: None,
        headers: BTreeMap::new(),
        options: TaskOptions::default(),
        payload: Bytes::from_static(b"{}"),
    }
}

/// The terminal record of an attempt that succeeded, kept for a day.
pub fn succeeded(at: &AttemptRef, record: &AssignmentRecord) -> OutcomeRecord {
    let now = clock::wall();
    OutcomeRecord {
        ended: Ended::Succeeded,
        attempt: record.number,
        attempt_id: Some(at.attempt),
        worker: Some(at.worker.clone()),
        published: record.published,
        started: now,
        finished: now,
        expires: now.plus(Duration::from_secs(24 * 3600)),
        cancellation: None,
        tally: record.tally.clone(),
        codecs: Vec::new(),
        result: Bytes::new(),
    }
}
