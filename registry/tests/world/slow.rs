//! A registry whose lists are slow when asked to be, and a future that must not spin.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Txn, TxnAnswer, WatchRequest,
    WatchStream,
};
use bellows_registry::testkit::Faulty;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;

/// A link over which every list takes a while.
#[derive(Debug)]
pub(crate) struct SlowLists {
    pub(crate) link: Faulty<MemoryBackend>,
    pub(crate) by: Mutex<Duration>,
}

impl Backend for SlowLists {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        let by = *self.by.lock().unwrap();
        async move {
            if !by.is_zero() {
                sleep(by).await;
            }
            self.link.range(request).await
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        self.link.txn(txn)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        self.link.watch(request)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        self.link.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.link.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.link.revoke(lease)
    }
}

/// Polls a future at most so often, and then never again. Paused time stands still while
/// anything is ready: without this, one that spins would hang its test.
pub(crate) async fn polled_at_most(times: u32, what: impl Future<Output = ()>) {
    let mut what = std::pin::pin!(what);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Pending;
        }
        left -= 1;
        what.as_mut().poll(context)
    })
    .await;
}
