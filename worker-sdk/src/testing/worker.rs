//! A worker of a cluster in a test, and what can be done to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::testkit::Faulty;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Faults;
use super::link::Link;
use crate::client::{Bellows, Options};
use crate::dispatcher::{DispatcherHandle, Health, WorkerDispatcher};

/// How long a lease lives on that nobody renews: as on a cluster, whatever this one's TTL.
const UNRENEWED: Duration = Duration::from_secs(10);

/// A launched worker. Dropping it kills it.
pub struct TestWorker {
    handle: DispatcherHandle,
    way: Way,
    /// Brings the cluster's faults to this worker's way.
    _follows: JoinSet<()>,
}

/// A worker's way to the registry. Without it, its lease runs out.
struct Way {
    link: Faulty<Link>,
}

impl Way {
    fn let_the_lease_run_out(&self) {
        let link = self.link.clone();
        let run_out = async move {
            sleep(UNRENEWED).await;
            if link.inner().is_paused() || !link.is_reachable() {
                link.inner().end_leases().await;
            }
        };
        // It ends by itself, or with the test's runtime.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(run_out));
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.link.set_reachable(false);
        self.let_the_lease_run_out();
    }
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
        Self { handle, way: Way { link }, _follows: follows }
    }

    /// Ends it without a word, as SIGKILL does: its tasks run elsewhere once its lease has
    /// run out, ten seconds later, which costs them no attempt.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops its way to the registry in both directions, as if the process was paused:
    /// requests and signals wait. Handlers that run go on running. Its lease runs out ten
    /// seconds later, unless it was resumed.
    pub fn pause(&self) {
        self.way.link.inner().set_paused(true);
        self.way.let_the_lease_run_out();
    }

    /// Goes on after [`TestWorker::pause`]: everything that waited arrives now.
    pub fn resume(&self) {
        self.way.link.inner().set_paused(false);
    }

    /// Cuts it off: requests are lost and its watches end. Its lease runs out ten seconds
    /// later, unless it was healed.
    pub fn partition(&self) {
        self.way.link.set_reachable(false);
        self.way.let_the_lease_run_out();
    }

    /// Ends a partition.
    pub fn heal(&self) {
        self.way.link.set_reachable(true);
    }

    /// Ends its lease now, as if it had not been renewed in time. The worker finds out, and
    /// begins anew under another worker id.
    pub async fn expire_lease(&self) {
        self.way.link.inner().end_leases().await;
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
