//! A publisher's moves: a task is created, or a pending one replaced.

use super::{Move, Write};
use crate::backend::{Is, OpAnswer, Revision, TxnAnswer};
use crate::id::{DefinitionId, ResultSlot, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{HolderRecord, Record, TaskRecord};

/// Creates a task (law 9), and takes its unique key if it has one (law 22). Read the
/// answer with [`Published::of`].
pub fn publish(space: &Keyspace, def: &DefinitionId, id: TaskId, record: &TaskRecord) -> Move {
    let task = Key::Task(def.clone(), id);
    let parked = Key::Parked(def.clone(), id);
    let outcome = Key::Outcome(def.clone(), record.slot, id);
    let write = Write::new(space)
        .when(&Key::Open(def.clone()), Is::Present)
        .when(&task, Is::Absent)
        .when(&parked, Is::Absent)
        .when(&outcome, Is::Absent)
        .put(&task, record.encode())
        .else_get(&task)
        .else_get(&parked)
        .else_get(&outcome);
    let Some(key) = record.options.key_while_waiting() else { return write.done() };
    let unique = Key::Unique(def.clone(), key.bytes());
    let holder = HolderRecord { task: id, slot: record.slot };
    write.when(&unique, Is::Absent).put(&unique, holder.encode()).else_get(&unique).done()
}

/// Where [`publish`]'s answers are when it is refused.
const UNIQUE: usize = 3;

/// A unique key's holder, as a refused publish found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The task.
    pub task: TaskId,
    /// Where its terminal record goes.
    pub slot: ResultSlot,
    /// The key's mod-revision.
    pub revision: Revision,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The task is in the registry, by this request.
    Created,
    /// It was there already: an earlier try of the same publish, or its result.
    Already,
    /// Another task holds its unique key.
    Held(Holder),
    /// Its unique key is held by what this version cannot read.
    Unreadable,
    /// The definition does not exist, or takes no tasks now: its policy tells which,
    /// and lies outside of what a publisher's transaction may read.
    Closed,
}

impl Published {
    /// Reads the answer to [`publish`].
    pub fn of(answer: &TxnAnswer) -> Self {
        if answer.succeeded {
            return Self::Created;
        }
        let there = |step: &OpAnswer| matches!(step, OpAnswer::Get(found) if !found.is_empty());
        if answer.answers.iter().take(UNIQUE).any(there) {
            return Self::Already;
        }
        let Some(OpAnswer::Get(found)) = answer.answers.get(UNIQUE) else { return Self::Closed };
        let Some(entry) = found.first() else { return Self::Closed };
        match HolderRecord::decode(&entry.value) {
            Ok(HolderRecord { task, slot }) => {
                Self::Held(Holder { task, slot, revision: entry.mod_revision })
            }
            Err(_) => Self::Unreadable,
        }
    }
}

/// Writes a pending task anew, with another payload, delay and options. Its key is still
/// as seen, so it has not begun: the first assignment takes the key away. Read the answer
/// with [`Replaced::of`].
pub fn replace(space: &Keyspace, def: &DefinitionId, holder: &Holder, record: &TaskRecord) -> Move {
    let task = Key::Task(def.clone(), holder.task);
    let write = Write::new(space)
        .when(&Key::Open(def.clone()), Is::Present)
        .when(&task, Is::Present)
        .put(&task, TaskRecord { slot: holder.slot, ..record.clone() }.encode());
    let Some(key) = record.options.key_until_begun() else { return Move::default() };
    let unique = Key::Unique(def.clone(), key.bytes());
    let value = HolderRecord { task: holder.task, slot: holder.slot }.encode();
    write.when(&unique, Is::At(holder.revision)).put(&unique, value).else_get(&unique).done()
}

/// What became of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It was made.
    Done,
    /// The task has begun or ended meanwhile, or was replaced by others: publish again.
    Changed,
    /// The definition takes no tasks now.
    Closed,
}

impl Replaced {
    /// Reads the answer to [`replace`].
    pub fn of(answer: &TxnAnswer, holder: &Holder) -> Self {
        if answer.succeeded {
            return Self::Done;
        }
        let unchanged = answer.answers.iter().any(|step| {
            matches!(step, OpAnswer::Get(found)
                if found.first().is_some_and(|entry| entry.mod_revision == holder.revision))
        });
        if unchanged { Self::Closed } else { Self::Changed }
    }
}
