//! Moves about requests: what people and tools ask, and what the assigner does about it.

use super::settle::release;
use super::{Move, Write, as_seen};
use crate::backend::{Is, OpAnswer, Revision, TxnAnswer};
use crate::id::{DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{Ask, AssignmentRecord, OutcomeRecord, Record, RequestRecord, Tally, TaskRecord, Ties};
use crate::txn::AttemptRef;

/// Asks something of a task. There must be something to act on, and no other request
/// about it, so that requests are never more than tasks. Read the answer with
/// [`Asked::of`].
pub fn ask(space: &Keyspace, def: &DefinitionId, task: TaskId, record: &RequestRecord) -> Move {
    let request = Key::Request(def.clone(), task);
    let about = match record.ask {
        Ask::Cancel => Key::Task(def.clone(), task),
        Ask::Replay | Ask::Purge => Key::Parked(def.clone(), task),
    };
    Write::new(space)
        .when(&about, Is::Present)
        .when(&request, Is::Absent)
        .put(&request, record.encode())
        .else_get(&request)
        .done()
}

/// What became of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The request stands.
    Standing,
    /// Another request about the task stands: wait for its end.
    Occupied,
    /// There is nothing to act on, any more or yet.
    Nothing,
}

impl Asked {
    /// Reads the answer to [`ask`].
    pub fn of(answer: &TxnAnswer, ask: Ask) -> Self {
        if answer.succeeded {
            return Self::Standing;
        }
        let found = answer.answers.iter().find_map(|step| match step {
            OpAnswer::Get(entries) => entries.first(),
            _ => None,
        });
        let Some(entry) = found else { return Self::Nothing };
        // The same request, by an earlier try or by somebody else: one is enough.
        let same = RequestRecord::decode(&entry.value).is_ok_and(|standing| standing.ask == ask);
        if same { Self::Standing } else { Self::Occupied }
    }
}

/// Removes a request that is done, or that there is nothing to do about.
pub fn drop_request(space: &Keyspace, def: &DefinitionId, task: TaskId, seen: Revision) -> Move {
    let request = Key::Request(def.clone(), task);
    Write::new(space).when(&request, Is::At(seen)).delete(&request).done()
}

/// Where a waiting task was seen that is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingTask {
    /// The task.
    pub task: TaskId,
    /// What it is tied to.
    pub ties: Ties,
    /// Its mod-revision: one that may be replaced is then judged anew.
    pub seen: Revision,
    /// The tally's mod-revision; 0 if there is none.
    pub tally: Revision,
}

/// Ends a task that waits: cancelled or expired. That it waits is known from a view not
/// older than the term, since only the assigner gives tasks out; that it has not ended,
/// from its being there.
pub fn end_waiting(space: &Keyspace, def: &DefinitionId, at: WaitingTask, record: &OutcomeRecord) -> Move {
    let (task, tally) = (Key::Task(def.clone(), at.task), Key::Tally(def.clone(), at.task));
    let write = Write::new(space)
        .when(&task, Is::At(at.seen))
        .when(&tally, as_seen(at.tally))
        .delete(&task)
        .delete(&tally)
        .delete(&Key::Checkpoint(def.clone(), at.task))
        .delete(&Key::Request(def.clone(), at.task));
    release(write, def, at.ties.unique)
        .put(&Key::Outcome(def.clone(), at.ties.slot, at.task), record.encode())
        .done()
}

/// Tells a worker that its task is to be cancelled: the assignment is written again with
/// the flag. Its key stays, and with it the fence (law 2).
pub fn flag_cancel(space: &Keyspace, at: &AttemptRef, record: &AssignmentRecord) -> Move {
    Write::new(space).when(&at.key(), Is::Present).put(&at.key(), record.encode()).done()
}

/// A parked task as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedTask {
    /// The task.
    pub task: TaskId,
    /// What it is tied to.
    pub ties: Ties,
    /// The parked record's mod-revision.
    pub seen: Revision,
}

fn unpark<'a>(space: &'a Keyspace, def: &DefinitionId, at: ParkedTask) -> Write<'a> {
    let parked = Key::Parked(def.clone(), at.task);
    Write::new(space)
        .when(&parked, Is::At(at.seen))
        .delete(&parked)
        .delete(&Key::Outcome(def.clone(), at.ties.slot, at.task))
        .delete(&Key::Request(def.clone(), at.task))
}

/// Begins the next life of a parked task: it waits again, under the same id.
pub fn replay(
    space: &Keyspace,
    def: &DefinitionId,
    at: ParkedTask,
    task: &TaskRecord,
    tally: &Tally,
) -> Move {
    unpark(space, def, at)
        .put(&Key::Task(def.clone(), at.task), task.encode())
        .put(&Key::Tally(def.clone(), at.task), tally.encode())
        .done()
}

/// Removes a parked task, its terminal record and its hold on a unique key: on request, or past its retention.
pub fn purge(space: &Keyspace, def: &DefinitionId, at: ParkedTask) -> Move {
    release(unpark(space, def, at), def, at.ties.unique).done()
}
