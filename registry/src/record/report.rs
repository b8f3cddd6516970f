//! What a handler reports while it runs: how far it is, and what its task's next attempt
//! is to begin from.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::clock::WallMillis;
use crate::id::AttemptId;

/// How far a running attempt says it is. Part of the tally while the attempt runs, and gone
/// with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When it was reported, by the worker's clock.
    pub at: WallMillis,
    /// What was reported, as JSON text of at most [`limits::PROGRESS`](super::limits::PROGRESS)
    /// bytes. Text within text, so that no reader of the tally has to parse it.
    pub value: String,
}

/// What an attempt left for the next one. Stands until the task has ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// That attempt's number, from 1.
    pub number: u32,
    /// When, by the worker's clock.
    pub at: WallMillis,
    /// The value, as the handler's type encodes it: at most
    /// [`limits::CHECKPOINT`](super::limits::CHECKPOINT) bytes.
    #[serde(skip)]
    pub value: Bytes,
}

impl Record for CheckpointRecord {
    fn body(&self) -> &[u8] {
        &self.value
    }
    fn set_body(&mut self, body: Bytes) {
        self.value = body;
    }
}

impl fmt::Debug for CheckpointRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be secret: its size, not its content.
        f.debug_struct("CheckpointRecord")
            .field("attempt", &self.attempt)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}
