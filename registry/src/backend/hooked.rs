//! For tests: a store in memory whose ranges a test looks at, and lets fail.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::memory::MemoryBackend;
use super::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Txn, TxnAnswer, WatchRequest,
    WatchStream,
};

/// Whether a range is answered.
type Hook = Box<dyn FnMut(&RangeRequest) -> bool + Send>;

pub(crate) struct Hooked {
    pub(crate) store: MemoryBackend,
    hook: Mutex<Hook>,
    /// Bytes of values and number of entries of each answer.
    pub(crate) answers: Mutex<Vec<(usize, usize)>>,
}

impl Hooked {
    pub(crate) fn new(answers: impl FnMut(&RangeRequest) -> bool + Send + 'static) -> Self {
        Self::of(MemoryBackend::new(), answers)
    }

    pub(crate) fn of(
        store: MemoryBackend,
        answers: impl FnMut(&RangeRequest) -> bool + Send + 'static,
    ) -> Self {
        let hook: Hook = Box::new(answers);
        Self { store, hook: Mutex::new(hook), answers: Mutex::default() }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Backend for Hooked {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        async move {
            let answers = (*self.hook.lock().unwrap_or_else(PoisonError::into_inner))(&request);
            if !answers {
                return Err(BackendError::unknown("the line is bad"));
            }
            let answer = self.store.range(request).await?;
            let bytes = answer.entries.iter().map(|entry| entry.value.len()).sum();
            let size = (bytes, answer.entries.len());
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(size);
            Ok(answer)
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        self.store.txn(txn)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        self.store.watch(request)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.store.revoke(lease)
    }
}
