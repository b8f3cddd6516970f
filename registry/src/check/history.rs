//! A history: every change of the registry, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Keys, Violation};
use crate::backend::{Change, Changes, Entry};
use crate::id::{DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{CheckpointRecord, HolderRecord, OutcomeRecord, Record, Tally, TaskRecord};

type Task = (DefinitionId, TaskId);

/// Follows the whole registry and remembers what laws were broken on the way.
#[derive(Debug)]
pub struct History {
    space: Keyspace,
    tasks: BTreeMap<Task, Keys>,
    /// Tasks that ended, and how many terminal records each has had: one a life.
    settled: BTreeMap<Task, u32>,
    created: BTreeSet<Task>,
    /// Unique keys and their holders.
    holders: BTreeMap<(DefinitionId, [u8; 32]), TaskId>,
    /// How often each task was replayed: each time it may end once more.
    replays: BTreeMap<Task, u32>,
    violations: Vec<Violation>,
}

impl History {
    /// A history that begins with an empty registry.
    pub fn new(space: Keyspace) -> Self {
        Self {
            space,
            tasks: BTreeMap::new(),
            settled: BTreeMap::new(),
            created: BTreeSet::new(),
            holders: BTreeMap::new(),
            replays: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// The laws broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Tasks that ended, with how many terminal records each has had.
    pub fn settled(&self) -> &BTreeMap<Task, u32> {
        &self.settled
    }

    /// Tasks ever created.
    pub fn created(&self) -> &BTreeSet<Task> {
        &self.created
    }

    /// Tasks that were created and neither ended nor are still there: lost.
    pub fn lost(&self) -> Vec<Task> {
        let alive = |task: &Task| self.tasks.get(task).is_some_and(|keys| keys.task || keys.parked);
        let gone = self.created.iter().filter(|task| !self.settled.contains_key(*task) && !alive(task));
        gone.cloned().collect()
    }

    /// Takes in whole revisions. The changes of one revision are judged together.
    pub fn take(&mut self, changes: &Changes) {
        let mut rest = &changes.changes[..];
        while let Some(first) = rest.first() {
            let revision = first.revision();
            let end = rest.iter().position(|c| c.revision() != revision).unwrap_or(rest.len());
            let (now, later) = rest.split_at(end);
            self.note_replays(now);
            let touched: BTreeSet<Task> = now.iter().filter_map(|change| self.change(change)).collect();
            for task in touched {
                self.judge(&task, revision);
            }
            rest = later;
        }
    }

    /// A parked task that waits again in the same revision begins its next life.
    fn note_replays(&mut self, now: &[Change]) {
        let space = self.space.clone();
        let parsed = |change: &Change| space.parse(change.key()).ok();
        let mut unparked = BTreeSet::new();
        for change in now.iter().filter(|change| matches!(change, Change::Delete { .. })) {
            if let Some(Key::Parked(def, task)) = parsed(change) {
                unparked.insert((def, task));
            }
        }
        for change in now.iter().filter(|change| matches!(change, Change::Put(_))) {
            if let Some(Key::Task(def, task)) = parsed(change)
                && unparked.contains(&(def.clone(), task))
            {
                *self.replays.entry((def, task)).or_default() += 1;
            }
        }
    }

    fn replays(&self, task: &Task) -> u32 {
        self.replays.get(task).copied().unwrap_or(0)
    }

    fn violation(&mut self, law: u8, task: &Task, what: impl Into<String>) {
        self.violations.push(Violation { law, task: Some(task.clone()), what: what.into() });
    }

    fn judge(&mut self, task: &Task, revision: i64) {
        let wrong = self.tasks.get(task).and_then(Keys::wrong);
        if let Some((law, what)) = wrong {
            self.violation(law, task, format!("{what}, at revision {revision}"));
        }
    }

    fn change(&mut self, change: &Change) -> Option<Task> {
        let key = self.space.parse(change.key()).ok()?;
        let task = match &key {
            Key::Task(def, task)
            | Key::Tally(def, task)
            | Key::Checkpoint(def, task)
            | Key::Parked(def, task)
            | Key::Assignment(def, _, task, _)
            | Key::Outcome(def, _, task) => (def.clone(), *task),
            Key::Unique(def, digest) => {
                self.held((def.clone(), *digest), change);
                return None;
            }
            _ => return None,
        };
        match change {
            Change::Put(entry) => self.put(&key, &task, entry),
            Change::Delete { .. } => self.delete(&key, &task),
        }
        Some(task)
    }

    /// A unique key passes from one task to another only by being let go of (law 22).
    fn held(&mut self, key: (DefinitionId, [u8; 32]), change: &Change) {
        let Change::Put(entry) = change else {
            self.holders.remove(&key);
            return;
        };
        let Ok(holder) = HolderRecord::decode(&entry.value) else { return };
        let def = key.0.clone();
        let before = self.holders.insert(key, holder.task);
        if before.is_some_and(|before| before != holder.task) {
            self.violation(22, &(def, holder.task), "it took a unique key that another task held");
        }
    }

    fn put(&mut self, key: &Key, task: &Task, entry: &Entry) {
        if entry.lease.is_some() {
            self.violation(8, task, format!("{key:?} hangs on a lease"));
        }
        let replays = self.replays(task);
        let keys = self.tasks.entry(task.clone()).or_default();
        match key {
            Key::Task(..) => {
                let was = std::mem::replace(&mut keys.task, true);
                self.created.insert(task.clone());
                let begun = keys.tally || !keys.assignments.is_empty();
                if was && (begun || !may_be_replaced(entry)) {
                    self.violation(9, task, "a task was written twice");
                } else if self.settled.get(task).is_some_and(|times| *times > self.replays(task)) {
                    self.violation(9, task, "a finished task was revived");
                }
            }
            Key::Tally(..) => {
                keys.tally = true;
                let shown = Tally::decode(&entry.value).is_ok_and(|tally| tally.progress.is_some());
                if shown && keys.assignments.is_empty() {
                    self.violation(2, task, "progress of a task that nobody holds");
                }
            }
            Key::Checkpoint(..) => {
                keys.checkpoint = true;
                let by = CheckpointRecord::decode(&entry.value).map(|record| record.attempt);
                let holds = |key: &Key| matches!((key, &by), (Key::Assignment(.., id), Ok(by)) if id == by);
                if !keys.assignments.iter().any(holds) {
                    self.violation(2, task, "a checkpoint of an attempt that does not hold the task");
                }
            }
            Key::Parked(..) => keys.parked = true,
            Key::Assignment(..) if !keys.assignments.contains(key) => keys.assignments.push(key.clone()),
            Key::Outcome(..) => {
                keys.outcome = Some(OutcomeRecord::decode(&entry.value).ok().map(|record| record.ended));
                let times = self.settled.entry(task.clone()).or_default();
                *times += 1;
                if *times > 1 + replays {
                    self.violation(3, task, "a task was settled twice");
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &Key, task: &Task) {
        let Some(keys) = self.tasks.get_mut(task) else { return };
        match key {
            Key::Task(..) => keys.task = false,
            Key::Tally(..) => keys.tally = false,
            Key::Checkpoint(..) => keys.checkpoint = false,
            Key::Parked(..) => keys.parked = false,
            Key::Assignment(..) => keys.assignments.retain(|standing| standing != key),
            Key::Outcome(..) => keys.outcome = None,
            _ => {}
        }
        if *keys == Keys::default() {
            self.tasks.remove(task);
        }
    }
}

/// Whether a task may be written again until it has begun.
fn may_be_replaced(entry: &Entry) -> bool {
    TaskRecord::decode(&entry.value).is_ok_and(|record| record.options.key_until_begun().is_some())
}
