//! The narrow waist: range, transaction, watch, lease.
//!
//! Every rule of Bellows is written once above this trait; memory, a file and etcd (and
//! whoever writes another) differ only in these four primitives. What an
//! implementation owes is proved by the conformance suite in `testkit`.
//!
//! # Guarantees asked of a backend
//! * Every transaction is atomic, and takes exactly one revision if it writes.
//! * All compares, nested ones too, see the state before the request.
//! * A key is put at most once in a request, over all branches; a request that could
//!   do otherwise is refused whole.
//! * Ranges are linearizable. Watches deliver whole revisions, in order, none skipped,
//!   or end with an error.
//!
//! # Errors
//! [`BackendError::class`] is all that retry policy may look at. A timeout or a lost
//! connection is *unknown*, never *not applied* (law 10).

pub mod coalesce;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
#[cfg(test)]
pub(crate) mod hooked;
pub mod memory;
pub mod rules;

#[cfg(feature = "etcd")]
pub mod etcd;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use error::{BackendError, Class};

use crate::key::KeyRange;

/// A revision of the registry: the number of the write that made it.
pub type Revision = i64;

/// One stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created this life of the key.
    pub create_revision: Revision,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
    /// The lease it hangs on, if any.
    pub lease: Option<LeaseId>,
}

/// A lease's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A lease as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// The time it lives without a renewal; may be longer than asked.
    pub ttl: Duration,
}

/// Which entries to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys.
    pub range: KeyRange,
    /// The revision to read at; `None` means the newest, linearizably.
    pub revision: Option<Revision>,
    /// At most so many entries; 0 means all. All keys in the range are counted by
    /// etcd even so: cut the range, do not page an open one.
    pub limit: usize,
}

impl RangeRequest {
    /// All entries of a range, newest.
    pub fn new(range: KeyRange) -> Self {
        Self { range, revision: None, limit: 0 }
    }
}

/// What a range read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The store's revision when the range was read.
    pub revision: Revision,
    /// The entries, in the order of keys.
    pub entries: Vec<Entry>,
    /// Whether there is more in the range: `limit` cut the answer, or its size did where there
    /// is a limit.
    pub more: bool,
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What must hold of it.
    pub is: Is,
}

/// What must hold of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// It exists.
    Present,
    /// It does not.
    Absent,
    /// It was last written at this revision.
    At(Revision),
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Read a range at the state after the steps before this one.
    Get(KeyRange),
    /// Read the keys of a range as [`Op::Get`] does, but without their values, which are
    /// empty in the answer. Nor need it tell their leases.
    Keys(KeyRange),
    /// Write a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// What becomes of its lease.
        lease: PutLease,
    },
    /// Delete a range.
    Delete(KeyRange),
    /// A transaction of its own inside this one.
    Txn(Txn),
}

/// What a put does with the key's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutLease {
    /// The key hangs on no lease.
    None,
    /// The key hangs on this lease, and goes with it.
    On(LeaseId),
    /// As before; the key must exist.
    Keep,
}

/// Compares, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Done if they do.
    pub then: Vec<Op>,
    /// Done if they do not.
    pub otherwise: Vec<Op>,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// The store's revision after it. For a nested transaction: as the outer one's.
    pub revision: Revision,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer a step, of the branch taken.
    pub answers: Vec<OpAnswer>,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpAnswer {
    /// What was read.
    Get(Vec<Entry>),
    /// Written.
    Put,
    /// So many keys were deleted.
    Delete(u64),
    /// What the inner transaction did.
    Txn(TxnAnswer),
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys.
    pub range: KeyRange,
    /// The first revision to be told of.
    pub from: Revision,
}

/// One difference in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key was deleted, by someone or by the end of its lease.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision that deleted it.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision that made the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Whole revisions, as a watch delivers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Everything in the range up to and including this revision has been told: the
    /// point to resume after.
    pub complete: Revision,
    /// The changes, in order. Empty in a mere progress notification.
    pub changes: Vec<Change>,
}

/// A watch's items. It ends after an error; one of [`Class::Relist`] says that only a list
/// helps: the first revision asked for is gone, or a change may have been skipped.
pub type WatchStream = BoxStream<'static, Result<Changes, BackendError>>;

/// The four primitives. Object-safe: one call carries up to 125 tasks, so the boxed
/// future is not what costs.
///
/// # Cancel safety
/// Dropping the future of [`Backend::txn`] leaves its outcome unknown. Dropping a
/// [`WatchStream`] ends the watch.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Reads a range.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>>;

    /// Commits a transaction.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>>;

    /// Opens a watch. An error here or later means: open another, after the last
    /// `complete` revision.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>>;

    /// Grants a lease of at least `ttl`.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>>;

    /// Renews a lease and answers the time it now lives.
    /// [`BackendError::LeaseLost`] is certain; any other error leaves it open.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>>;

    /// Ends a lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>>;
}

/// A backend as everyone holds it.
pub type DynBackend = Arc<dyn Backend>;

/// The limits every backend keeps, so that what passes in memory passes on etcd.
pub mod limits {
    use std::time::Duration;

    /// Steps in a request: per level max(compares, then, otherwise), summed over the
    /// deepest path.
    pub const OPS: usize = 128;
    /// Bytes of keys and values in a request; etcd refuses 1.5 MiB.
    pub const REQUEST_BYTES: usize = 1_500_000;
    /// Batches are flushed at this size.
    pub const FLUSH_BYTES: usize = 1024 * 1024;
    /// A request without an answer for this long has an unknown outcome.
    pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
}
