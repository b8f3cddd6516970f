//! The book itself: changes in, facts out. No I/O; time is read once a change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellows_registry::backend::{Change, Changes, Entry, Revision};
use bellows_registry::clock::{self, Instant, Now};
use bellows_registry::id::{AttemptId, TaskId, WorkerId};
use bellows_registry::key::{Key, Keyspace};
use bellows_registry::record::{Ended, ErrorKind, LeaderRecord, OutcomeRecord, Record};

/// An assignment as it was seen.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// When.
    pub at: Now,
    /// By which revision.
    pub revision: Revision,
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: AttemptId,
    /// To whom.
    pub worker: WorkerId,
}

/// An assigner that began to lead, or raised its term.
#[derive(Debug, Clone)]
pub struct Leading {
    /// When.
    pub at: Now,
    /// Its term.
    pub term: Revision,
    /// Its name.
    pub identity: String,
}

/// A terminal record, and every revision that wrote it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The newest.
    pub record: OutcomeRecord,
    /// Law: one.
    pub revisions: BTreeSet<Revision>,
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Book {
    /// Up to where.
    pub revision: Revision,
    /// Every task ever published, and when that was seen.
    pub published: BTreeMap<TaskId, Now>,
    /// Every assignment ever made, in order.
    pub assigned: Vec<Assigned>,
    /// The assignments that stand.
    pub standing: BTreeMap<AttemptId, (TaskId, WorkerId)>,
    /// The tasks that wait or run.
    pub open: BTreeSet<TaskId>,
    /// The workers that are alive.
    pub workers: BTreeSet<WorkerId>,
    /// Every terminal record that stands.
    pub settled: BTreeMap<TaskId, Settled>,
    /// How many tasks were given up and began another life.
    pub replayed: usize,
    /// Every term.
    pub terms: Vec<Leading>,
}

impl Book {
    pub(super) fn listed(&mut self, space: &Keyspace, revision: Revision, entries: &[Entry]) {
        self.standing.clear();
        self.open.clear();
        self.workers.clear();
        let now = clock::now();
        entries.iter().for_each(|entry| self.put(space, entry, now));
        self.revision = revision;
    }

    pub(super) fn changed(&mut self, space: &Keyspace, changes: &Changes) {
        let now = clock::now();
        for change in &changes.changes {
            match change {
                Change::Put(entry) => self.put(space, entry, now),
                Change::Delete { key, .. } => self.delete(space, key),
            }
        }
        self.revision = changes.complete;
    }

    fn put(&mut self, space: &Keyspace, entry: &Entry, now: Now) {
        let Ok(key) = space.parse(&entry.key) else { return };
        match key {
            Key::Task(_, task) => {
                self.published.entry(task).or_insert(now);
                // Nothing but a replay puts a task that has ended; its record goes with it.
                self.replayed += usize::from(self.settled.remove(&task).is_some());
                self.open.insert(task);
            }
            Key::Assignment(_, worker, task, attempt) => {
                if !self.assigned.iter().any(|a| a.attempt == attempt) {
                    let revision = entry.create_revision;
                    let worker = worker.clone();
                    self.assigned.push(Assigned { at: now, revision, task, attempt, worker });
                }
                self.standing.insert(attempt, (task, worker));
            }
            Key::Worker(_, worker) => {
                self.workers.insert(worker);
            }
            Key::Outcome(_, _, task) => {
                let Ok(record) = OutcomeRecord::decode(&entry.value) else { return };
                let settled = self
                    .settled
                    .entry(task)
                    .or_insert_with(|| Settled { record: record.clone(), revisions: BTreeSet::new() });
                settled.record = record;
                settled.revisions.insert(entry.mod_revision);
            }
            Key::Leader(_) => {
                let Ok(record) = LeaderRecord::decode(&entry.value) else { return };
                self.terms.push(Leading { at: now, term: entry.mod_revision, identity: record.identity });
            }
            _ => {}
        }
    }

    fn delete(&mut self, space: &Keyspace, path: &[u8]) {
        match space.parse(path) {
            Ok(Key::Task(_, task)) => drop(self.open.remove(&task)),
            Ok(Key::Assignment(_, _, _, attempt)) => drop(self.standing.remove(&attempt)),
            Ok(Key::Worker(_, worker)) => drop(self.workers.remove(&worker)),
            _ => {}
        }
    }

    /// The time from the first publish after `began` to the one that made it so many, as they
    /// were seen. `None` if there are not so many.
    pub fn time_to_publish(&self, count: usize, began: Instant) -> Option<Duration> {
        let all = self.published.values().map(|now| now.instant);
        let mut seen: Vec<Instant> = all.filter(|at| *at >= began).collect();
        seen.sort_unstable();
        Some(*seen.get(count.checked_sub(1)?)? - *seen.first()?)
    }

    /// How many of these tasks have a terminal record.
    pub fn settled_of(&self, tasks: &BTreeSet<TaskId>) -> usize {
        tasks.iter().filter(|task| self.settled.contains_key(task)).count()
    }

    /// How many tasks ended so.
    pub fn ended(&self, how: Ended) -> usize {
        self.settled.values().filter(|s| s.record.ended == how).count()
    }

    /// Tasks with more than one terminal record.
    pub fn settled_twice(&self) -> usize {
        self.settled.values().filter(|s| s.revisions.len() > 1).count()
    }

    /// Tasks that were published, are not there any more, and have no terminal record.
    pub fn lost(&self) -> usize {
        let gone = |task: &&TaskId| !self.settled.contains_key(task) && !self.open.contains(task);
        self.published.keys().filter(gone).count()
    }

    /// Attempts counted against a task although it did not fail in them.
    pub fn charged_to_infrastructure(&self) -> usize {
        self.settled.values().map(|settled| charged(&settled.record)).sum()
    }

    /// The state in a line, for people.
    pub fn summary(&self) -> String {
        format!(
            "{} tasks published, {} open, {} assigned, {} settled, {} workers alive",
            self.published.len(),
            self.open.len(),
            self.standing.len(),
            self.settled.len(),
            self.workers.len()
        )
    }
}

fn charged(record: &OutcomeRecord) -> usize {
    let before = record.attempt.saturating_sub(1);
    let real = |e: &&bellows_registry::record::AttemptError| {
        e.kind != ErrorKind::WorkerLost && e.attempt < record.attempt
    };
    (before as usize).saturating_sub(record.tally.errors.iter().filter(real).count())
}

#[cfg(test)]
mod tests;
