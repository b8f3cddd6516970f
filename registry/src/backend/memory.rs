//! The in-memory backend: etcd's semantics in one process, without the disk.
//!
//! A thin async rim around `store`: takes the lock, reads the clock once a call,
//! wakes watchers. Decides nothing itself.
//!
//! # Guarantees
//! As the trait asks. A watcher holds no queue, only the revision it has reached; it
//! reads the bounded history at its own pace, and one that falls behind the history
//! ends with [`BackendError::Compacted`], as on etcd.
//!
//! Time is tokio's, so leases end under `tokio::time::pause` too. Every call ends
//! leases that are over; while leases exist, a task owned by the backend does it when
//! nobody calls.

mod apply;
mod store;
mod sweep;
mod watcher;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

#[cfg(feature = "embedded")]
pub(super) use self::store::Kept;
pub(super) use self::store::Made;
use self::store::Store;
use self::sweep::Sweeper;
use super::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Revision, Txn, TxnAnswer, WatchRequest,
    WatchStream, rules,
};
use crate::clock;

/// What can be set of a [`MemoryBackend`].
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// Changes remembered for watches and old reads; older ones are compacted away.
    pub history: usize,
    /// The shortest lease granted.
    pub min_ttl: Duration,
    /// A watch that has been silent this long tells how far it is complete.
    pub progress: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        // Two seconds is what etcd makes of one.
        Self { history: 100_000, min_ttl: Duration::from_secs(2), progress: Duration::from_secs(30) }
    }
}

/// A registry in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
    sweeper: Arc<Sweeper>,
    config: MemoryConfig,
}

struct Shared {
    store: Mutex<Store>,
    /// The newest revision that anyone may be told of, for watchers to wait on.
    newest: watch::Sender<Revision>,
    /// Who keeps revisions before anyone is told of them, and then announces them.
    keeper: Option<Arc<dyn Keeper>>,
}

/// Keeps what the store does: the seam between memory and a file.
pub(super) trait Keeper: Send + Sync + 'static {
    /// Takes the revisions just made, in order; called under the store's lock.
    fn keep(&self, made: Vec<Made>);

    /// An error once revisions cannot be kept any more: then nothing may be told.
    fn usable(&self) -> Result<(), BackendError>;
}

impl Shared {
    /// Nothing panics while holding the lock; a poisoned one still holds whole revisions.
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn at the store: ends leases that are over, acts, wakes watchers.
    fn turn<T>(&self, act: impl FnOnce(&mut Store, clock::Instant) -> T) -> T {
        let now = clock::instant();
        let mut store = self.lock();
        store.expire(now);
        let result = act(&mut store, now);
        // Under the lock, so that revisions are kept and announced in order.
        if let Some(keeper) = &self.keeper {
            keeper.keep(store.take_made());
        } else {
            let revision = store.revision();
            self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
        }
        result
    }

    /// Whether what is in the store may be told.
    fn usable(&self) -> Result<(), BackendError> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.usable())
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// An empty registry.
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// An empty registry, set up.
    pub fn with_config(config: MemoryConfig) -> Self {
        let store = Store::new(config.history);
        let newest = watch::Sender::new(store.revision());
        Self::over(store, newest, None, config)
    }

    /// A registry that goes on where another ended. Every revision goes to the keeper,
    /// who announces it on `newest`.
    #[cfg(feature = "embedded")]
    pub(super) fn kept(
        kept: Kept,
        newest: watch::Sender<Revision>,
        keeper: Arc<dyn Keeper>,
        config: MemoryConfig,
    ) -> Self {
        Self::over(Store::restored(config.history, kept), newest, Some(keeper), config)
    }

    fn over(
        store: Store,
        newest: watch::Sender<Revision>,
        keeper: Option<Arc<dyn Keeper>>,
        config: MemoryConfig,
    ) -> Self {
        let shared = Arc::new(Shared { store: Mutex::new(store), newest, keeper });
        Self { shared, sweeper: Arc::new(Sweeper::default()), config }
    }

    /// Forgets history before `revision`: older reads and watches then answer
    /// [`BackendError::Compacted`].
    pub fn compact(&self, revision: Revision) -> Result<(), BackendError> {
        let done = self.shared.turn(|store, _| store.compact(revision));
        // Wake watchers that stand before the cut, or they would sleep on.
        self.shared.newest.send_modify(|_| {});
        done
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.shared.turn(|store, _| store.revision())
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Backend for MemoryBackend {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        async move { self.shared.turn(|store, _| store.range(&request)) }.boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        async move { self.shared.turn(|store, _| store.txn(&txn)) }.boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        async move {
            rules::check_range(&request.range)?;
            Ok(watcher::open(Arc::clone(&self.shared), request, self.config.progress).boxed())
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        async move {
            // Whole seconds, as on etcd.
            let whole = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
            let ttl = whole.max(self.config.min_ttl);
            let id = self.shared.turn(|store, now| store.grant(ttl, now));
            self.sweeper.watch_over(&self.shared);
            Ok(Lease { id, ttl })
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        async move { self.shared.turn(|store, now| store.keep_alive(lease, now)) }.boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        async move { self.shared.turn(|store, _| store.revoke(lease)) }.boxed()
    }
}

#[cfg(test)]
mod tests;
