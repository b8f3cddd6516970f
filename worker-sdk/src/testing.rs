//! A whole cluster in one test: registry, assigner and workers, under paused time.
//!
//! Time moves only as far as something waits for it, so a week of retries takes as long
//! as its attempts. Workers can be killed, paused and cut off, leases ended, and faults
//! drawn from a seed.
//!
//! ```
//! use std::time::Duration;
//!
//! use bellows_sdk::prelude::*;
//! use bellows_sdk::testing::Cluster;
//!
//! struct Greet;
//! impl TaskDefinition for Greet {
//!     const NAME: &'static str = "greet";
//!     type Callback = String;
//!     type Trigger = PublishTrigger<String>;
//! }
//!
//! async fn greet(context: TaskContext, name: String) -> TaskResult<String> {
//!     if context.attempt() < 3 {
//!         return Err("the line is busy".into()); // tried again, a little later
//!     }
//!     Ok(format!("Hello, {name}!").into())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> anyhow::Result<()> {
//! // In a test: #[tokio::test]
//! let cluster = Cluster::new(1);
//! let _worker = cluster.worker(Tasks::new().with_fn::<Greet, _, _>(greet)).await;
//!
//! let task = cluster.bellows().publish::<Greet>("Ada".into()).delay(Duration::from_secs(3600)).await?;
//! cluster.assert_published::<Greet>(|name| name == "Ada");
//! cluster.run_until_idle().await;
//! assert_eq!(task.try_result().await?, None, "it waits for its hour");
//!
//! cluster.advance(Duration::from_secs(3700)).await;
//! assert_eq!(task.try_result().await?.as_deref(), Some("Hello, Ada!"));
//! # Ok(()) }
//! ```
//!
//! # Assumptions
//! One thread: `#[tokio::test]` as it is, or `#[tokio::main(flavor = "current_thread")]`.
//! The handlers wait by tokio's clock. The wall clock that Bellows reads follows it.
//!
//! # Caveats
//! Faults are drawn from the seed; the order in which a runtime turns to its tasks is not.

mod link;
mod recorder;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellows_registry::assigner::AssignerConfig;
use bellows_registry::backend::memory::{MemoryBackend, MemoryConfig};
use bellows_registry::check;
use bellows_registry::clock;
use bellows_registry::demand::{Demand, DemandReport};
use bellows_registry::entropy::Entropy;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::Keyspace;
use bellows_registry::spec::Trigger;
use bellows_registry::testkit::Faulty;
pub use bellows_registry::testkit::Rates as Faults;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::recorder::Recorder;
pub use self::worker::TestWorker;
use crate::client::{Bellows, Options};
use crate::control::Control;
use crate::definition::{PayloadOf, TaskDefinition};
use crate::dispatcher::WorkerDispatcher;
use crate::hosted::Hosted;
use crate::tasks::Tasks;

/// A registry in memory with its assigner, under paused time.
pub struct Cluster {
    store: MemoryBackend,
    options: Options,
    bellows: Bellows,
    /// The way of the assigner and of [`Cluster::bellows`] to the registry.
    link: Faulty<MemoryBackend>,
    demand: watch::Receiver<Arc<DemandReport>>,
    recorder: Recorder,
    seed: u64,
    workers: AtomicU64,
    faults: watch::Sender<Faults>,
    _wall: clock::WallFollows,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Changes that are remembered for [`Cluster::published`].
const HISTORY: usize = 1_000_000;

/// A cluster in which nothing happens for so long, and that is not idle, never will be.
const STUCK: Duration = Duration::from_secs(24 * 3600);

impl Cluster {
    /// A cluster without workers. Ids and faults are drawn from `seed`.
    ///
    /// Its leases live for ten minutes rather than ten seconds, since each renewal is a turn
    /// of the cluster, and a test is about weeks as easily as about seconds. That of a worker
    /// that is killed, paused or cut off ends after ten seconds all the same.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or on one with several threads: time cannot be paused
    /// there.
    pub fn new(seed: u64) -> Self {
        let lease_ttl = Duration::from_secs(600);
        Self::with_options(seed, Options { lease_ttl, ..Options::default() })
    }

    /// As [`Cluster::new`], set up.
    ///
    /// # Panics
    /// As there, and for a namespace that is no DNS name.
    pub fn with_options(seed: u64, options: Options) -> Self {
        pause();
        let wall = clock::wall_follows_instant();
        // A silent watch says now and then that it is there: only etcd's clients care.
        let progress = Duration::from_secs(3600);
        let config = MemoryConfig { progress, history: HISTORY, ..MemoryConfig::default() };
        let store = MemoryBackend::with_config(config);
        let link = Faulty::new(store.clone(), seed);
        let entropy = Arc::new(Entropy::seeded(seed));
        let assigner = AssignerConfig {
            identity: "in-process".to_owned(),
            lease_ttl: options.lease_ttl.max(AssignerConfig::default().lease_ttl),
            ..AssignerConfig::default()
        };
        let hosted = Hosted {
            backend: Arc::new(link.clone()),
            control: Control::on_the_callers_runtime(),
            options: options.clone(),
            entropy,
            assigner,
        };
        let (bellows, demand) =
            hosted.start().unwrap_or_else(|error| panic!("the cluster cannot be made: {error}"));
        let recorder = Recorder::start(&store, &Keyspace::new(&options.prefix));
        let (workers, faults) = (AtomicU64::new(0), watch::Sender::new(Faults::default()));
        Self { store, options, bellows, link, demand, recorder, seed, workers, faults, _wall: wall }
    }

    /// The client that publishes.
    pub fn bellows(&self) -> &Bellows {
        &self.bellows
    }

    /// A client as of another process: it shares nothing with the others but the registry.
    pub fn another_client(&self) -> Bellows {
        let link = Arc::new(Faulty::new(self.store.clone(), self.next_seed()));
        Bellows::with_backend(link, self.options.clone())
            .unwrap_or_else(|error| unreachable!("the options were good before: {error}"))
    }

    /// Defines the kinds of work, unless they are, and launches a worker of them that has
    /// its own way to the registry. Returns when tasks can arrive.
    ///
    /// # Panics
    /// If the worker refuses to start.
    pub async fn worker(&self, tasks: Tasks) -> TestWorker {
        self.launch(tasks, |dispatcher| dispatcher).await
    }

    /// As [`Cluster::worker`], with so many slots of each kind.
    ///
    /// # Panics
    /// As there.
    pub async fn worker_with_slots(&self, tasks: Tasks, slots: u32) -> TestWorker {
        self.launch(tasks, |dispatcher| dispatcher.concurrency(slots)).await
    }

    async fn launch(
        &self,
        tasks: Tasks,
        set_up: impl FnOnce(WorkerDispatcher) -> WorkerDispatcher,
    ) -> TestWorker {
        for kind in &tasks.kinds {
            let name = kind.name;
            let defined = async {
                let def = self.bellows.definition_named(name)?;
                self.bellows.define_if_hosted(&def, kind).await
            };
            defined.await.unwrap_or_else(|error| panic!("{name} cannot be defined: {error}"));
            if kind.trigger == Trigger::Singleton {
                self.recorder.never_ends(name);
            }
        }
        let seed = self.next_seed();
        TestWorker::launch(&self.store, self.options.clone(), seed, self.faults.subscribe(), |client| {
            set_up(WorkerDispatcher::of(client, tasks))
        })
        .await
    }

    fn next_seed(&self) -> u64 {
        self.seed.wrapping_add(1 + self.workers.fetch_add(1, Ordering::Relaxed))
    }

    /// Lets so much time pass, with everything that happens within it.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets time pass until no task is due or running. Those that wait for a later time
    /// (delayed, snoozed, between two attempts) go on waiting: see [`Cluster::advance`] and
    /// [`Cluster::run_until_empty`]. Singletons, which are always due, do not count.
    ///
    /// # Panics
    /// If nothing happens for a day of the cluster's time although tasks are due, and says
    /// which and why: no worker takes them, or their definition is on hold.
    pub async fn run_until_idle(&self) {
        self.run_until(|demand| demand.total() == 0).await;
    }

    /// As [`Cluster::run_until_idle`], but lets later tasks come due too, until none is left.
    ///
    /// # Panics
    /// As there.
    pub async fn run_until_empty(&self) {
        self.run_until(|demand| demand.total() == 0 && demand.delayed == 0).await;
    }

    async fn run_until(&self, ended: impl Fn(&Demand) -> bool) {
        let mut demand = self.demand.clone();
        let mut happened = (0, Instant::now());
        loop {
            let report = Arc::clone(&demand.borrow_and_update());
            let current = report.leading && report.fresh && report.revision >= self.store.revision();
            let left = || report.definitions.iter().filter(|(id, demand)| self.counts(id) && !ended(demand));
            if current && left().next().is_none() {
                return;
            }
            if happened.0 != report.revision {
                happened = (report.revision, Instant::now());
            }
            let tasks_wait = left().any(|(_, demand)| demand.delayed > 0);
            assert!(
                happened.1.elapsed() < STUCK || tasks_wait,
                "the cluster is not idle, and nothing happens any more: {:#?}",
                left().collect::<Vec<_>>()
            );
            // Over is as good as news: one looks again.
            let _ = timeout(STUCK, demand.changed()).await;
        }
    }

    fn counts(&self, id: &DefinitionId) -> bool {
        !self.recorder.is_endless(id)
    }

    /// Payloads of all tasks of a kind that were ever published, in their order.
    ///
    /// # Panics
    /// If one does not decode as this kind's payload.
    pub fn published<T: TaskDefinition>(&self) -> Vec<PayloadOf<T>> {
        let read = |bytes: bytes::Bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| panic!("a payload of {} does not decode: {error}: {text}", T::NAME))
        };
        self.recorder.published(&self.options.namespace, T::NAME).into_iter().map(read).collect()
    }

    /// Fails unless a task of this kind was published whose payload is as wanted.
    ///
    /// # Panics
    /// Then, with the payloads that were published.
    pub fn assert_published<T: TaskDefinition>(&self, is_wanted: impl Fn(&PayloadOf<T>) -> bool) {
        if !self.published::<T>().iter().any(is_wanted) {
            let all = self.recorder.published(&self.options.namespace, T::NAME);
            let all: Vec<_> = all.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
            panic!("no such task of {} was published, but these {}: {all:#?}", T::NAME, all.len());
        }
    }

    /// Draws faults at these rates from now on, on the ways of the assigner, of workers and
    /// of [`Cluster::bellows`] to the registry: from the seed, for each its own.
    pub fn set_faults(&self, faults: Faults) {
        self.link.set_rates(faults);
        self.faults.send_replace(faults);
    }

    /// Fails if a law of the registry is broken now, such as a task with two assignments.
    ///
    /// # Panics
    /// Then, with the law.
    pub async fn assert_lawful(&self) {
        use bellows_registry::backend::{Backend, RangeRequest};
        let space = Keyspace::new(&self.options.prefix);
        let everything = self.store.range(RangeRequest::new(space.everything())).await;
        let entries = everything.unwrap_or_else(|error| unreachable!("memory answers: {error}")).entries;
        assert_eq!(check::registry(&space, &entries), []);
    }
}

/// Pauses tokio's clock, unless it stands still already.
fn pause() {
    let before = Instant::now();
    // Long enough for a clock that runs to have moved.
    std::thread::sleep(Duration::from_millis(2));
    if Instant::now() != before {
        tokio::time::pause();
    }
}
