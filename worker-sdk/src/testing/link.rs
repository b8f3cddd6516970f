//! A worker's way to the registry, which can be stopped as a paused process stops, and
//! which knows the leases that the worker has.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Txn, TxnAnswer, WatchRequest,
    WatchStream,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

pub(super) struct Link {
    to: MemoryBackend,
    paused: watch::Sender<bool>,
    leases: Mutex<Vec<LeaseId>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("paused", &*self.paused.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(to: MemoryBackend) -> Self {
        Self { to, paused: watch::Sender::new(false), leases: Mutex::default() }
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    pub(super) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Ends every lease that was granted by this way.
    pub(super) async fn end_leases(&self) {
        let leases = std::mem::take(&mut *self.leases.lock().unwrap_or_else(PoisonError::into_inner));
        for lease in leases {
            // It may have ended by itself.
            let _ = self.to.revoke(lease).await;
        }
    }

    async fn pass<T>(&self, request: BoxFuture<'_, T>) -> T {
        go(&self.paused).await;
        let answer = request.await;
        go(&self.paused).await; // an answer to a process that is paused waits too
        answer
    }
}

/// Waits while paused.
async fn go(paused: &watch::Sender<bool>) {
    // The sender is ours, or our caller's: it does not end.
    let _ = paused.subscribe().wait_for(|paused| !paused).await;
}

impl Backend for Link {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        self.pass(self.to.range(request)).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        self.pass(self.to.txn(txn)).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        async move {
            let stream = self.pass(self.to.watch(request)).await?;
            let paused = self.paused.clone();
            let held = stream.then(move |item| {
                let paused = paused.clone();
                async move {
                    go(&paused).await;
                    item
                }
            });
            Ok(held.boxed())
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        async move {
            let lease = self.pass(self.to.grant(ttl)).await?;
            self.leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease.id);
            Ok(lease)
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.pass(self.to.keep_alive(lease)).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.pass(self.to.revoke(lease)).boxed()
    }
}
