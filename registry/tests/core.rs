//! The deciding core alone, over long random histories, with the laws as the oracle.
//!
//! One thread, no clock, no backend: a table of keys, the moves of `txn`, the fold of
//! `view` and the plans of `plan`. Every step is judged: the plan against the view it was
//! made from, the table against the laws, and the folded view against one read afresh.

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_registry::backend::{Change, Changes, Compare, Entry, Is, Op, Revision};
use bellows_registry::check::{self, History};
use bellows_registry::clock::{self, Now};
use bellows_registry::entropy::Entropy;
use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::key::{Key, Keyspace};
use bellows_registry::plan::{self, Assumed, Fetch, Plan, Step, Written};
use bellows_registry::record::{
    Ask, AssignmentRecord, CheckpointRecord, Delay, Ended, HeldUntil, HolderRecord, OutcomeRecord,
    ParkedRecord, PolicyRecord, PolicyState, Progress, Record, RequestRecord, Tally, TaskOptions, TaskRecord,
    Unique, UniqueKey, WorkerRecord, WorkerState,
};
use bellows_registry::spec::{Mode, Policy};
use bellows_registry::testkit::records;
use bellows_registry::txn::{self, AttemptRef, FollowUp, Holder, Move};
use bellows_registry::view::View;
use bytes::Bytes;

struct Core {
    table: BTreeMap<Bytes, Entry>,
    revision: Revision,
    space: Keyspace,
    view: View,
    assumed: Assumed,
    now: Now,
    dice: Entropy,
    defs: Vec<DefinitionId>,
    disruptions: u64,
    /// Publishes that found their unique key held.
    held: u64,
    replaced: u64,
    history: History,
    /// Attempts that once were, to come back late.
    attempts: Vec<(AttemptRef, Tally)>,
    /// Checkpoints kept, and reports refused since they came late.
    reports: (u64, u64),
    /// Steps applied, by name.
    taken: BTreeMap<&'static str, u64>,
    /// Whether the world is quiet while a plan is carried out.
    peace: bool,
}

impl Core {
    fn new(seed: u64) -> Self {
        let space = Keyspace::default();
        let defs = ["a", "b"].map(|name| DefinitionId::new("ns", name).unwrap()).to_vec();
        let mut core = Self {
            table: BTreeMap::new(),
            revision: 0,
            view: View::new(space.clone()),
            history: History::new(space.clone()),
            attempts: Vec::new(),
            reports: (0, 0),
            space,
            assumed: Assumed::default(),
            now: clock::now(),
            dice: Entropy::seeded(seed),
            defs: defs.clone(),
            disruptions: 0,
            held: 0,
            replaced: 0,
            taken: BTreeMap::new(),
            peace: false,
        };
        for def in defs {
            core.policy(&def, Mode::Active);
        }
        core
    }

    fn below(&self, bound: u64) -> u64 {
        self.dice.bits64() % bound
    }

    fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        let len = from.len() as u64;
        (len > 0).then(|| from[self.below(len) as usize].clone())
    }

    fn policy(&mut self, def: &DefinitionId, mode: Mode) {
        let policy = Policy { mode, ..Policy::default() };
        let record = PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy };
        self.write(&Key::Policy(def.clone()), record.encode());
        self.write(&Key::Open(def.clone()), Bytes::from_static(b"bellows1 {\"uid\":\"u\"}\n"));
    }

    fn write(&mut self, key: &Key, value: Bytes) {
        let op =
            Op::Put { key: self.space.path(key), value, lease: bellows_registry::backend::PutLease::None };
        assert!(self.commit(&Move { then: vec![op], ..Move::default() }));
    }

    fn remove(&mut self, key: &Key) {
        let range = bellows_registry::key::KeyRange::one(self.space.path(key));
        self.commit(&Move { then: vec![Op::Delete(range)], ..Move::default() });
    }

    /// A move, carried out as a backend would: all compares, then all steps, one revision.
    fn commit(&mut self, row: &Move) -> bool {
        let holds = |c: &Compare| {
            let found = self.table.get(&c.key).map(|entry| entry.mod_revision);
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
        let (revision, mut changes) = (self.revision, Vec::new());
        for op in &row.then {
            match op {
                Op::Put { key, value, .. } => {
                    let created = self.table.get(key).map_or(revision, |entry| entry.create_revision);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: created,
                        mod_revision: revision,
                        lease: None,
                    };
                    self.table.insert(key.clone(), entry.clone());
                    changes.push(Change::Put(entry));
                }
                Op::Delete(range) => {
                    if self.table.remove(&range.start).is_some() {
                        changes.push(Change::Delete { key: range.start.clone(), revision });
                    }
                }
                other => panic!("no move has {other:?}"),
            }
        }
        self.history.take(&Changes { complete: revision, changes: changes.clone() });
        changes.retain(|change| !matches!(self.space.parse(change.key()), Ok(Key::Outcome(..))));
        self.view.apply(&Changes { complete: revision, changes }, &self.now);
        self.assumed.end_passed(revision, self.now.instant);
        true
    }

    fn keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let keys = self.table.keys().filter_map(|path| self.space.parse(path).ok());
        keys.filter(|key| wanted(key)).collect()
    }

    /// One random thing that publishers, workers, people or time may do.
    fn happen(&mut self) {
        let def = self.pick(&self.defs).unwrap();
        match self.below(100) {
            0..30 => self.publish(&def),
            30..36 => self.worker_comes(&def),
            36..40 => self.worker_changes(),
            40..46 => self.worker_dies(),
            46..70 => self.attempt_ends(),
            70..75 => self.attempt_reports(),
            75..80 => self.ask(),
            80..90 => self.pass(Duration::from_millis(self.below(4000))),
            90..92 => self.pass(Duration::from_secs(100)),
            92..94 => {
                let mode = self.pick(&[Mode::Active, Mode::Active, Mode::Hold, Mode::HoldAndDrain]).unwrap();
                self.policy(&def, mode);
            }
            _ => self.replay_view(),
        }
    }

    #[allow(clippy::needless_update, reason = "there will be more options")]
    fn publish(&mut self, def: &DefinitionId) {
        let wait = Duration::from_millis(self.below(3) * self.below(3000));
        let ttl = (self.below(4) == 0).then(|| Duration::from_millis(1 + self.below(9000)));
        let ttl = ttl.map(|ttl| Delay::from_now(wait + ttl, self.now.wall));
        let record = TaskRecord {
            delay: (!wait.is_zero()).then(|| Delay::from_now(wait, self.now.wall)),
            options: TaskOptions { ttl, unique: self.unique(), ..TaskOptions::default() },
            payload: Bytes::from(vec![b'x'; self.below(40) as usize]),
            ..records::task()
        };
        let (id, space) = (self.dice.task_id(), self.space.clone());
        if self.commit(&txn::publish(&space, def, id, &record)) {
            return;
        }
        let Some(Unique { key, until }) = record.options.unique else { return };
        let path = space.path(&Key::Unique(def.clone(), key.bytes()));
        let Some(entry) = self.table.get(&path) else { return };
        self.held += 1;
        let HolderRecord { task, slot } = HolderRecord::decode(&entry.value).unwrap();
        let holder = Holder { task, slot, revision: entry.mod_revision };
        if until == HeldUntil::Begun {
            self.replaced += u64::from(self.commit(&txn::replace(&space, def, &holder, &record)));
        }
    }

    /// Few keys, so that they are fought over.
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

    fn worker_comes(&mut self, def: &DefinitionId) {
        let id = WorkerId::for_session("pod", self.dice.bits64()).unwrap();
        let record = WorkerRecord {
            slots: 1 + self.below(4) as u32,
            state: WorkerState::Active,
            sdk: "0".into(),
            version: None,
        };
        self.write(&Key::Worker(def.clone(), id), record.encode());
    }

    fn worker_changes(&mut self) {
        let workers = self.keys(|key| matches!(key, Key::Worker(..)));
        let Some(key) = self.pick(&workers) else { return };
        let states = [WorkerState::Active, WorkerState::Draining, WorkerState::Cordoned];
        let record =
            WorkerRecord { slots: 2, state: self.pick(&states).unwrap(), sdk: "0".into(), version: None };
        self.write(&key, record.encode());
    }

    fn worker_dies(&mut self) {
        let workers = self.keys(|key| matches!(key, Key::Worker(..)));
        if let Some(key) = self.pick(&workers) {
            self.remove(&key);
        }
    }

    fn attempt_ends(&mut self) {
        let assignments = self.keys(|key| matches!(key, Key::Assignment(..)));
        let Some(Key::Assignment(definition, worker, task, attempt)) = self.pick(&assignments) else {
            return;
        };
        let at = AttemptRef { definition, worker, task, attempt };
        let entry = &self.table[&self.space.path(&at.key())];
        let record = AssignmentRecord::decode(&entry.value).unwrap();
        let (space, mut tally) = (self.space.clone(), record.tally.clone());
        let row = match self.below(10) {
            0 => {
                tally.attempts += 1;
                tally.delay = Some(Delay::from_now(record.backoff.wait(tally.attempts, 7), self.now.wall));
                txn::give_back(&space, &at, &tally)
            }
            1 => {
                tally.hand_backs += 1;
                txn::give_back(&space, &at, &tally)
            }
            2 => {
                let expires = Some(self.now.wall.plus(Duration::from_secs(self.below(300))));
                let task = self.task_of(&at);
                let parked = ParkedRecord { parked: self.now.wall, expires, tally, task };
                txn::park(
                    &space,
                    &at,
                    &parked,
                    &OutcomeRecord { ended: Ended::Parked, ..records::succeeded(&at, &record) },
                )
            }
            _ => {
                let next = self.follow_ups(&record);
                let outcome = records::succeeded(&at, &record);
                txn::settle_and_publish(&space, &at, record.ties(), &outcome, &next)
            }
        };
        self.commit(&row);
    }

    /// An attempt that stands, or one that once did, shows its progress or keeps a
    /// checkpoint. Neither gives the planner anything to do.
    fn attempt_reports(&mut self) {
        let standing = self.keys(|key| matches!(key, Key::Assignment(..)));
        if let Some(Key::Assignment(definition, worker, task, attempt)) = self.pick(&standing) {
            let at = AttemptRef { definition, worker, task, attempt };
            let record = AssignmentRecord::decode(&self.table[&self.space.path(&at.key())].value).unwrap();
            self.attempts.push((at, record.tally));
        }
        let Some((at, tally)) = self.pick(&self.attempts) else { return };
        let stands = self.table.contains_key(&self.space.path(&at.key()));
        self.assumed.end_passed(self.revision, self.now.instant);
        self.view.pass(&self.now);
        let before = plan::assign(&self.view, &self.assumed, &self.now);
        let (space, at_wall) = (self.space.clone(), self.now.wall);
        let row = if self.below(2) == 0 {
            let progress = Progress { attempt: tally.attempts + 1, at: at_wall, value: "7".into() };
            txn::progress(&space, &at, &Tally { progress: Some(progress), ..tally })
        } else {
            let kept = self.table.get(&space.path(&Key::Checkpoint(at.definition.clone(), at.task)));
            let seen = kept.map_or(0, |entry| entry.mod_revision);
            let number = tally.attempts + 1;
            let value = Bytes::from(vec![b'c'; self.below(40) as usize]);
            let record = CheckpointRecord { attempt: at.attempt, number, at: at_wall, value };
            txn::checkpoint(&space, &at, seen, &record)
        };
        assert_eq!(self.commit(&row), stands, "the fence is the assignment");
        self.reports.0 += u64::from(stands);
        self.reports.1 += u64::from(!stands);
        let after = plan::assign(&self.view, &self.assumed, &self.now);
        assert_eq!(after.steps, before.steps, "a report changes what is planned");
    }

    fn task_of(&self, at: &AttemptRef) -> TaskRecord {
        let path = self.space.path(&Key::Task(at.definition.clone(), at.task));
        TaskRecord::decode(&self.table[&path].value).unwrap()
    }

    /// Somebody asks something of a task, or of one that is gone.
    fn ask(&mut self) {
        let where_it_is = self.below(3);
        let known = self.keys(|key| match key {
            Key::Assignment(..) => where_it_is == 0,
            Key::Task(..) => where_it_is == 1,
            Key::Parked(..) => where_it_is == 2,
            _ => false,
        });
        let Some(Key::Assignment(def, _, task, _) | Key::Task(def, task) | Key::Parked(def, task)) =
            self.pick(&known)
        else {
            return;
        };
        let asks = if where_it_is == 2 { [Ask::Replay, Ask::Replay, Ask::Purge] } else { [Ask::Cancel; 3] };
        let ask = self.pick(&asks).unwrap();
        let record = RequestRecord { ask, asked: self.now.wall };
        let space = self.space.clone();
        if self.below(8) == 0 {
            self.write(&Key::Request(def, self.dice.task_id()), record.encode());
        } else {
            self.commit(&txn::ask(&space, &def, task, &record));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall = self.now.wall.plus(time);
    }

    /// The view folded until now must be the one that a list gives.
    fn replay_view(&mut self) {
        let entries: Vec<Entry> =
            self.table.values().filter(|e| self.space.assigner_range().contains(&e.key)).cloned().collect();
        let mut fresh = View::new(self.space.clone());
        fresh.replace(self.revision, &entries, &self.now);
        assert_eq!(self.facts(&self.view), self.facts(&fresh), "the fold went astray");
        if self.below(2) == 0 {
            self.view.replace(self.revision, &entries, &self.now);
        }
    }

    fn facts(&self, view: &View) -> Vec<String> {
        let of = |def: &DefinitionId| {
            view.definitions().get(def).map_or_else(String::new, |d| {
                let workers =
                    d.workers().keys().map(|w| format!("{w}:{}:{}", d.held_count(w), d.is_taken_alone(w)));
                format!(
                    "{} waiting, {} assigned, {} parked, {} dead, {} slots, {} requests, {}",
                    d.waiting_count(),
                    d.assigned_count(),
                    d.parked_count(),
                    d.dead_workers().count(),
                    d.slots(),
                    d.requests().count(),
                    workers.collect::<Vec<_>>().join(" ")
                )
            })
        };
        self.defs.iter().map(of).collect()
    }

    /// Plans, judges the plan, and carries out a part of it now, as an assigner does
    /// whose answers come late.
    fn plan(&mut self) {
        self.view.pass(&self.now);
        let plan = plan::assign(&self.view, &self.assumed, &self.now);
        let broken = check::plan(&self.view, &self.assumed, &plan, &self.now);
        assert_eq!(broken, [], "{plan:?}");
        for (def, step) in &plan.steps {
            self.assumed.sent(def, step);
        }
        let again = plan::assign(&self.view, &self.assumed, &self.now);
        assert_eq!(again.steps, [], "planning again gives something to do");
        self.carry_out(&plan);
    }

    fn carry_out(&mut self, plan: &Plan) {
        for (def, step) in &plan.steps {
            let space = self.space.clone();
            let written = plan::write(&space, &self.view, def, step, &self.dice, &self.now);
            let applied = match written {
                Some(Written::Move(row)) => self.commit(&row),
                Some(Written::Fetch(fetch)) => self.fetch(fetch),
                None => false,
            };
            let refused_until = self.now.instant;
            if applied {
                self.disruptions += u64::from(is_disruption(step));
                *self.taken.entry(name(step)).or_default() += 1;
                self.assumed.applied(def, step.task(), self.revision, self.now.instant);
            } else {
                self.assumed.refused(def, step.task(), self.revision, refused_until, refused_until);
            }
            if !self.peace && self.below(8) == 0 {
                self.happen(); // the world does not wait for a plan to be carried out
            }
        }
        self.assumed.end_passed(self.revision, self.now.instant);
    }

    fn fetch(&mut self, fetch: Fetch) -> bool {
        let path = self.space.path(&fetch.key());
        let Some(found) = self.table.get(&path).cloned() else { return false };
        let space = self.space.clone();
        fetch.with(&space, &found).is_some_and(|row| self.commit(&row))
    }

    fn judge(&self) {
        let entries: Vec<Entry> = self.table.values().cloned().collect();
        assert_eq!(check::registry(&self.space, &entries), []);
        assert_eq!(self.history.violations(), []);
    }
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Cancel { .. } => "cancel",
        Step::FlagCancel { .. } => "flag cancel",
        Step::DropRequest { .. } => "drop request",
        Step::Expire { .. } => "expire",
        Step::Replay { .. } => "replay",
        Step::Purge { .. } => "purge",
        _ => "other",
    }
}

fn is_disruption(step: &Step) -> bool {
    matches!(step, Step::Lost { .. } | Step::LostForGood { .. } | Step::TakeBack { .. })
}

#[tokio::test(start_paused = true)]
async fn no_random_history_breaks_a_law() {
    let (mut steps, mut disruptions, mut reports, mut taken) = (0u64, 0, (0, 0), BTreeMap::new());
    let (mut held, mut replaced) = (0, 0);
    for seed in 0..40 {
        let mut core = Core::new(seed);
        for step in 0..600 {
            core.happen();
            if step % 3 == 0 {
                core.plan();
            }
            if step % 50 == 0 {
                core.judge();
            }
            steps += 1;
        }
        disruptions += core.disruptions;
        held += core.held;
        replaced += core.replaced;
        reports = (reports.0 + core.reports.0, reports.1 + core.reports.1);
        for (name, times) in core.taken {
            *taken.entry(name).or_insert(0) += times;
        }
    }
    println!("{steps} steps, {disruptions} disruptions, {held} keys held, {replaced} replaced, {taken:?}");
    println!("{reports:?} reports taken and refused");
    assert!(held > 300 && replaced > 100, "unique keys are hardly fought over: {held}, {replaced}");
    assert!(reports.0 > 100 && reports.1 > 300, "the histories hardly report anything: {reports:?}");
    assert!(disruptions > 300, "the histories hardly disrupt anything: {disruptions}");
    for name in ["cancel", "flag cancel", "drop request", "expire", "replay", "purge"] {
        let times = taken.get(name).copied().unwrap_or(0);
        assert!(times > 50, "the histories have hardly any {name}: {taken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_left_in_peace_runs_empty() {
    for seed in 100..110 {
        let mut core = Core::new(seed);
        for _ in 0..400 {
            core.happen();
        }
        core.peace = true;
        for def in core.defs.clone() {
            core.policy(&def, Mode::Active);
        }
        // Workers that take nothing leave in the end.
        for worker in core.keys(|key| matches!(key, Key::Worker(..))) {
            core.remove(&worker);
        }
        let waiting = |core: &Core| core.keys(|key| matches!(key, Key::Task(..))).len();
        let mut rounds = 0;
        while waiting(&core) > 0 {
            rounds += 1;
            assert!(rounds < 5000, "seed {seed}: {} tasks never end", waiting(&core));
            for def in core.defs.clone() {
                if core.keys(|key| matches!(key, Key::Worker(d, _) if *d == def)).len() < 3 {
                    core.worker_comes(&def);
                }
            }
            core.pass(Duration::from_secs(30));
            core.plan();
            for _ in 0..8 {
                core.attempt_ends();
            }
        }
        core.plan();
        assert_eq!(core.keys(|key| matches!(key, Key::Request(..))), [], "seed {seed}: requests are left");
        core.judge();
    }
}
