//! The table of moves: every transaction that touches a task, one function a row.
//!
//! | move (writer) | compares | then |
//! |---|---|---|
//! | [`publish`] (publisher) | `open` present; `t`, `x`, `r`, (`u`) absent | put `t` (`u`) · else tell which |
//! | [`replace`] (publisher) | `open`, `t` present, `u` as seen | put `t`, `u` |
//! | [`assign`] (assigner) | term · `t` present (as seen if it may be replaced), `p` and `w` as seen | put `a` (delete `u` held until begun) |
//! | [`settle`] (worker) | `a` present | delete `a t p k` (`u`), put `r` |
//! | [`settle_and_publish`] (worker) | `a`, each `open` present | as settle, put follow-up `t`s |
//! | [`settle_singleton`] (worker) | `a`, each `open` present | delete `a`, put `p`, follow-up `t`s |
//! | [`give_back`] (worker: retry, snooze, hand back) | `a` present | delete `a`, put `p` |
//! | [`progress`] (worker) | `a` present | put `p` |
//! | [`checkpoint`] (worker) | `a` present, `k` as seen | put `k` |
//! | [`park`] (worker) | `a` present | delete `a t p k`, put `x`, put `r`; `u` stays held |
//! | [`lost`] (assigner) | term · `a` present, `w` absent | delete `a`, put `p` |
//! | [`lost_for_good`] (assigner) | term · `a` present, `w` absent | delete `a t p k`, put `x`, put `r`; `u` stays held |
//! | [`take_back`] (assigner, law 15) | term · `a` present | delete `a`, put `p` |
//! | [`ask`] (people and tools) | `t` (to cancel) or `x` present; `c` absent | put `c` · else get `c` |
//! | [`end_waiting`] (assigner: cancel, expire) | term · `t` and `p` as seen | delete `t p k c` (`u`), put `r` |
//! | [`flag_cancel`] (assigner) | term · `a` present | put `a` with the flag |
//! | [`replay`] (assigner) | term · `x` as seen | delete `x r c`, put `t p`, the next life; `u` stays held |
//! | [`purge`] (assigner: on request, or past retention) | term · `x` as seen | delete `x r c` (`u`) |
//! | [`drop_request`] (assigner) | term · `c` as seen | delete `c` |
//! | [`expire_outcome`] (retention) | `r` as seen, `x` absent | delete `r` |
//!
//! `u` is the task's unique key, if it was published with one:
//! [`Ties::unique`](crate::record::Ties::unique) says whether it holds it now, and every move that ends a task for good deletes it then.
//!
//! The term is the outer compare of the batch ([`Batch::into_txn`]); what is listed
//! here is each move's own. A move that loses its compare does nothing, and does not
//! disturb its neighbours. Pure: nothing here talks to a backend.

mod asked;
mod batch;
mod house;
mod publish;
mod report;
mod settle;

use bytes::Bytes;

use crate::backend::{Compare, Is, Op, OpAnswer, PutLease, Revision, Txn, TxnAnswer};
use crate::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use crate::key::{Key, KeyRange, Keyspace};
use crate::record::{AssignmentRecord, OutcomeRecord, ParkedRecord, Record, Tally};

pub use asked::{Asked, ParkedTask, WaitingTask, ask, drop_request, end_waiting, flag_cancel, purge, replay};
pub use batch::{Batch, Rejected, Touched};
pub use house::{
    campaign, change_worker, close_definition, open_definition, put_singleton, put_worker, raise_term,
    register_worker, write_meta, write_policy,
};
pub use publish::{Holder, Published, Replaced, publish, replace};
pub use report::{Kept, checkpoint, progress};
pub use settle::{FollowUp, closed_target, park, settle, settle_and_publish};

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

/// The revisions the assigner planned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsSeen {
    /// The task's mod-revision, compared if it may be replaced: then it is planned anew.
    pub task: Revision,
    /// The tally's mod-revision; 0 if there is none.
    pub tally: Revision,
    /// The worker key's mod-revision: a cordon or a death since then refuses.
    pub worker: Revision,
}

/// Gives a task to a worker. The first time, a task whose key is held until it has begun
/// lets go of it: from now on nobody replaces it, and another task may take the key.
pub fn assign(space: &Keyspace, at: &AttemptRef, seen: AsSeen, record: &AssignmentRecord) -> Move {
    let key = record.options.key_until_begun();
    let task = if key.is_some() { Is::At(seen.task) } else { Is::Present };
    let write = Write::new(space)
        .when(&Key::Task(at.definition.clone(), at.task), task)
        .when(&Key::Tally(at.definition.clone(), at.task), as_seen(seen.tally))
        .when(&Key::Worker(at.definition.clone(), at.worker.clone()), Is::At(seen.worker))
        .put(&at.key(), record.encode());
    // Every end of an attempt leaves a tally: without one, none has begun.
    let first = seen.tally == 0;
    settle::release(write, &at.definition, key.filter(|_| first)).done()
}

/// Ends an attempt of a singleton: its task stays, and waits for its next run. What it
/// publishes is published in the same transaction, as by [`settle_and_publish`].
pub fn settle_singleton(space: &Keyspace, at: &AttemptRef, tally: &Tally, follow_ups: &[FollowUp]) -> Move {
    let write = give_back_keys(Write::new(space).when(&at.key(), Is::Present), at, tally);
    settle::publish_with(write, follow_ups).done()
}

/// Returns a task to the waiting ones: after a failure, on request, or since the
/// worker ends. What is counted is in the tally.
pub fn give_back(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back_with(Write::new(space).when(&at.key(), Is::Present), at, tally)
}

fn give_back_with(write: Write<'_>, at: &AttemptRef, tally: &Tally) -> Move {
    give_back_keys(write, at, tally).done()
}

fn give_back_keys<'a>(write: Write<'a>, at: &AttemptRef, tally: &Tally) -> Write<'a> {
    let key = Key::Tally(at.definition.clone(), at.task);
    write.delete(&at.key()).put(&key, tally.encode()).else_get(&key)
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
    settle::park_with(worker_gone(space, at), at, parked, record)
}

/// Returns a task that its living worker held beyond every bound (law 15).
pub fn take_back(space: &Keyspace, at: &AttemptRef, tally: &Tally) -> Move {
    give_back(space, at, tally)
}

/// Removes a terminal record that is past its time. A parked task's goes with the parked
/// task, not before it.
pub fn expire_outcome(
    space: &Keyspace,
    def: &DefinitionId,
    slot: ResultSlot,
    task: TaskId,
    seen: Revision,
) -> Move {
    let outcome = Key::Outcome(def.clone(), slot, task);
    Write::new(space)
        .when(&outcome, Is::At(seen))
        .when(&Key::Parked(def.clone(), task), Is::Absent)
        .delete(&outcome)
        .done()
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

/// As [`look`](fn@look), and who has the task: the keys of all its definition's assignments, since
/// none can be named by the task alone. Costs a key for each task that runs.
pub fn look_around(space: &Keyspace, def: &DefinitionId, id: TaskId, slot: ResultSlot) -> Txn {
    let mut txn = look(space, def, id, slot);
    txn.then.push(Op::Keys(space.all_assignments_range(def)));
    txn
}

/// Where the answers of [`look`](fn@look) are.
pub mod look {
    /// The task.
    pub const TASK: usize = 0;
    /// Its tally.
    pub const TALLY: usize = 1;
    /// The parked task.
    pub const PARKED: usize = 2;
    /// The terminal record.
    pub const OUTCOME: usize = 3;
    /// The assignments' keys, by [`look_around`](super::look_around) only.
    pub const ASSIGNMENTS: usize = 4;
}
