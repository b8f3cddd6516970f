//! What publishers do, and what a definition's owner says of it.

use std::time::Duration;

use bellows_registry::id::DefinitionId;
use bellows_registry::key::Key;
use bellows_registry::record::{
    AssignmentRecord, Delay, FairnessKey, HeldUntil, HolderRecord, OpenRecord, PolicyRecord, PolicyState,
    Priority, Record, TaskOptions, TaskRecord, Unique, UniqueKey, Weight,
};
use bellows_registry::spec::{ConcurrencyLimit, Execution, Mode, Policy, RateLimit, Span};
use bellows_registry::testkit::records;
use bellows_registry::txn::{self, FollowUp, Holder};
use bytes::Bytes;

use crate::table::Table;

impl Table {
    /// One of these, or none: as often.
    fn maybe(&self, from: &[u32]) -> Option<u32> {
        (self.below(2) == 0).then(|| self.pick(from)).flatten()
    }

    /// A policy with limits that bite. What is drained takes no tasks.
    pub(crate) fn policy(&mut self, def: &DefinitionId, mode: Mode) {
        let policy = Policy { mode, execution: self.execution(), ..Policy::default() };
        policy.check().unwrap();
        let record = PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy };
        self.write(&Key::Policy(def.clone()), record.encode());
        let (space, policy) = (self.space.clone(), self.revision);
        let row = if mode == Mode::HoldAndDrain {
            txn::close_definition(&space, def, policy)
        } else {
            txn::open_definition(&space, def, policy, &OpenRecord { uid: "u".into() })
        };
        assert!(self.commit(&row));
    }

    fn execution(&self) -> Execution {
        let (total, per_key) = (self.maybe(&[1, 2, 5]), self.maybe(&[1, 2, 3]));
        let (tasks, of_key) = (self.maybe(&[1, 2, 4, 6]), self.maybe(&[1, 2, 3]));
        let per = Span::secs(1 + self.below(12));
        let rate_limit = tasks.or(of_key).filter(|_| self.below(3) == 0);
        let key_shares = self.maybe(&[2, 3]).map(|share| ("k0".to_owned(), share));
        Execution {
            concurrency_limit: total.or(per_key).map(|_| ConcurrencyLimit { total, per_key }),
            rate_limit: rate_limit.map(|_| RateLimit { tasks, per_key: of_key, per }),
            key_shares: key_shares.into_iter().collect(),
            max_disruptions: 1 + u32::from(self.below(4) == 0),
            ..Execution::default()
        }
    }

    pub(crate) fn is_open(&self, def: &DefinitionId) -> bool {
        self.has(&Key::Open(def.clone()))
    }

    pub(crate) fn publish(&mut self) {
        let (def, space) = (self.pick(&self.defs).unwrap(), self.space.clone());
        let (id, record) = (self.dice.task_id(), self.task());
        let unique = record.options.key_while_waiting().map(|key| Key::Unique(def.clone(), key.bytes()));
        let (open, held) = (self.is_open(&def), unique.as_ref().is_some_and(|key| self.has(key)));
        let taken = self.once(&txn::publish(&space, &def, id, &record));
        assert_eq!(taken, open && !held, "whether it is taken is for the definition and its unique key");
        if !open {
            self.seen.note("publishes refused");
        }
        if let Some(unique) = unique.filter(|_| held) {
            self.meets_its_like(&def, &unique, &record);
        }
    }

    fn task(&self) -> TaskRecord {
        let wait = Duration::from_millis(self.below(3) * self.below(3000));
        let ttl = (self.below(5) == 0).then(|| Duration::from_millis(1 + self.below(20_000)));
        let ttl = ttl.map(|ttl| Delay::from_now(wait + ttl, self.now.wall));
        TaskRecord {
            delay: (!wait.is_zero()).then(|| Delay::from_now(wait, self.now.wall)),
            options: TaskOptions { ttl, unique: self.unique(), ..self.options() },
            payload: Bytes::from(vec![b'x'; self.below(40) as usize]),
            ..records::task()
        }
    }

    /// Its unique key is held: it takes the place of what has not begun.
    fn meets_its_like(&mut self, def: &DefinitionId, unique: &Key, record: &TaskRecord) {
        self.seen.note("keys held");
        if record.options.key_until_begun().is_none() {
            return;
        }
        let (space, entry) = (self.space.clone(), self.entry(unique).unwrap());
        let HolderRecord { task, slot } = HolderRecord::decode(&entry.value).unwrap();
        let holder = Holder { task, slot, revision: entry.mod_revision };
        let taken = self.once(&txn::replace(&space, def, &holder, record));
        assert_eq!(taken, self.is_open(def), "who holds such a key waits");
        if taken {
            self.seen.note("replaced");
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
    pub(crate) fn follow_ups(&self, record: &AssignmentRecord) -> Vec<FollowUp> {
        let many = if self.peace || self.below(5) > 0 { 0 } else { 1 + self.below(2) };
        let one = |_| FollowUp {
            definition: self.pick(&self.defs).unwrap(),
            task: self.dice.task_id(),
            record: TaskRecord { published: record.published, payload: Bytes::new(), ..records::task() },
        };
        (0..many).map(one).collect()
    }
}
