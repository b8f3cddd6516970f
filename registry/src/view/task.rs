//! What a view knows of one task: its record, its tally, its assignment.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::lanes::{Class, LaneKey, Rank};
use crate::backend::Revision;
use crate::clock::WallMillis;
use crate::id::{AttemptId, ResultSlot, WorkerId};
use crate::record::{Isolation, Tally, TaskOptions, Ties};

/// A task as far as a view knows it.
#[derive(Debug, Default)]
pub struct Task {
    pub(super) record: Option<Known>,
    pub(super) tally: Option<KnownTally>,
    pub(super) assignment: Option<Assigned>,
    /// Whether an attempt left something for the next one.
    pub(super) checkpoint: bool,
    /// Where the task stands in its definition's queue.
    pub(super) queued: Option<QueueKey>,
}

/// The task record, without what deciding does not need.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) revision: Revision,
    pub(super) due: Instant,
    /// When it has waited longer than it may, if it may not for ever.
    pub(super) expires: Option<Instant>,
    pub(super) published: WallMillis,
    pub(super) slot: ResultSlot,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) options: TaskOptions,
    /// The payload, unless it is too large to travel in an assignment.
    pub(super) payload: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct KnownTally {
    pub(super) revision: Revision,
    pub(super) due: Option<Instant>,
    /// `None` if it cannot be read.
    pub(super) tally: Option<Box<Tally>>,
}

/// A standing assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// To whom.
    pub worker: WorkerId,
    /// Under which attempt.
    pub attempt: AttemptId,
    /// Whether the task has the worker to itself.
    pub isolation: Isolation,
    /// Whether its worker was told to cancel it.
    pub cancel: bool,
    /// When the assigner takes it back whatever the worker says (law 15).
    pub overdue: Instant,
    /// When this view first saw it.
    pub since: Instant,
    /// Whether its record could be read.
    pub readable: bool,
    /// What the publisher chose, as the assignment carries it.
    pub options: TaskOptions,
}

/// The order of waiting tasks: by due time, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueKey {
    pub(super) due: Instant,
    pub(super) revision: Revision,
    pub(super) id: crate::id::TaskId,
}

impl Task {
    /// Whether the task itself is known, and not only something that points to it.
    pub fn exists(&self) -> bool {
        self.record.is_some()
    }

    /// The standing assignment, if any.
    pub fn assignment(&self) -> Option<&Assigned> {
        self.assignment.as_ref()
    }

    /// What happened to it so far.
    pub fn tally(&self) -> Tally {
        self.known_tally().cloned().unwrap_or_default()
    }

    /// Whether it must run alone (law 17).
    pub fn is_suspect(&self) -> bool {
        self.known_tally().is_some_and(Tally::is_suspect)
    }

    fn known_tally(&self) -> Option<&Tally> {
        self.tally.as_ref().and_then(|known| known.tally.as_deref())
    }

    /// Whether what is known of its past and of its assignment could be read. What could
    /// not is left to whoever can: such a task is not given out and not taken back.
    pub fn is_readable(&self) -> bool {
        self.tally.as_ref().is_none_or(|known| known.tally.is_some())
            && self.assignment.as_ref().is_none_or(|assigned| assigned.readable)
    }

    /// The tally's mod-revision; 0 if there is none.
    pub fn tally_revision(&self) -> Revision {
        self.tally.as_ref().map_or(0, |known| known.revision)
    }

    /// Versions of the worker that could not read its payload.
    pub fn undecodable_by(&self) -> &[String] {
        let known = self.tally.as_ref().and_then(|known| known.tally.as_ref());
        known.map_or(&[], |tally| &tally.undecodable_by)
    }

    /// Whether the next attempt finds a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        self.checkpoint
    }

    /// When the next attempt may begin, if the task is known.
    pub fn due(&self) -> Option<Instant> {
        let known = self.record.as_ref()?;
        Some(self.tally.as_ref().and_then(|tally| tally.due).unwrap_or(known.due))
    }

    /// When it has waited longer than it may, if it waits and may not for ever. A running
    /// task does not expire; one that waits for its next attempt does.
    pub fn expires_waiting(&self) -> Option<Instant> {
        let waits = self.assignment.is_none() && self.is_readable();
        self.record.as_ref().filter(|_| waits).and_then(|known| known.expires)
    }

    /// Whether it waits, and has waited longer than it may.
    pub fn has_expired(&self, now: Instant) -> bool {
        self.expires_waiting().is_some_and(|at| at <= now)
    }

    /// Where its terminal record goes.
    pub fn slot(&self) -> Option<ResultSlot> {
        self.record.as_ref().map(|known| known.slot)
    }

    /// The record's mod-revision; 0 if the task is not known.
    pub fn task_revision(&self) -> Revision {
        self.record.as_ref().map_or(0, |known| known.revision)
    }

    /// What the task is tied to, if it is known.
    pub fn ties(&self) -> Option<Ties> {
        let known = self.record.as_ref()?;
        // Every end of an attempt leaves a tally: without one, none has begun.
        let begun = self.tally.is_some() || self.assignment.is_some();
        let options = &known.options;
        let unique = if begun { options.key_once_begun() } else { options.key_while_waiting() };
        Some(Ties { slot: known.slot, unique })
    }

    /// When it was published, by the publisher's clock.
    pub fn published(&self) -> WallMillis {
        self.record.as_ref().map(|known| known.published).unwrap_or_default()
    }

    /// What the publisher attached.
    pub fn headers(&self) -> BTreeMap<String, String> {
        self.record.as_ref().map(|known| known.headers.clone()).unwrap_or_default()
    }

    /// What the publisher chose, by the task or else by its assignment.
    fn chosen(&self) -> Option<&TaskOptions> {
        let by_assignment = || self.assignment.as_ref().map(|assigned| &assigned.options);
        self.options().or_else(by_assignment)
    }

    /// The lane it waits in, or that it counts for while a worker has it.
    pub fn lane(&self) -> LaneKey {
        self.chosen().and_then(|options| options.key.clone())
    }

    /// What it needs of a worker.
    pub fn class(&self) -> Class {
        let isolation = if self.is_suspect() { Isolation::Alone } else { Isolation::Shared };
        Class { isolation, weight: self.chosen().map(|options| options.weight).unwrap_or_default() }
    }

    /// Its place in its lane.
    pub(super) fn rank(&self, key: QueueKey) -> Rank {
        let priority = self.chosen().map(|options| options.priority).unwrap_or_default();
        Rank { at: priority.rank(key.due), revision: key.revision, id: key.id }
    }

    /// What the publisher chose, if the task is known.
    pub fn options(&self) -> Option<&TaskOptions> {
        self.record.as_ref().map(|known| &known.options)
    }

    /// The payload, if it is small enough to travel in an assignment and was kept.
    pub fn payload(&self) -> Option<&Bytes> {
        self.record.as_ref().and_then(|known| known.payload.as_ref())
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload().map_or(0, Bytes::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none() && self.tally.is_none() && self.assignment.is_none() && !self.checkpoint
    }

    /// Where the task belongs in the queue: nowhere unless it exists and is nobody's.
    pub(super) fn queue_key(&self, id: crate::id::TaskId) -> Option<QueueKey> {
        let (known, due) = (self.record.as_ref()?, self.due()?);
        let free = self.assignment.is_none() && self.is_readable();
        free.then_some(QueueKey { due, revision: known.revision, id })
    }
}
