//! What became of a task: its tally while it lives, its terminal record after.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Applied, Delay, Progress, Record, TaskRecord, limits};
use crate::clock::WallMillis;
use crate::id::{AttemptId, WorkerId};
use crate::spec::Retention;

/// Why an attempt did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorKind {
    /// The handler returned an error.
    Failed,
    /// The handler panicked.
    Panicked,
    /// The attempt took longer than its time-out.
    TimedOut,
    /// The payload could not be decoded.
    Undecodable,
    /// The result could not be encoded, or was too large.
    ResultRefused,
    /// The worker died while it ran the task.
    WorkerLost,
}

/// One attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When it ended, by the writer's clock.
    pub at: WallMillis,
    /// What kind of end it was.
    pub kind: ErrorKind,
    /// The error's text, at most [`limits::ERROR_TEXT`] bytes.
    pub message: String,
}

impl AttemptError {
    /// Cuts the text to its limit, at a character.
    pub fn new(attempt: u32, at: WallMillis, kind: ErrorKind, message: &str) -> Self {
        let mut end = message.len().min(limits::ERROR_TEXT);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Self { attempt, at, kind, message: message[..end].to_owned() }
    }
}

/// What happened to a living task so far; absent means nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tally {
    /// Failed attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Attempts whose worker died.
    #[serde(skip_serializing_if = "is_zero")]
    pub losses: u32,
    /// Those of them in which the task had the worker to itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub losses_alone: u32,
    /// Attempts a worker gave back, since it was told to end.
    #[serde(skip_serializing_if = "is_zero")]
    pub hand_backs: u32,
    /// Attempts that asked to be run again later.
    #[serde(skip_serializing_if = "is_zero")]
    pub snoozes: u32,
    /// Which life of the task this is: a replay begins the next one.
    #[serde(skip_serializing_if = "is_zero")]
    pub life: u32,
    /// When the next attempt may begin.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// The last errors, oldest first, at most [`limits::ERRORS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<AttemptError>,
    /// Versions of the worker that could not read the payload, at most
    /// [`limits::VERSIONS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undecodable_by: Vec<String>,
    /// How far the attempt says it is that runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Tally {
    /// A task is suspect, and runs alone, once so many of its workers died (law 17).
    pub const SUSPECT_LOSSES: u32 = 2;

    /// Whether nothing has happened yet.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the task must run alone.
    pub fn is_suspect(&self) -> bool {
        self.losses >= Self::SUSPECT_LOSSES
    }

    /// Makes the task due at once: infrastructure ended its attempt. If it waits for a worker
    /// of another version, it begins to wait anew.
    pub fn due_at_once(&mut self, now: WallMillis) {
        // That wait is counted from when the task is due: for want of this, from its publish.
        let waits = !self.undecodable_by.is_empty();
        self.delay = waits.then(|| Delay::from_now(Duration::ZERO, now));
    }

    /// Adds an error, and lets the oldest go beyond [`limits::ERRORS`].
    pub fn remember(&mut self, error: AttemptError) {
        self.errors.push(error);
        let extra = self.errors.len().saturating_sub(limits::ERRORS);
        self.errors.drain(..extra);
    }
}

impl Record for Tally {}

/// How a task ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// With a result.
    Succeeded,
    /// Given up until a person replays it.
    Parked,
    /// Somebody cancelled it, or its handler did.
    Cancelled,
    /// It waited longer than it may.
    Expired,
}

/// What a cancel on request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cancellation {
    /// No handler ran: the task was waiting, or given to a worker that had not begun it.
    NotRunning,
    /// Its handler was told, and stopped within its grace.
    Stopped,
    /// Its handler was told and did not stop within its grace. Its result is refused, but
    /// what it does outside may go on.
    Unstopped,
}

/// A terminal record: at most one a task and life.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeRecord {
    /// How the task ended.
    pub ended: Ended,
    /// The number of the attempt that ended it; 0 if none did.
    pub attempt: u32,
    /// That attempt's id: a worker whose settle went unanswered finds itself here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// The worker that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// When the task was published, by the publisher's clock.
    pub published: WallMillis,
    /// When the last attempt began, by its worker's clock.
    #[serde(default)]
    pub started: WallMillis,
    /// When the task ended, by the writer's clock.
    pub finished: WallMillis,
    /// The record may be removed after this.
    pub expires: WallMillis,
    /// What the cancel met, if it was cancelled on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<Cancellation>,
    /// What happened on the way, with the errors.
    #[serde(default, skip_serializing_if = "Tally::is_zero")]
    pub tally: Tally,
    /// What was done to the result, in the order in which it was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codecs: Vec<Applied>,
    /// The result, as the worker encoded it; empty unless it succeeded.
    #[serde(skip)]
    pub result: Bytes,
}

impl Record for OutcomeRecord {
    fn body(&self) -> &[u8] {
        &self.result
    }
    fn set_body(&mut self, body: Bytes) {
        self.result = body;
    }
}

/// A parked task: all that a replay needs, and why it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedRecord {
    /// When it was parked, by the writer's clock.
    pub parked: WallMillis,
    /// It may be removed after this, and its terminal record with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallMillis>,
    /// What happened to it, with the errors.
    pub tally: Tally,
    /// The task as published.
    pub task: TaskRecord,
}

impl ParkedRecord {
    /// What the task is tied to: parked, it holds its unique key.
    pub fn ties(&self) -> super::Ties {
        super::Ties { slot: self.task.slot, unique: self.task.options.key_once_begun() }
    }

    /// When it may be removed. One from before this was recorded is kept for as long as
    /// failed tasks are by default.
    pub fn expires(&self) -> WallMillis {
        self.expires.unwrap_or_else(|| self.parked.plus(Retention::default().failed.get()))
    }

    /// The task as it waits again: it is due at once, and its ttl begins anew.
    pub fn replayed(self, now: WallMillis) -> (TaskRecord, Tally) {
        let Self { mut task, tally, .. } = self;
        task.delay = None;
        task.options.ttl = task.options.ttl.map(|ttl| ttl.again(now));
        // The attempts are fresh; what went wrong before stays to be read.
        let tally = Tally { life: tally.life + 1, errors: tally.errors, ..Tally::default() };
        (task, tally)
    }
}

impl Record for ParkedRecord {
    fn body(&self) -> &[u8] {
        &self.task.payload
    }
    fn set_body(&mut self, body: Bytes) {
        self.task.payload = body;
    }
}

impl fmt::Debug for OutcomeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A result may be secret: its size, not its content.
        f.debug_struct("OutcomeRecord")
            .field("ended", &self.ended)
            .field("attempt", &self.attempt)
            .field("worker", &self.worker)
            .field("tally", &self.tally)
            .field("result_bytes", &self.result.len())
            .finish_non_exhaustive()
    }
}
