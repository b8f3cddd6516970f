//! The registry as a table of keys, and what publishers, workers, people and time do to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bellows_registry::backend::{Change, Changes, Compare, Entry, Is, Op, PutLease, Revision};
use bellows_registry::check::{self, History, Limits};
use bellows_registry::clock::{self, Now};
use bellows_registry::entropy::Entropy;
use bellows_registry::id::{DefinitionId, TaskId, WorkerId};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{
    AssignmentRecord, Delay, FairnessKey, HeldUntil, HolderRecord, PolicyRecord, PolicyState, Priority,
    Record, TaskOptions, TaskRecord, Unique, UniqueKey, Weight, WorkerRecord, WorkerState,
};
use bellows_registry::spec::{ConcurrencyLimit, Execution, Mode, Policy, RateLimit, Span};
use bellows_registry::testkit::records;
use bellows_registry::txn::{self, AttemptRef, FollowUp, Holder, Move};
use bytes::Bytes;

/// What became of a task so far, as it is counted here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) attempts: u32,
    pub(crate) losses: u32,
}

pub(crate) struct Table {
    entries: BTreeMap<Bytes, Entry>,
    pub(crate) revision: Revision,
    pub(crate) space: Keyspace,
    pub(crate) now: Now,
    pub(crate) dice: Entropy,
    pub(crate) defs: Vec<DefinitionId>,
    attempts: Vec<AttemptRef>,
    workers: Vec<Key>,
    pub(crate) counts: HashMap<(DefinitionId, TaskId), Count>,
    /// What the watch has not told yet.
    pub(crate) news: VecDeque<Changes>,
    limits: Limits,
    history: History,
    pub(crate) peace: bool,
    pub(crate) replaced: u64,
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        let space = Keyspace::default();
        let defs = ["a", "b"].map(|name| DefinitionId::new("ns", name).unwrap()).to_vec();
        let mut table = Self {
            entries: BTreeMap::new(),
            revision: 0,
            now: clock::now(),
            dice: Entropy::seeded(seed),
            defs: defs.clone(),
            attempts: Vec::new(),
            workers: Vec::new(),
            counts: HashMap::new(),
            news: VecDeque::new(),
            limits: Limits::new(space.clone()),
            history: History::new(space.clone()),
            space,
            peace: false,
            replaced: 0,
        };
        for def in defs {
            table.policy(&def, Mode::Active);
        }
        table
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.dice.bits64() % bound
    }

    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        let len = from.len() as u64;
        (len > 0).then(|| from[self.below(len) as usize].clone())
    }

    /// One of these, or none: as often.
    fn maybe(&self, from: &[u32]) -> Option<u32> {
        (self.below(2) == 0).then(|| self.pick(from)).flatten()
    }

    /// A policy with limits that bite.
    pub(crate) fn policy(&mut self, def: &DefinitionId, mode: Mode) {
        let (total, per_key) = (self.maybe(&[1, 2, 5]), self.maybe(&[1, 2, 3]));
        let (tasks, of_key) = (self.maybe(&[1, 2, 4, 6]), self.maybe(&[1, 2, 3]));
        let per = Span::secs(1 + self.below(12));
        let concurrency_limit = total.or(per_key).map(|_| ConcurrencyLimit { total, per_key });
        let rate_limit = tasks.or(of_key).filter(|_| self.below(3) == 0);
        let rate_limit = rate_limit.map(|_| RateLimit { tasks, per_key: of_key, per });
        let key_shares = self.maybe(&[2, 3]).map(|share| ("k0".to_owned(), share)).into_iter().collect();
        let execution = Execution {
            concurrency_limit,
            rate_limit,
            key_shares,
            max_disruptions: 1,
            ..Execution::default()
        };
        let policy = Policy { mode, execution, ..Policy::default() };
        policy.check().unwrap();
        let record = PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy };
        self.write(&Key::Policy(def.clone()), record.encode());
        self.write(&Key::Open(def.clone()), Bytes::from_static(b"bellows1 {\"uid\":\"u\"}\n"));
    }

    fn write(&mut self, key: &Key, value: Bytes) {
        let op = Op::Put { key: self.space.path(key), value, lease: PutLease::None };
        assert!(self.commit(&Move { then: vec![op], ..Move::default() }));
    }

    fn remove(&mut self, key: &Key) {
        let range = KeyRange::one(self.space.path(key));
        self.commit(&Move { then: vec![Op::Delete(range)], ..Move::default() });
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get(&self.space.path(key)).cloned()
    }

    pub(crate) fn get<R: Record>(&self, key: &Key) -> Option<R> {
        self.entries.get(&self.space.path(key)).and_then(|entry| R::decode(&entry.value).ok())
    }

    /// A move, carried out as a backend would: all compares, then all steps, one revision.
    pub(crate) fn commit(&mut self, row: &Move) -> bool {
        let holds = |c: &Compare| {
            let found = self.entries.get(&c.key).map(|entry| entry.mod_revision);
            match c.is {
                Is::Present => found.is_some(),
                Is::Absent => found.is_none(),
                Is::At(revision) => found == Some(revision),
            }
        };
        if !row.compares.iter().all(holds) {
            return false;
        }
        self.revision += 1;
        let mut changes = Vec::new();
        for op in &row.then {
            match op {
                Op::Put { key, value, .. } => changes.push(self.put(key, value)),
                Op::Delete(range) => changes.extend(self.delete(&range.start)),
                other => panic!("no move has {other:?}"),
            }
        }
        let mut changes = Changes { complete: self.revision, changes };
        self.limits.take(&changes, self.now.instant);
        self.history.take(&changes);
        changes.changes.retain(|change| !matches!(self.space.parse(change.key()), Ok(Key::Outcome(..))));
        self.news.push_back(changes);
        true
    }

    fn put(&mut self, key: &Bytes, value: &Bytes) -> Change {
        let revision = self.revision;
        let known = self.entries.get(key);
        let created = known.map_or(revision, |entry| entry.create_revision);
        if known.is_none() {
            match self.space.parse(key).unwrap() {
                key @ Key::Worker(..) => self.workers.push(key),
                Key::Assignment(definition, worker, task, attempt) => {
                    self.attempts.push(AttemptRef { definition, worker, task, attempt });
                }
                _ => {}
            }
        }
        let (key, value) = (key.clone(), value.clone());
        let entry = Entry { key, value, create_revision: created, mod_revision: revision, lease: None };
        self.entries.insert(entry.key.clone(), entry.clone());
        Change::Put(entry)
    }

    fn delete(&mut self, key: &Bytes) -> Option<Change> {
        self.entries.remove(key)?;
        match self.space.parse(key).unwrap() {
            gone @ Key::Worker(..) => self.workers.retain(|key| *key != gone),
            Key::Assignment(_, _, _, gone) => self.attempts.retain(|at| at.attempt != gone),
            _ => {}
        }
        Some(Change::Delete { key: key.clone(), revision: self.revision })
    }

    pub(crate) fn keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let keys = self.entries.keys().filter_map(|path| self.space.parse(path).ok());
        keys.filter(|key| wanted(key)).collect()
    }

    /// What the assigner's list answers.
    pub(crate) fn list(&self) -> Vec<Entry> {
        let range = self.space.assigner_range();
        self.entries.values().filter(|entry| range.contains(&entry.key)).cloned().collect()
    }

    pub(crate) fn judge(&self) {
        let entries: Vec<Entry> = self.entries.values().cloned().collect();
        assert_eq!(check::registry(&self.space, &entries), []);
        assert_eq!(self.limits.violations(), []);
        assert_eq!(self.history.violations(), []);
        assert_eq!(self.history.lost(), []);
    }

    pub(crate) fn given(&self) -> u64 {
        self.limits.given()
    }

    pub(crate) fn publish(&mut self) {
        let def = self.pick(&self.defs).unwrap();
        let wait = Duration::from_millis(self.below(3) * self.below(3000));
        let record = TaskRecord {
            delay: (!wait.is_zero()).then(|| Delay::from_now(wait, self.now.wall)),
            options: TaskOptions { unique: self.unique(), ..self.options() },
            payload: Bytes::from(vec![b'x'; self.below(40) as usize]),
            ..records::task()
        };
        let (id, space) = (self.dice.task_id(), self.space.clone());
        if self.commit(&txn::publish(&space, &def, id, &record)) {
            return;
        }
        let Some(Unique { key, until }) = record.options.unique else { return };
        let path = space.path(&Key::Unique(def.clone(), key.bytes()));
        let Some(entry) = self.entries.get(&path) else { return };
        let HolderRecord { task, slot } = HolderRecord::decode(&entry.value).unwrap();
        let holder = Holder { task, slot, revision: entry.mod_revision };
        if until == HeldUntil::Begun {
            self.replaced += u64::from(self.commit(&txn::replace(&space, &def, &holder, &record)));
        }
    }

    /// Few fairness keys, so that they stand in each other's way.
    fn options(&self) -> TaskOptions {
        let key = match self.below(5) {
            0 => None,
            n => Some(FairnessKey::new(&format!("k{}", n % 3)).unwrap()),
        };
        let weight = if self.below(6) == 0 { 1 + self.below(3) as u32 } else { 1 };
        TaskOptions {
            key,
            weight: Weight::new(weight).unwrap(),
            priority: Priority::new(1 + self.below(9) as u8).unwrap(),
            ..TaskOptions::default()
        }
    }

    /// Few unique keys, so that they are fought over.
    fn unique(&self) -> Option<Unique> {
        let until = match self.below(4) {
            0 => HeldUntil::Ended,
            1 => HeldUntil::Begun,
            _ => return None,
        };
        Some(Unique { key: UniqueKey::of(until, &[self.below(4) as u8]), until })
    }

    /// What a settlement publishes: most often nothing.
    fn follow_ups(&self, record: &AssignmentRecord) -> Vec<FollowUp> {
        let many = if self.peace || self.below(5) > 0 { 0 } else { 1 + self.below(2) };
        let one = |_| FollowUp {
            definition: self.pick(&self.defs).unwrap(),
            task: self.dice.task_id(),
            record: TaskRecord { published: record.published, payload: Bytes::new(), ..records::task() },
        };
        (0..many).map(one).collect()
    }

    pub(crate) fn worker_comes(&mut self, def: &DefinitionId) {
        let id = WorkerId::for_session("pod", self.dice.bits64()).unwrap();
        let slots = if self.peace { 4 } else { 1 + self.below(4) as u32 };
        let record = WorkerRecord { slots, state: WorkerState::Active, sdk: "0".into(), version: None };
        self.write(&Key::Worker(def.clone(), id), record.encode());
    }

    pub(crate) fn worker_changes(&mut self) {
        let Some(key) = self.pick(&self.workers) else { return };
        let states = [WorkerState::Active, WorkerState::Draining, WorkerState::Cordoned];
        let record =
            WorkerRecord { slots: 2, state: self.pick(&states).unwrap(), sdk: "0".into(), version: None };
        self.write(&key, record.encode());
    }

    pub(crate) fn worker_dies(&mut self) {
        if let Some(key) = self.pick(&self.workers) {
            self.remove(&key);
        }
    }

    pub(crate) fn all_workers_leave(&mut self) {
        self.workers.clone().iter().for_each(|key| self.remove(key));
    }

    pub(crate) fn workers_of(&self, def: &DefinitionId) -> usize {
        self.workers.iter().filter(|key| key.definition() == Some(def)).count()
    }

    pub(crate) fn attempt_ends(&mut self) {
        let Some(at) = self.pick(&self.attempts) else { return };
        // A dead worker ends nothing.
        if !self.workers.contains(&Key::Worker(at.definition.clone(), at.worker.clone())) && !self.peace {
            return;
        }
        let record: AssignmentRecord = self.get(&at.key()).unwrap();
        let (space, mut tally) = (self.space.clone(), record.tally.clone());
        let task = (at.definition.clone(), at.task);
        let row = match self.below(10) {
            0 => {
                tally.attempts += 1;
                self.counts.entry(task).or_default().attempts += 1;
                tally.delay = Some(Delay::from_now(record.backoff.wait(tally.attempts, 7), self.now.wall));
                txn::give_back(&space, &at, &tally)
            }
            1 => {
                tally.hand_backs += 1;
                txn::give_back(&space, &at, &tally)
            }
            _ => {
                let next = self.follow_ups(&record);
                let outcome = records::succeeded(&at, &record);
                txn::settle_and_publish(&space, &at, record.ties(), &outcome, &next)
            }
        };
        assert!(self.commit(&row), "the fence of a standing assignment holds");
    }
}
