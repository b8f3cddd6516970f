//! Moves that need a record which the view does not keep: the task with its payload.

use crate::backend::Entry;
use crate::clock::WallMillis;
use crate::id::{DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{OutcomeRecord, ParkedRecord, Record, TaskRecord};
use crate::txn::{self, AttemptRef, Move, ParkedTask};

/// A move to be made once a record is read.
#[derive(Debug, Clone)]
pub struct Fetch {
    make: Make,
}

#[derive(Debug, Clone)]
enum Make {
    Park { at: AttemptRef, outcome: Box<OutcomeRecord> },
    Replay { definition: DefinitionId, task: TaskId, now: WallMillis },
}

impl Fetch {
    pub(super) fn park(at: AttemptRef, outcome: Box<OutcomeRecord>) -> Self {
        Self { make: Make::Park { at, outcome } }
    }

    pub(super) fn replay(definition: DefinitionId, task: TaskId, now: WallMillis) -> Self {
        Self { make: Make::Replay { definition, task, now } }
    }

    /// The key to read.
    pub fn key(&self) -> Key {
        match &self.make {
            Make::Park { at, .. } => Key::Task(at.definition.clone(), at.task),
            Make::Replay { definition, task, .. } => Key::Parked(definition.clone(), *task),
        }
    }

    /// The move, from what was read; `None` if it cannot be read as what it should be.
    pub fn with(self, space: &Keyspace, found: &Entry) -> Option<Move> {
        match self.make {
            Make::Park { at, outcome } => {
                let task = TaskRecord::decode(&found.value).ok()?;
                let (parked, tally) = (outcome.finished, outcome.tally.clone());
                let parked = ParkedRecord { parked, expires: Some(outcome.expires), tally, task };
                Some(txn::lost_for_good(space, &at, &parked, &outcome))
            }
            Make::Replay { definition, task, now } => {
                let parked = ParkedRecord::decode(&found.value).ok()?;
                let at = ParkedTask { task, ties: parked.ties(), seen: found.mod_revision };
                let (record, tally) = parked.replayed(now);
                Some(txn::replay(space, &definition, at, &record, &tally))
            }
        }
    }
}
