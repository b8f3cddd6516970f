//! A published task, and its assignment to a worker.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Envelope, FairnessKey, Priority, Record, Tally, Ties, Unique, Weight};
use crate::clock::{Instant, Now, WallMillis};
use crate::id::ResultSlot;
use crate::spec::{Backoff, Retention, Span};

/// When something becomes due, told twice (law 16).
///
/// Whoever sees the record arrive counts `delay` from that moment; whoever reads it
/// from a list goes by the writer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// The wait, in milliseconds.
    #[serde(rename = "delayMs")]
    pub millis: u64,
    /// When that is over by the writer's wall clock.
    #[serde(rename = "dueByWriter")]
    pub due_by_writer: WallMillis,
}

/// How a record came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// By a watch, as it was written.
    Live,
    /// From a list, some time after it was written.
    Listed,
}

impl Delay {
    /// A wait that begins now.
    pub fn from_now(wait: Duration, now: WallMillis) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { millis, due_by_writer: now.plus(wait) }
    }

    /// The same wait, beginning now.
    pub fn again(self, now: WallMillis) -> Self {
        Self::from_now(Duration::from_millis(self.millis), now)
    }

    /// When the wait is over for an observer at `now`.
    pub fn due(&self, seen: Seen, now: &Now) -> Instant {
        match seen {
            Seen::Live => now.instant + Duration::from_millis(self.millis).min(crate::clock::FAR),
            Seen::Listed => now.instant_of(self.due_by_writer),
        }
    }
}

/// What the publisher chose for one task, beyond its payload and its first due time.
///
/// It travels with the task: the view keeps it, an assignment carries it to the worker,
/// and a parked task keeps it for its replay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskOptions {
    /// The key of which it is the only task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// How the payload is to be read, unless it is plain: see [`TaskOptions::envelope`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Box<Envelope>>,
    /// How long the task may wait for an attempt to begin, counted from its publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Delay>,
    /// How urgent it is among those with the same fairness key.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// What it takes turns by, and what limits per key count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<FairnessKey>,
    /// How many of a worker's slots it takes.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Weight,
}

fn is_default<T: Default + PartialEq>(choice: &T) -> bool {
    *choice == T::default()
}

impl TaskOptions {
    /// Whether nothing was chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How the payload is to be read.
    pub fn envelope(&self) -> &Envelope {
        self.envelope.as_deref().unwrap_or(Envelope::PLAIN)
    }
}

/// A published task. Immutable, but for one that may be replaced until it has begun
/// ([`HeldUntil::Begun`](super::HeldUntil::Begun)).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Where its terminal record will go.
    pub slot: ResultSlot,
    /// When it was published, by the publisher's clock. For people only.
    pub published: WallMillis,
    /// The wait before its first attempt.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// What the publisher attached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the publisher chose.
    #[serde(default, skip_serializing_if = "TaskOptions::is_default")]
    pub options: TaskOptions,
    /// The payload, as the publisher encoded it.
    #[serde(skip)]
    pub payload: Bytes,
}

impl Record for TaskRecord {
    fn body(&self) -> &[u8] {
        &self.payload
    }
    fn set_body(&mut self, body: Bytes) {
        self.payload = body;
    }
}

/// Whether a task shares its worker with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// It does.
    #[default]
    Shared,
    /// It is suspected of killing its workers, and has this one to itself (law 17).
    Alone,
}

/// A task given to a worker: everything the worker needs to run and to end it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentRecord {
    /// The number of this attempt, from 1.
    pub number: u32,
    /// The task is parked when attempt number `max_attempts` fails.
    pub max_attempts: u32,
    /// The time one attempt may take.
    pub timeout: Span,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// How long the terminal record is kept.
    pub retention: Retention,
    /// Where the terminal record goes.
    pub slot: ResultSlot,
    /// When the task was published, by the publisher's clock.
    pub published: WallMillis,
    /// What happened to the task before.
    #[serde(default, skip_serializing_if = "Tally::is_zero")]
    pub tally: Tally,
    /// Whether the task has the worker to itself.
    #[serde(default)]
    pub isolation: Isolation,
    /// Set once somebody asked to cancel the task.
    #[serde(default)]
    pub cancel: bool,
    /// Whether an earlier attempt left a checkpoint, to be read before this one begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_checkpoint: bool,
    /// What the publisher attached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the publisher chose.
    #[serde(default, skip_serializing_if = "TaskOptions::is_default")]
    pub options: TaskOptions,
    /// Whether the payload is the body of this record; else it is read from the task.
    pub inline: bool,
    /// The payload, if inline.
    #[serde(skip)]
    pub payload: Bytes,
}

impl AssignmentRecord {
    /// What the task is tied to.
    pub fn ties(&self) -> Ties {
        Ties { slot: self.slot, unique: self.options.key_once_begun() }
    }
}

impl Record for AssignmentRecord {
    fn body(&self) -> &[u8] {
        &self.payload
    }
    fn set_body(&mut self, body: Bytes) {
        self.payload = body;
    }
}

// A payload may be secret: `Debug` shows its size, not its content.

impl fmt::Debug for TaskRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRecord")
            .field("slot", &self.slot)
            .field("delay", &self.delay)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AssignmentRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssignmentRecord")
            .field("number", &self.number)
            .field("tally", &self.tally)
            .field("isolation", &self.isolation)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
