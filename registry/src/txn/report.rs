//! Moves of a running attempt that leave its task where it is: they show how far it is, and
//! keep what the next attempt begins from.

use super::{AttemptRef, Move, Write, as_seen};
use crate::backend::{Is, OpAnswer, Revision, TxnAnswer};
use crate::key::{Key, Keyspace};
use crate::record::{CheckpointRecord, Record, Tally};

/// Shows how far an attempt is. `tally` is the task's as it was assigned, with the progress:
/// nobody else writes it while the assignment stands.
pub fn progress(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    let key = Key::Tally(at.definition.clone(), at.task);
    // A wait before this attempt is over: what is written again must not begin it anew.
    let tally = Tally { delay: None, ..tally.clone() };
    Write::new(space).when(&at.key(), Is::Present).put(&key, tally.encode()).done()
}

/// Keeps what the next attempt is to begin from, over what was seen at `seen` (0 if there
/// was nothing): an earlier write of the same attempt that comes late does not undo a later
/// one. Read the answer with [`Kept::of`].
pub fn checkpoint(space: &Keyspace, at: &AttemptRef, seen: Revision, record: &CheckpointRecord) -> Move {
    let key = Key::Checkpoint(at.definition.clone(), at.task);
    Write::new(space)
        .when(&at.key(), Is::Present)
        .when(&key, as_seen(seen))
        .put(&key, record.encode())
        .else_get(&at.key())
        .else_get(&key)
        .done()
}

/// What became of a [`checkpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept; what follows is written over this revision.
    Done(Revision),
    /// An earlier write of this attempt was applied meanwhile, at this revision: to be sent
    /// again over it.
    Again(Revision),
    /// The assignment is no longer this worker's: nothing was done.
    Fenced,
}

impl Kept {
    /// Reads the answer to [`checkpoint`].
    pub fn of(answer: &TxnAnswer) -> Self {
        if answer.succeeded {
            return Self::Done(answer.revision);
        }
        let found = |at: usize| match answer.answers.get(at) {
            Some(OpAnswer::Get(entries)) => entries.first(),
            _ => None,
        };
        match (found(0), found(1)) {
            (None, _) => Self::Fenced,
            (Some(_), stored) => Self::Again(stored.map_or(0, |entry| entry.mod_revision)),
        }
    }
}
