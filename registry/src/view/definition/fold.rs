//! One change of the registry, taken into a definition's part of the view.

use std::time::Duration;

use super::super::task::{Assigned, Known, KnownTally, Task};
use super::{Definition, WorkerView};
use crate::backend::{Entry, Revision};
use crate::clock::{self, Now};
use crate::key::Key;
use crate::record::{
    AssignmentRecord, DecodeError, Isolation, PolicyRecord, Record, Seen, Tally, TaskRecord, WorkerRecord,
    WorkerState, limits,
};
use crate::spec::Execution;

/// How an entry came, and how many payload bytes may still be kept.
#[derive(Clone, Copy)]
pub(in crate::view) struct Reading<'a> {
    pub(in crate::view) seen: Seen,
    pub(in crate::view) now: &'a Now,
    pub(in crate::view) room: usize,
}

/// What a worker is allowed beyond a time-out before its task is taken back: the
/// handler's grace, and the time in which a dead worker would have been noticed.
const TAKE_BACK_GRACE: Duration = Duration::from_secs(60);

impl Definition {
    pub(in crate::view) fn put(
        &mut self,
        key: &Key,
        entry: &Entry,
        at: Reading<'_>,
    ) -> Result<(), DecodeError> {
        self.pass(at.now.instant);
        match key {
            Key::Policy(_) => {
                let record = PolicyRecord::decode(&entry.value)?;
                self.lanes.follow(&record.policy.execution);
                self.policy = Some(record);
            }
            Key::Open(_) => self.open = true,
            Key::Parked(_, id) => self.aside.put_parked(*id, entry, at.now)?,
            Key::Request(_, id) => self.aside.put_request(*id, entry)?,
            Key::Worker(_, worker) => {
                let (record, read) = told_apart(WorkerRecord::decode(&entry.value));
                // It lives, whatever it says; it is given nothing.
                let record = record.unwrap_or_else(|| WorkerRecord {
                    slots: 0,
                    state: WorkerState::Draining,
                    sdk: String::new(),
                    version: None,
                });
                let view = WorkerView { revision: entry.mod_revision, record };
                self.workers.insert(worker.clone(), view);
                read?;
            }
            Key::Task(_, id) => {
                let (record, read) = told_apart(TaskRecord::decode(&entry.value));
                self.change(*id, |task| task.learn(record, entry.mod_revision, at));
                read?;
            }
            Key::Tally(_, id) => {
                let (tally, read) = told_apart(Tally::decode(&entry.value));
                self.change(*id, |task| task.learn_tally(tally, entry.mod_revision, at));
                read?;
            }
            Key::Checkpoint(_, id) => self.change(*id, |task| task.checkpoint = true),
            Key::Assignment(_, worker, id, attempt) => {
                let (record, read) = told_apart(AssignmentRecord::decode(&entry.value));
                let bound = record.as_ref().map(|record| record.timeout.get() + TAKE_BACK_GRACE);
                let assigned = Assigned {
                    worker: worker.clone(),
                    attempt: *attempt,
                    isolation: record.as_ref().map_or(Isolation::Shared, |record| record.isolation),
                    cancel: record.as_ref().is_some_and(|record| record.cancel),
                    overdue: at.now.instant + bound.unwrap_or(clock::FAR),
                    since: at.now.instant,
                    readable: record.is_some(),
                    options: record.map(|record| record.options).unwrap_or_default(),
                };
                self.change(*id, |task| task.learn_assignment(assigned));
                self.last_given = self.last_given.max(entry.mod_revision);
                read?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(in crate::view) fn remove(&mut self, key: &Key) {
        match key {
            Key::Policy(_) => {
                self.policy = None;
                self.lanes.follow(&Execution::default());
            }
            Key::Open(_) => self.open = false,
            Key::Parked(_, id) => self.aside.remove_parked(*id),
            Key::Request(_, id) => self.aside.remove_request(*id),
            Key::Worker(_, worker) => {
                self.workers.remove(worker);
            }
            Key::Task(_, id) => self.change(*id, |task| task.record = None),
            Key::Tally(_, id) => self.change(*id, |task| task.tally = None),
            Key::Checkpoint(_, id) => self.change(*id, |task| task.checkpoint = false),
            Key::Assignment(_, worker, id, attempt) => self.change(*id, |task| {
                // Only this attempt: a newer one may already stand in its place.
                let same = |a: &Assigned| a.worker == *worker && a.attempt == *attempt;
                if task.assignment.as_ref().is_some_and(same) {
                    task.assignment = None;
                }
            }),
            _ => {}
        }
    }
}

/// What was read, and what to say of what was not: the key is known either way.
fn told_apart<T>(read: Result<T, DecodeError>) -> (Option<T>, Result<(), DecodeError>) {
    match read {
        Ok(record) => (Some(record), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

impl Task {
    fn learn(&mut self, record: Option<TaskRecord>, revision: Revision, at: Reading<'_>) {
        let Some(record) = record else {
            self.record = None; // nothing is known of it that could be planned
            return;
        };
        if self.record.as_ref().is_some_and(|known| known.revision == revision) {
            return; // known already, perhaps seen live: its due time stays
        }
        let due = record.delay.map_or(at.now.instant, |delay| delay.due(at.seen, at.now));
        let keep = record.payload.len() <= limits::INLINE.min(at.room);
        // A slice of the received buffer would keep all of it alive.
        let payload = keep.then(|| bytes::Bytes::copy_from_slice(&record.payload));
        let TaskRecord { published, slot, headers, options, .. } = record;
        let expires = options.ttl.map(|ttl| ttl.due(at.seen, at.now));
        self.record = Some(Known { revision, due, expires, published, slot, headers, options, payload });
    }

    fn learn_tally(&mut self, mut tally: Option<Tally>, revision: Revision, at: Reading<'_>) {
        if self.tally.as_ref().is_some_and(|known| known.revision == revision) {
            return;
        }
        if let Some(tally) = &mut tally {
            // For those who watch the task: nothing here is decided by it.
            tally.progress = None;
        }
        let delay = tally.as_ref().and_then(|tally| tally.delay);
        let due = delay.map(|delay| delay.due(at.seen, at.now));
        self.tally = Some(KnownTally { revision, due, tally: tally.map(Box::new) });
    }

    fn learn_assignment(&mut self, assigned: Assigned) {
        match &mut self.assignment {
            // The same attempt written again, with a cancel flag: its clock runs on.
            Some(known) if known.attempt == assigned.attempt && known.readable && assigned.readable => {
                (known.isolation, known.cancel) = (assigned.isolation, assigned.cancel);
            }
            other => *other = Some(assigned),
        }
    }
}
