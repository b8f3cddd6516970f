//! The registry as a table of keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bellows_registry::backend::{Change, Changes, Compare, Entry, Is, Op, PutLease, Revision};
use bellows_registry::check::{self, History, Limits};
use bellows_registry::clock::{self, Now};
use bellows_registry::entropy::Entropy;
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::Record;
use bellows_registry::spec::Mode;
use bellows_registry::txn::{AttemptRef, Move};
use bytes::Bytes;

use crate::again::Done;
use crate::attempts::Attempt;
use crate::counts::Count;
use crate::seen::Seen;

pub(crate) struct Table {
    entries: BTreeMap<Bytes, Entry>,
    pub(crate) revision: Revision,
    pub(crate) space: Keyspace,
    pub(crate) now: Now,
    pub(crate) dice: Entropy,
    pub(crate) defs: Vec<DefinitionId>,
    pub(crate) standing: Vec<AttemptRef>,
    pub(crate) workers: Vec<Key>,
    /// Attempts of late, whether they stand or not.
    pub(crate) attempts: VecDeque<Attempt>,
    /// Moves of late, each of which is to be made once.
    pub(crate) done: VecDeque<Done>,
    pub(crate) counts: HashMap<(DefinitionId, TaskId), Count>,
    /// What the watch has not told yet.
    pub(crate) news: VecDeque<Changes>,
    limits: Limits,
    history: History,
    pub(crate) peace: bool,
    pub(crate) seen: Seen,
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
            standing: Vec::new(),
            workers: Vec::new(),
            attempts: VecDeque::new(),
            done: VecDeque::new(),
            counts: HashMap::new(),
            news: VecDeque::new(),
            limits: Limits::new(space.clone()),
            history: History::new(space.clone()),
            space,
            peace: false,
            seen: Seen::default(),
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

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall = self.now.wall.plus(time);
    }

    pub(crate) fn write(&mut self, key: &Key, value: Bytes) {
        let op = Op::Put { key: self.space.path(key), value, lease: PutLease::None };
        assert!(self.commit(&Move { then: vec![op], ..Move::default() }));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        let range = KeyRange::one(self.space.path(key));
        self.commit(&Move { then: vec![Op::Delete(range)], ..Move::default() });
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(&self.space.path(key))
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
                    self.begins(AttemptRef { definition, worker, task, attempt }, value);
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
            Key::Assignment(_, _, _, gone) => self.standing.retain(|at| at.attempt != gone),
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
        assert_eq!(self.limits.given(), self.seen.times("given"));
        assert_eq!(self.history.violations(), []);
        assert_eq!(self.history.lost(), []);
    }
}
