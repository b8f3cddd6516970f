//! The table of moves: every transaction that touches a task, one function a row.
//!
//! | move (writer) | compares | then |
//! |---|---|---|
//! | [`publish`] (publisher) | `open` present; `t`, `x`, `r` absent | put `t` · else tell which |
//! | [`assign`] (assigner) | term · `t` present, `p` and `w` as seen | put `a` |
//! | [`settle`] (worker) | `a` present | delete `a t p`, put `r` |
//! | [`settle_singleton`] (worker) | `a` present | delete `a`, put `p` |
//! | [`give_back`] (worker: retry, snooze, hand back) | `a` present | delete `a`, put `p` |
//! | [`park`] (worker) | `a` present | delete `a t p`, put `x`, put `r` |
//! | [`lost`] (assigner) | term · `a` present, `w` absent | delete `a`, put `p` |
//! | [`lost_for_good`] (assigner) | term · `a` present, `w` absent | delete `a t p`, put `x`, put `r` |
//! | [`take_back`] (assigner, law 15) | term · `a` present | delete `a`, put `p` |
//! | [`expire_outcome`] (retention) | `r` as seen | delete `r` |
//!
//! The term is the outer compare of the batch ([`Batch::into_txn`]); what is listed
//! here is each move's own. A move that loses its compare does nothing, and does not
//! disturb its neighbours. Pure: nothing here talks to a backend.

mod batch;
mod house;

use bytes::Bytes;

use crate::backend::{Compare, Is, Op, OpAnswer, PutLease, Revision, Txn, TxnAnswer};
use crate::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use crate::key::{Key, KeyRange, Keyspace};
use crate::record::{AssignmentRecord, OutcomeRecord, ParkedRecord, Record, Tally, TaskRecord};

pub use batch::{Batch, Rejected, Touched};
pub use house::{
    campaign, close_definition, open_definition, put_singleton, put_worker, raise_term, register_worker,
    write_meta, write_policy,
};

/// One attempt of one task on one worker: what an assignment's key says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptRef {
    /// The task's definition.
    pub definition: DefinitionId,
    /// The worker it was given to.
    pub worker: WorkerId,
    /// The task.
    pub task: TaskId,
    /// The attempt: the fence.
    pub attempt: AttemptId,
}

impl AttemptRef {
    /// The assignment's key.
    pub fn key(&self) -> Key {
        Key::Assignment(self.definition.clone(), self.worker.clone(), self.task, self.attempt)
    }
}

/// One row of the table, ready to be packed into a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Move {
    /// The move's own fence.
    pub compares: Vec<Compare>,
    /// What it does.
    pub then: Vec<Op>,
    /// What it reads when the fence does not hold.
    pub otherwise: Vec<Op>,
}

/// Builds the keys of one transaction.
struct Write<'a> {
    space: &'a Keyspace,
    row: Move,
}

impl<'a> Write<'a> {
    fn new(space: &'a Keyspace) -> Self {
        Self { space, row: Move::default() }
    }

    fn when(mut self, key: &Key, is: Is) -> Self {
        self.row.compares.push(Compare { key: self.space.path(key), is });
        self
    }

    fn put(self, key: &Key, value: Bytes) -> Self {
        self.put_on(key, value, PutLease::None)
    }

    fn put_on(mut self, key: &Key, value: Bytes, lease: PutLease) -> Self {
        self.row.then.push(Op::Put { key: self.space.path(key), value, lease });
        self
    }

    fn delete(mut self, key: &Key) -> Self {
        self.row.then.push(Op::Delete(KeyRange::one(self.space.path(key))));
        self
    }

    fn else_get(mut self, key: &Key) -> Self {
        self.row.otherwise.push(Op::Get(KeyRange::one(self.space.path(key))));
        self
    }

    fn done(self) -> Move {
        self.row
    }
}

/// A revision as seen, where 0 means that the key was absent.
fn as_seen(revision: Revision) -> Is {
    if revision == 0 { Is::Absent } else { Is::At(revision) }
}

/// Creates a task (law 9). Read the answer with [`Published::of`].
pub fn publish(space: &Keyspace, def: &DefinitionId, id: TaskId, record: &TaskRecord) -> Move {
    let task = Key::Task(def.clone(), id);
    let parked = Key::Parked(def.clone(), id);
    let outcome = Key::Outcome(def.clone(), record.slot, id);
    Write::new(space)
        .when(&Key::Open(def.clone()), Is::Present)
        .when(&task, Is::Absent)
        .when(&parked, Is::Absent)
        .when(&outcome, Is::Absent)
        .put(&task, record.encode())
        .else_get(&task)
        .else_get(&parked)
        .else_get(&outcome)
        .done()
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The task is in the registry, by this request.
    Created,
    /// It was there already: an earlier try of the same publish, or its result.
    Already,
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
        let there =
            answer.answers.iter().any(|step| matches!(step, OpAnswer::Get(found) if !found.is_empty()));
        if there { Self::Already } else { Self::Closed }
    }
}

/// The revisions the assigner planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsSeen {
    /// The tally's mod-revision; 0 if there is none.
    pub tally: Revision,
    /// The worker key's mod-revision: a cordon or a death since then refuses.
    pub worker: Revision,
}

/// Gives a task to a worker.
pub fn assign(space: &Keyspace, at: &AttemptRef, seen: AsSeen, record: &AssignmentRecord) -> Move {
    Write::new(space)
        .when(&Key::Task(at.definition.clone(), at.task), Is::Present)
        .when(&Key::Tally(at.definition.clone(), at.task), as_seen(seen.tally))
        .when(&Key::Worker(at.definition.clone(), at.worker.clone()), Is::At(seen.worker))
        .put(&at.key(), record.encode())
        .done()
}

fn delete_task<'a>(write: Write<'a>, at: &AttemptRef) -> Write<'a> {
    write
        .delete(&at.key())
        .delete(&Key::Task(at.definition.clone(), at.task))
        .delete(&Key::Tally(at.definition.clone(), at.task))
}

/// Ends a task for good: outcome and removal together, or nothing (law 3). If the
/// fence does not hold, the terminal record is read, where a retry of an unanswered
/// settle finds its own attempt id: see [`Settled::of`].
pub fn settle(space: &Keyspace, at: &AttemptRef, slot: ResultSlot, record: &OutcomeRecord) -> Move {
    let outcome = Key::Outcome(at.definition.clone(), slot, at.task);
    delete_task(Write::new(space).when(&at.key(), Is::Present), at)
        .put(&outcome, record.encode())
        .else_get(&outcome)
        .done()
}

/// Gives a task up: it is kept with its payload until a person replays it.
pub fn park(space: &Keyspace, at: &AttemptRef, parked: &ParkedRecord, record: &OutcomeRecord) -> Move {
    park_with(Write::new(space).when(&at.key(), Is::Present), at, parked, record)
}

fn park_with(write: Write<'_>, at: &AttemptRef, parked: &ParkedRecord, record: &OutcomeRecord) -> Move {
    let outcome = Key::Outcome(at.definition.clone(), parked.task.slot, at.task);
    delete_task(write, at)
        .put(&Key::Parked(at.definition.clone(), at.task), parked.encode())
        .put(&outcome, record.encode())
        .else_get(&outcome)
        .done()
}

/// Ends an attempt of a singleton: its task stays, and waits for its next run.
pub fn settle_singleton(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back(space, at, tally)
}

/// Returns a task to the waiting ones: after a failure, on request, or since the
/// worker ends. What is counted is in the tally.
pub fn give_back(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back_with(Write::new(space).when(&at.key(), Is::Present), at, tally)
}

fn give_back_with(write: Write<'_>, at: &AttemptRef, tally: &Tally) -> Move {
    let key = Key::Tally(at.definition.clone(), at.task);
    write.delete(&at.key()).put(&key, tally.encode()).else_get(&key).done()
}

fn worker_gone<'a>(space: &'a Keyspace, at: &AttemptRef) -> Write<'a> {
    Write::new(space)
        .when(&at.key(), Is::Present)
        .when(&Key::Worker(at.definition.clone(), at.worker.clone()), Is::Absent)
}

/// Returns a task whose worker died. A worker that was only thought dead keeps it.
pub fn lost(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back_with(worker_gone(space, at), at, tally)
}

/// Gives up a task that keeps losing its workers.
pub fn lost_for_good(
    space: &Keyspace,
    at: &AttemptRef,
    parked: &ParkedRecord,
    record: &OutcomeRecord,
) -> Move {
    park_with(worker_gone(space, at), at, parked, record)
}

/// Returns a task that its living worker held beyond every bound (law 15).
pub fn take_back(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back(space, at, tally)
}

/// Removes a terminal record that is past its time.
pub fn expire_outcome(path: Bytes, seen: Revision) -> Move {
    Move {
        compares: vec![Compare { key: path.clone(), is: Is::At(seen) }],
        then: vec![Op::Delete(KeyRange::one(path))],
        otherwise: Vec::new(),
    }
}

/// What became of a worker's move on its own assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done, by this request.
    Done,
    /// Done, by an earlier request that went unanswered.
    Already,
    /// The assignment is no longer this worker's: nothing was done.
    Fenced,
}

impl Settled {
    /// Reads the answer to a worker's move. `attempt` tells an earlier request of the
    /// same attempt from somebody else's outcome.
    pub fn of(answer: &TxnAnswer, attempt: AttemptId) -> Self {
        if answer.succeeded {
            return Self::Done;
        }
        let found = answer.answers.iter().find_map(|step| match step {
            OpAnswer::Get(entries) => entries.first(),
            _ => None,
        });
        let own = found
            .and_then(|entry| OutcomeRecord::decode(&entry.value).ok())
            .is_some_and(|record| record.attempt_id == Some(attempt));
        if own { Self::Already } else { Self::Fenced }
    }
}

/// Reads a task's `t`, `p`, `x` and `r` at one revision (law 13), in this order.
pub fn look(space: &Keyspace, def: &DefinitionId, id: TaskId, slot: ResultSlot) -> Txn {
    let get = |key: Key| Op::Get(KeyRange::one(space.path(&key)));
    Txn {
        compares: Vec::new(),
        then: vec![
            get(Key::Task(def.clone(), id)),
            get(Key::Tally(def.clone(), id)),
            get(Key::Parked(def.clone(), id)),
            get(Key::Outcome(def.clone(), slot, id)),
        ],
        otherwise: Vec::new(),
    }
}

/// Where [`look`]'s answers are.
pub mod look {
    /// The task.
    pub const TASK: usize = 0;
    /// Its tally.
    pub const TALLY: usize = 1;
    /// The parked task.
    pub const PARKED: usize = 2;
    /// The terminal record.
    pub const OUTCOME: usize = 3;
}
