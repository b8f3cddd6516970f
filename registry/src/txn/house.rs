//! Moves that are not about tasks: workers, leaders, definitions.

use super::{Move, Write, as_seen};
use crate::backend::{Compare, Is, LeaseId, PutLease, Revision};
use crate::id::{DefinitionId, TaskId, WorkerId};
use crate::key::{Key, Keyspace};
use crate::record::{LeaderRecord, MetaRecord, OpenRecord, PolicyRecord, Record, TaskRecord, WorkerRecord};

/// Brings a worker to life under its lease. Its id was never used before (law 20).
pub fn register_worker(
    space: &Keyspace,
    def: &DefinitionId,
    worker: &WorkerId,
    lease: LeaseId,
    record: &WorkerRecord,
) -> Move {
    let key = Key::Worker(def.clone(), worker.clone());
    Write::new(space).when(&key, Is::Absent).put_on(&key, record.encode(), PutLease::On(lease)).done()
}

/// Changes what a living worker says of itself, or what the operator asks of it.
pub fn put_worker(space: &Keyspace, def: &DefinitionId, worker: &WorkerId, record: &WorkerRecord) -> Move {
    let key = Key::Worker(def.clone(), worker.clone());
    Write::new(space).when(&key, Is::Present).put_on(&key, record.encode(), PutLease::Keep).done()
}

/// Changes what a living worker says of itself over what was read at `seen`: whatever the
/// operator asked of it since then stays.
pub fn change_worker(
    space: &Keyspace,
    def: &DefinitionId,
    worker: &WorkerId,
    seen: Revision,
    record: &WorkerRecord,
) -> Move {
    let key = Key::Worker(def.clone(), worker.clone());
    Write::new(space).when(&key, Is::At(seen)).put_on(&key, record.encode(), PutLease::Keep).done()
}

/// Takes a free leader key. The revision of the answer is the term (law 4).
pub fn campaign(space: &Keyspace, shard: u16, lease: LeaseId, record: &LeaderRecord) -> Move {
    let key = Key::Leader(shard);
    Write::new(space)
        .when(&key, Is::Absent)
        .put_on(&key, record.encode(), PutLease::On(lease))
        .else_get(&key)
        .done()
}

/// Begins a new term of the same leader: whatever it sent in the old term and is not
/// applied yet never will be (law 5).
pub fn raise_term(space: &Keyspace, shard: u16, term: Revision, record: &LeaderRecord) -> Move {
    let key = Key::Leader(shard);
    Write::new(space)
        .when(&key, Is::At(term))
        .put_on(&key, record.encode(), PutLease::Keep)
        .else_get(&key)
        .done()
}

/// The fence of a term, for the outer compare of a batch.
impl Keyspace {
    /// Holds while the leader of `shard` is still in `term`.
    pub fn term_fence(&self, shard: u16, term: Revision) -> Compare {
        Compare { key: self.path(&Key::Leader(shard)), is: Is::At(term) }
    }
}

/// Writes a policy over the one that was read at `seen` (0 if there was none).
pub fn write_policy(space: &Keyspace, def: &DefinitionId, seen: Revision, record: &PolicyRecord) -> Move {
    let key = Key::Policy(def.clone());
    Write::new(space).when(&key, as_seen(seen)).put(&key, record.encode()).else_get(&key).done()
}

/// Lets a definition accept tasks, while its policy is the one written at `policy`.
pub fn open_definition(space: &Keyspace, def: &DefinitionId, policy: Revision, record: &OpenRecord) -> Move {
    Write::new(space)
        .when(&Key::Policy(def.clone()), Is::At(policy))
        .put(&Key::Open(def.clone()), record.encode())
        .done()
}

/// Stops a definition from accepting tasks, while its policy is as seen at `policy` (0 if
/// there was none): a late deletion closes no new life of the name.
pub fn close_definition(space: &Keyspace, def: &DefinitionId, policy: Revision) -> Move {
    Write::new(space).when(&Key::Policy(def.clone()), as_seen(policy)).delete(&Key::Open(def.clone())).done()
}

/// Creates the one task of a singleton definition, if it is not there and while the policy
/// is the one written at `policy`. Otherwise the policy is read, which tells which it was.
pub fn put_singleton(space: &Keyspace, def: &DefinitionId, policy: Revision, record: &TaskRecord) -> Move {
    let (fence, key) = (Key::Policy(def.clone()), Key::Task(def.clone(), TaskId::SINGLETON));
    Write::new(space)
        .when(&fence, Is::At(policy))
        .when(&key, Is::Absent)
        .put(&key, record.encode())
        .else_get(&fence)
        .done()
}

/// Writes what the registry says of itself over what was read at `seen` (0 if nothing).
pub fn write_meta(space: &Keyspace, seen: Revision, record: &MetaRecord) -> Move {
    Write::new(space).when(&Key::Meta, as_seen(seen)).put(&Key::Meta, record.encode()).done()
}
