//! A worker of a cluster in a test, and what can be done to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::testkit::Faulty;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Faults;
use super::link::Link;
use crate::client::{Bellows, Options};
use crate::dispatcher::{DispatcherHandle, Health, WorkerDispatcher};

/// A launched worker. Dropping it kills it.
pub struct TestWorker {
    handle: DispatcherHandle,
    link: Faulty<Link>,
    /// Brings the cluster's faults to this worker's way.
    _follows: JoinSet<()>,
}

impl fmt::Debug for TestWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorker").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl TestWorker {
    pub(super) async fn launch(
        store: &MemoryBackend,
        options: Options,
        seed: u64,
        mut faults: watch::Receiver<Faults>,
        dispatcher: impl FnOnce(&Bellows) -> WorkerDispatcher,
    ) -> Self {
        let link = Faulty::new(Link::new(store.clone()), seed);
        link.set_rates(*faults.borrow_and_update());
        let mut follows = JoinSet::new();
        let rates = link.clone();
        follows.spawn(async move {
            while faults.changed().await.is_ok() {
                rates.set_rates(*faults.borrow_and_update());
            }
        });
        let client = Bellows::with_backend(Arc::new(link.clone()), options)
            .unwrap_or_else(|error| unreachable!("the options were good before: {error}"));
        let launched = dispatcher(&client).launch().await;
        let mut handle = launched.unwrap_or_else(|error| panic!("the worker does not start: {error}"));
        handle.ready().await;
        Self { handle, link, _follows: follows }
    }

    /// Ends it without a word, as SIGKILL does: its tasks run elsewhere once its lease has
    /// run out ([`Options::lease_ttl`]), which costs them no attempt.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops its way to the registry in both directions, as if the process was paused:
    /// requests and signals wait. Handlers that run go on running. Its lease runs out.
    pub fn pause(&self) {
        self.link.inner().set_paused(true);
    }

    /// Goes on after [`TestWorker::pause`]: everything that waited arrives now.
    pub fn resume(&self) {
        self.link.inner().set_paused(false);
    }

    /// Cuts it off: requests are lost and its watches end. Its lease runs out.
    pub fn partition(&self) {
        self.link.set_reachable(false);
    }

    /// Ends a partition.
    pub fn heal(&self) {
        self.link.set_reachable(true);
    }

    /// Ends its lease now, as if it had not been renewed in time. The worker finds out, and
    /// begins anew under another worker id.
    pub async fn expire_lease(&self) {
        self.link.inner().end_leases().await;
    }

    /// Waits until tasks can arrive.
    pub async fn ready(&mut self) {
        self.handle.ready().await;
    }

    /// Whether tasks can arrive.
    pub fn health(&self) -> Health {
        self.handle.health()
    }

    /// Drains it, as SIGTERM does: see [`DispatcherHandle::drain`].
    ///
    /// # Panics
    /// If the worker ended with an error before.
    pub async fn drain(self, deadline: Duration) {
        let drained = self.handle.drain(deadline).await;
        drained.unwrap_or_else(|error| panic!("the worker ended before: {error}"));
    }
}
