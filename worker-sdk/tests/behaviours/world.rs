//! A registry with its assigner, and short words for what the behaviours do with it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellows_registry::backend::{Entry, Op, RangeRequest, Txn};
use bellows_registry::check;
use bellows_registry::key::{KeyRange, Keyspace};
use bellows_registry::record::{Record, WorkerRecord, WorkerState};
use bellows_registry::testkit::Faulty;
use bellows_registry::txn::{Batch, Move};
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Backoff, Execution, Percent, Retry, Span};
use bellows_sdk::{
    DispatcherHandle, DynBackend, EmbeddedBackend, EtcdBackend, EtcdConfig, MemoryBackend, Options, Policy,
};
use bellows_testbed::EtcdServer;
use bytes::Bytes;
use tempfile::TempDir;

pub(crate) struct World {
    /// The client that hosts the assigner.
    pub(crate) bellows: Bellows,
    /// The registry itself.
    pub(crate) store: DynBackend,
    options: Options,
    /// Where its file is, if it is in one.
    _folder: Option<TempDir>,
    paused: bool,
}

/// The work of these tests: the payload says what to do.
pub(crate) struct Act;

impl TaskDefinition for Act {
    const NAME: &'static str = "act";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

/// One etcd for all tests of this program; each has a prefix of its own.
fn etcd_url() -> &'static str {
    static ETCD: OnceLock<(EtcdServer, String)> = OnceLock::new();
    &ETCD
        .get_or_init(|| {
            // Nothing is dropped at the end of a test program: what stays, stays in `target`.
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("etcd-{}", std::process::id()));
            let etcd = EtcdServer::start(&dir).expect("a real etcd, built from tools/etcd");
            let url = etcd.client_url().to_string();
            (etcd, url)
        })
        .1
}

impl World {
    pub(crate) fn memory() -> Self {
        Self { paused: true, ..Self::on(Arc::new(MemoryBackend::new()), "/bellows/", None) }
    }

    pub(crate) async fn embedded() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let backend = EmbeddedBackend::open(folder.path().join("tasks.redb")).await.unwrap();
        Self { paused: true, ..Self::on(Arc::new(backend), "/bellows/", Some(folder)) }
    }

    pub(crate) fn etcd(test: &str) -> Self {
        let backend = EtcdBackend::new(EtcdConfig::new([etcd_url()])).unwrap();
        Self::on(Arc::new(backend), &format!("/{test}/"), None)
    }

    fn on(store: DynBackend, prefix: &str, folder: Option<TempDir>) -> Self {
        let options =
            Options { prefix: prefix.to_owned(), lease_ttl: Duration::from_secs(2), ..Options::default() };
        let bellows = Bellows::hosted(Arc::clone(&store), options.clone()).unwrap();
        Self { bellows, store, options, _folder: folder, paused: false }
    }

    /// Whether the test winds the clock forward.
    pub(crate) fn has_paused_time(&self) -> bool {
        self.paused
    }

    /// One of two times: by the clock that the test winds forward, or by the one on the wall,
    /// which goes on while a busy machine stands still.
    pub(crate) fn paused_or_real(&self, paused: Duration, real: Duration) -> Duration {
        if self.paused { paused } else { real }
    }

    /// A client in another process, as far as the registry can tell.
    pub(crate) fn other_client(&self) -> Bellows {
        Bellows::with_backend(Arc::clone(&self.store), self.options.clone()).unwrap()
    }

    /// A client in another process, the leases of whose workers live so long.
    pub(crate) fn client_with_leases_of(&self, lease_ttl: Duration) -> Bellows {
        Bellows::with_backend(Arc::clone(&self.store), Options { lease_ttl, ..self.options.clone() }).unwrap()
    }

    /// A client in another process that has these codecs.
    #[cfg(all(feature = "zstd", feature = "encryption", feature = "object-store"))]
    pub(crate) fn client_with(&self, codecs: bellows_sdk::Codecs) -> Bellows {
        Bellows::with_backend(Arc::clone(&self.store), Options { codecs, ..self.options.clone() }).unwrap()
    }

    /// A client whose way to the registry can be made to fail.
    pub(crate) fn client_over_a_bad_link(&self) -> (Bellows, Faulty<Link>) {
        self.over_a_bad_link(self.options.clone())
    }

    /// One that has these codecs.
    #[cfg(all(feature = "zstd", feature = "encryption", feature = "object-store"))]
    pub(crate) fn client_with_over_a_bad_link(&self, codecs: bellows_sdk::Codecs) -> (Bellows, Faulty<Link>) {
        self.over_a_bad_link(Options { codecs, ..self.options.clone() })
    }

    fn over_a_bad_link(&self, options: Options) -> (Bellows, Faulty<Link>) {
        let results = KeyRange::prefix(format!("{}r/", self.space().prefix()));
        let link = Link { to: Arc::clone(&self.store), results, watches: AtomicU32::new(0) };
        let link = Faulty::new(link, 7);
        let client = Bellows::with_backend(Arc::new(link.clone()), options).unwrap();
        (client, link)
    }

    pub(crate) fn space(&self) -> Keyspace {
        Keyspace::new(&self.options.prefix)
    }

    /// Defines `Act` with a policy for impatient tests: three attempts, short waits.
    pub(crate) async fn define(&self, timeout: Duration) {
        self.bellows.define::<Act>(policy(timeout)).await.unwrap();
    }

    /// Launches a worker of `Act` with so many slots.
    pub(crate) async fn worker<F, R>(&self, client: &Bellows, slots: u32, act: F) -> DispatcherHandle
    where
        F: Fn(TaskContext, String) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = TaskResult<String>> + Send + 'static,
    {
        let tasks = Tasks::new().with_fn::<Act, _, _>(act);
        let mut worker = WorkerDispatcher::of(client, tasks).concurrency(slots).launch().await.unwrap();
        within(Duration::from_secs(10), worker.ready()).await;
        worker
    }

    /// Writes one move as whoever it belongs to.
    pub(crate) async fn write(&self, row: Move) {
        let mut batch = Batch::default();
        batch.push(row).unwrap();
        let answers = Batch::answers(self.store.txn(batch.into_txn(None)).await.unwrap()).unwrap();
        assert!(answers.iter().all(|answer| answer.succeeded));
    }

    /// Writes a key, whatever is there.
    pub(crate) async fn put(&self, key: Bytes, value: Bytes) {
        let put = Op::Put { key, value, lease: bellows_registry::backend::PutLease::None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }

    /// How to reach another registry on the same store, which has no assigner yet.
    pub(crate) fn beside(&self) -> Options {
        Options { prefix: format!("/beside{}", self.options.prefix), ..self.options.clone() }
    }

    /// Deletes a key.
    pub(crate) async fn delete(&self, key: Bytes) {
        let delete = Txn { then: vec![Op::Delete(KeyRange::one(key))], ..Txn::default() };
        self.store.txn(delete).await.unwrap();
    }

    /// What is in a range, once there is anything.
    pub(crate) async fn some(&self, range: KeyRange) -> Vec<Entry> {
        loop {
            let found = self.store.range(RangeRequest::new(range.clone())).await.unwrap().entries;
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a worker of `Act` says that it drains.
    pub(crate) async fn until_a_worker_drains(&self) {
        let workers = KeyRange::prefix(format!("{}q/default/{}/w/", self.space().prefix(), Act::NAME));
        let drains =
            |entry: &Entry| WorkerRecord::decode(&entry.value).unwrap().state == WorkerState::Draining;
        within(SOON, async {
            while !self.some(workers.clone()).await.iter().any(drains) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// No law is broken now.
    pub(crate) async fn assert_lawful(&self) {
        let space = self.space();
        let all = RangeRequest::new(space.everything());
        let entries = self.store.range(all).await.unwrap().entries;
        assert_eq!(check::registry(&space, &entries), []);
    }
}

pub(crate) fn policy(timeout: Duration) -> Policy {
    let backoff = Backoff {
        initial: Span::millis(50),
        factor: 2,
        max: Span::secs(1),
        jitter: Percent::new(20).unwrap(),
    };
    let retry = Retry { max_attempts: 3, backoff };
    let timeout = Span::millis(u64::try_from(timeout.as_millis()).unwrap());
    let execution = Execution { timeout, retry, max_disruptions: 3, ..Execution::default() };
    Policy { execution, ..Policy::default() }
}

/// Fails if it does not happen in time.
pub(crate) async fn within<F: IntoFuture>(time: Duration, what: F) -> F::Output {
    match tokio::time::timeout(time, what.into_future()).await {
        Ok(output) => output,
        Err(_) => panic!("it did not happen within {time:?}"),
    }
}

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A shared backend as a backend, to be wrapped. Counts the watches on results.
#[derive(Debug)]
pub(crate) struct Link {
    to: DynBackend,
    results: KeyRange,
    watches: AtomicU32,
}

impl Link {
    /// How many watches on results were opened.
    pub(crate) fn result_watches(&self) -> u32 {
        self.watches.load(Ordering::SeqCst)
    }
}

mod link {
    use bellows_registry::backend::*;
    use futures::future::BoxFuture;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    impl Backend for super::Link {
        fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
            self.to.range(request)
        }
        fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
            self.to.txn(txn)
        }
        fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
            let results = self.results.contains(&request.range.start);
            self.watches.fetch_add(u32::from(results), Ordering::SeqCst);
            self.to.watch(request)
        }
        fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
            self.to.grant(ttl)
        }
        fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
            self.to.keep_alive(lease)
        }
        fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
            self.to.revoke(lease)
        }
    }
}
