//! What people and tools ask of the assigner (law 7): one request a task at a time.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::clock::WallMillis;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// End the task: it is no longer wanted.
    Cancel,
    /// Run a parked task again, under the same id.
    Replay,
    /// Remove a parked task and its terminal record.
    Purge,
}

/// A request about one task. It stands until the assigner has acted on it, or has seen
/// that there is nothing left to act on; only the assigner deletes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// What is asked.
    pub ask: Ask,
    /// When it was asked, by the asker's clock. For people only.
    pub asked: WallMillis,
}

impl Record for RequestRecord {}
