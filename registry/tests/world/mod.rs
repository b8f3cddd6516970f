//! A registry with an assigner and small honest workers, on one thread, under paused
//! time. The workers here know the table of moves and nothing else; the real ones are
//! tested in the SDK.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod slow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::assigner::{Assigner, AssignerConfig};
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{
    Backend, BackendError, Change, Changes, DynBackend, Entry, RangeRequest, Revision, TxnAnswer,
    WatchRequest,
};
use bellows_registry::check::{self, History};
use bellows_registry::demand::DemandReport;
use bellows_registry::entropy::Entropy;
use bellows_registry::id::{DefinitionId, TaskId, WorkerId};
use bellows_registry::key::{Key, Keyspace};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{
    AssignmentRecord, OpenRecord, PolicyRecord, PolicyState, Record, WorkerRecord, WorkerState,
};
use bellows_registry::session::Session;
use bellows_registry::spec::Policy;
use bellows_registry::testkit::{Faulty, Rates, records};
use bellows_registry::txn::{self, AttemptRef, Batch, Move, Published, Settled};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const TTL: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) store: MemoryBackend,
    /// What the assigner goes through.
    pub(crate) assigner_link: Faulty<MemoryBackend>,
    /// What workers and publishers go through.
    pub(crate) worker_link: Faulty<MemoryBackend>,
    pub(crate) space: Keyspace,
    pub(crate) def: DefinitionId,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) tasks: JoinSet<()>,
    /// All that ever changed, up to this revision.
    history: History,
    witnessed: Revision,
    seed: u64,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let store = MemoryBackend::new();
        let space = Keyspace::default();
        let world = Self {
            assigner_link: Faulty::new(store.clone(), seed),
            worker_link: Faulty::new(store.clone(), seed ^ 0xff),
            store,
            history: History::new(space.clone()),
            witnessed: 0,
            space,
            def: DefinitionId::new("media", "resize").unwrap(),
            entropy: Arc::new(Entropy::seeded(seed)),
            tasks: JoinSet::new(),
            seed,
        };
        let policy = PolicyRecord {
            uid: "u".into(),
            generation: 1,
            state: PolicyState::Active,
            policy: Policy::default(),
        };
        let write = txn::write_policy(&world.space, &world.def, 0, &policy);
        let seen = world.send(&world.store, write).await.unwrap().revision;
        let open = OpenRecord { uid: "u".into() };
        world.send(&world.store, txn::open_definition(&world.space, &world.def, seen, &open)).await.unwrap();
        world
    }

    /// Sends one move.
    pub(crate) async fn send(&self, backend: &dyn Backend, row: Move) -> Result<TxnAnswer, BackendError> {
        send(backend, row).await
    }

    /// Starts an assigner; cancel the token to stop it.
    pub(crate) fn assigner(&mut self, name: &str) -> (CancellationToken, watch::Receiver<Arc<DemandReport>>) {
        let config = AssignerConfig { identity: name.into(), ..AssignerConfig::default() };
        let link: DynBackend = Arc::new(self.assigner_link.clone());
        let assigner = Assigner::new(link, self.space.clone(), config, Arc::clone(&self.entropy));
        let (stop, demand) = (CancellationToken::new(), assigner.demand());
        self.tasks.spawn(assigner.run(stop.clone()));
        (stop, demand)
    }

    /// Starts a worker; cancel the token to kill it without a word.
    pub(crate) fn worker(&mut self, slots: u32, behaviour: Behaviour) -> CancellationToken {
        let kill = CancellationToken::new();
        let worker = TestWorker {
            backend: Arc::new(self.worker_link.clone()),
            space: self.space.clone(),
            def: self.def.clone(),
            entropy: Arc::clone(&self.entropy),
            slots,
            behaviour,
        };
        let until = kill.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = worker.live() => {}
            }
        });
        kill
    }

    /// Publishes until an answer says that the task is there.
    pub(crate) async fn publish(&self) -> TaskId {
        let id = self.entropy.task_id();
        let record = records::task();
        loop {
            let row = txn::publish(&self.space, &self.def, id, &record);
            match self.send(&self.worker_link, row).await.map(|answer| Published::of(&answer)) {
                Ok(Published::Created | Published::Already) => return id,
                Ok(other) => panic!("the definition is open: {other:?}"),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        self.store.range(RangeRequest::new(self.space.everything())).await.unwrap().entries
    }

    /// How many keys of each kind there are.
    pub(crate) async fn count(&self) -> BTreeMap<char, usize> {
        let mut count = BTreeMap::new();
        for entry in self.entries().await {
            let kind = match self.space.parse(&entry.key) {
                Ok(Key::Task(..)) => 't',
                Ok(Key::Tally(..)) => 'p',
                Ok(Key::Assignment(..)) => 'a',
                Ok(Key::Parked(..)) => 'x',
                Ok(Key::Outcome(..)) => 'r',
                Ok(Key::Worker(..)) => 'w',
                _ => continue,
            };
            *count.entry(kind).or_default() += 1;
        }
        count
    }

    /// Waits until so many tasks have ended; fails after an hour of the test's time.
    pub(crate) async fn until_settled(&self, tasks: usize) {
        let settled = async {
            while self.count().await.get(&'r').copied().unwrap_or(0) < tasks {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(Duration::from_secs(3600), settled).await.is_err() {
            panic!("seed {}: not settled in an hour: {:?}", self.seed, self.count().await);
        }
    }

    /// Takes in everything that changed since the last call. It is judged on the way.
    async fn witness(&mut self) {
        let from = self.witnessed + 1;
        let request = WatchRequest { range: self.space.everything(), from };
        let mut watch = self.store.watch(request).await.unwrap();
        let last = self.store.revision();
        while self.witnessed < last {
            let changes: Changes = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
            self.witnessed = changes.complete;
            self.history.take(&changes);
        }
    }

    /// Forgets what was, once it is witnessed: whoever is behind must list again.
    pub(crate) async fn compact(&mut self) {
        self.witness().await;
        self.store.compact(self.witnessed).unwrap_or_default(); // twice at one revision is refused
    }

    /// Fails with the first law that is broken now or was on the way.
    pub(crate) async fn assert_lawful(&mut self) -> &History {
        self.witness().await;
        let broken = check::registry(&self.space, &self.entries().await);
        let first = broken.iter().chain(self.history.violations()).next();
        assert!(first.is_none(), "seed {}: {}", self.seed, first.unwrap());
        assert!(self.history.lost().is_empty(), "seed {}: lost {:?}", self.seed, self.history.lost());
        &self.history
    }

    /// Makes both links lose answers, be late, refuse and break, at random.
    pub(crate) fn make_links_bad(&self) {
        let rates = Rates {
            lose_answer: 40,
            drop: 30,
            apply_late: 40,
            late_by: Duration::from_secs(3),
            refuse: 20,
            fail_read: 20,
            cut_watch: 20,
        };
        self.assigner_link.set_rates(rates);
        self.worker_link.set_rates(rates);
    }
}

pub(crate) async fn send(backend: &dyn Backend, row: Move) -> Result<TxnAnswer, BackendError> {
    let mut batch = Batch::default();
    batch.push(row).unwrap();
    let answer = backend.txn(batch.into_txn(None)).await?;
    Ok(Batch::answers(answer).unwrap().pop().unwrap())
}

/// How a worker of these tests works, in thousandths drawn for each attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    /// How long an attempt takes.
    pub(crate) takes: Duration,
    /// How many fail.
    pub(crate) fail: u32,
    /// How many are handed back.
    pub(crate) hand_back: u32,
}

impl Behaviour {
    pub(crate) fn steady(takes: Duration) -> Self {
        Self { takes, fail: 0, hand_back: 0 }
    }
}

struct TestWorker {
    backend: DynBackend,
    space: Keyspace,
    def: DefinitionId,
    entropy: Arc<Entropy>,
    slots: u32,
    behaviour: Behaviour,
}

impl TestWorker {
    /// One session after another, for ever.
    async fn live(self) {
        loop {
            if self.session().await.is_err() {
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn session(&self) -> Result<(), BackendError> {
        let session = Session::open(Arc::clone(&self.backend), TTL).await?;
        let id = WorkerId::for_session("pod", self.entropy.bits64()).unwrap();
        let record =
            WorkerRecord { slots: self.slots, state: WorkerState::Active, sdk: "0".into(), version: None };
        let register = txn::register_worker(&self.space, &self.def, &id, session.lease(), &record);
        if !send(&*self.backend, register).await?.succeeded {
            return Ok(());
        }
        let range = self.space.assignments_range(&self.def, &id);
        let mut mirror = Mirror::new(Arc::clone(&self.backend), range);
        let (lost, mut running) = (session.lost(), JoinSet::new());
        let mut seen = std::collections::BTreeSet::new();
        loop {
            session.tick();
            let event = tokio::select! {
                () = lost.cancelled() => return Ok(()), // law 14: whatever runs is cancelled
                event = mirror.next() => event,
                Some(_) = running.join_next() => continue,
                () = sleep(TTL / 4) => continue,
            };
            let entries: Vec<Entry> = match event {
                MirrorEvent::Listed { entries, .. } => entries,
                MirrorEvent::Changed(changes) => changes
                    .changes
                    .into_iter()
                    .filter_map(|change| match change {
                        Change::Put(entry) => Some(entry),
                        Change::Delete { .. } => None,
                    })
                    .collect(),
                MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => continue,
            };
            for entry in entries {
                let Ok(Key::Assignment(_, _, task, attempt)) = self.space.parse(&entry.key) else { continue };
                if seen.insert((task, attempt)) {
                    let record = AssignmentRecord::decode(&entry.value).unwrap();
                    let at = AttemptRef { definition: self.def.clone(), worker: id.clone(), task, attempt };
                    running.spawn(self.attempt(at, record));
                }
            }
        }
    }

    fn attempt(&self, at: AttemptRef, record: AssignmentRecord) -> impl Future<Output = ()> + 'static {
        let (backend, space) = (Arc::clone(&self.backend), self.space.clone());
        let (takes, draw) = (self.behaviour.takes, self.entropy.bits64() as u32 % 1000);
        let (fail, hand_back) = (self.behaviour.fail, self.behaviour.hand_back);
        async move {
            sleep(takes).await;
            let mut tally = record.tally.clone();
            let row = if draw < fail && record.number < record.max_attempts {
                tally.attempts += 1;
                txn::give_back(&space, &at, &tally)
            } else if draw < fail + hand_back {
                tally.hand_backs += 1;
                txn::give_back(&space, &at, &tally)
            } else {
                txn::settle(&space, &at, record.ties(), &records::succeeded(&at, &record))
            };
            // Sent until answered: the fence decides.
            loop {
                match send(&*backend, row.clone()).await {
                    Ok(answer) => {
                        let _verdict: Settled = Settled::of(&answer, at.attempt);
                        break;
                    }
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }
}
