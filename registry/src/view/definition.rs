//! One definition's part of the view: its policy, queue, workers and assignments.

mod fold;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use tokio::time::Instant;

use super::aside::{Aside, Parked, Request};
use super::lanes::Lanes;
use super::task::{QueueKey, Task};
use crate::backend::Revision;
use crate::id::{DefinitionId, TaskId, WorkerId};
use crate::key::Key;
use crate::record::{Isolation, PolicyRecord, WorkerRecord};

pub(super) use fold::Reading;

/// A living worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// The key's mod-revision: the assigner's fence against a cordon it has not seen.
    pub revision: Revision,
    /// What the worker says of itself.
    pub record: WorkerRecord,
}

/// What a definition's tasks have been given to one worker, alive or not.
#[derive(Debug, Default)]
struct Held {
    tasks: BTreeSet<TaskId>,
    slots: usize,
    alone: usize,
}

/// Where a waiting task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere yet: it is not due.
    Later,
    /// In its lane.
    Lane,
    /// Nowhere any more: it was due, and has expired.
    Out,
}

/// One definition.
#[derive(Debug, Default)]
pub struct Definition {
    policy: Option<PolicyRecord>,
    open: bool,
    tasks: HashMap<TaskId, Task>,
    /// Tasks that exist and are nobody's, by their due time.
    queue: BTreeSet<QueueKey>,
    /// Those of them that were due at `passed`.
    lanes: Lanes,
    passed: Option<Instant>,
    /// How many of the tasks that were due at `passed` had expired by then: in no lane.
    out: usize,
    workers: BTreeMap<WorkerId, WorkerView>,
    held: BTreeMap<WorkerId, Held>,
    /// Assignments by the time they are taken back.
    overdue: BTreeSet<(Instant, TaskId)>,
    /// Waiting tasks by the time they expire, those that do.
    expiring: BTreeSet<(Instant, TaskId)>,
    aside: Aside,
    assigned_slots: usize,
    /// The revision of the newest assignment.
    last_given: Revision,
    payload_bytes: usize,
}

impl Definition {
    /// The policy, if the definition was ever applied.
    pub fn policy(&self) -> Option<&PolicyRecord> {
        self.policy.as_ref()
    }

    /// Whether tasks are accepted.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A task, if anything is known of it.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub(super) fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// Everything known of tasks, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }

    /// The tasks that are due, by whose turn it is. See [`View::pass`](super::View::pass).
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The revision at which a task was last given out; 0 if none was seen to be.
    pub fn last_given(&self) -> Revision {
        self.last_given
    }

    /// How many tasks are waiting and due, without those that have expired.
    pub fn due_count(&self) -> usize {
        self.lanes.due()
    }

    /// How many tasks wait for their time.
    pub fn delayed_count(&self) -> usize {
        self.queue.len() - self.lanes.due() - self.out
    }

    /// How many tasks are waiting, due or not, expired or not.
    pub fn waiting_count(&self) -> usize {
        self.queue.len()
    }

    /// The first moment after `now` at which a waiting task becomes due.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let after = QueueKey { due: now, revision: Revision::MAX, id: TaskId::from_bits(u128::MAX) };
        self.queue.range(after..).next().map(|key| key.due)
    }

    /// When the task at the head of the queue became due.
    pub fn oldest_due(&self) -> Option<Instant> {
        self.queue.first().map(|key| key.due)
    }

    /// The living workers.
    pub fn workers(&self) -> &BTreeMap<WorkerId, WorkerView> {
        &self.workers
    }

    /// The tasks given to a worker, alive or not.
    pub fn held_by(&self, worker: &WorkerId) -> impl Iterator<Item = TaskId> {
        self.held.get(worker).into_iter().flat_map(|held| held.tasks.iter().copied())
    }

    /// How many tasks a worker has.
    pub fn held_count(&self, worker: &WorkerId) -> usize {
        self.held.get(worker).map_or(0, |held| held.tasks.len())
    }

    /// How many of a worker's slots are taken.
    pub fn held_slots(&self, worker: &WorkerId) -> usize {
        self.held.get(worker).map_or(0, |held| held.slots)
    }

    /// How many slots the assigned tasks take together.
    pub fn assigned_slots(&self) -> usize {
        self.assigned_slots
    }

    /// Whether a worker has a task that is to be its only one.
    pub fn is_taken_alone(&self, worker: &WorkerId) -> bool {
        self.held.get(worker).is_some_and(|held| held.alone > 0)
    }

    /// Workers that have tasks and no live key: dead.
    pub fn dead_workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.held.keys().filter(|worker| !self.workers.contains_key(*worker))
    }

    /// Tasks that were assigned longer than any attempt may take.
    pub fn overdue(&self, now: Instant) -> impl Iterator<Item = TaskId> {
        self.overdue.iter().take_while(move |(at, _)| *at <= now).map(|(_, task)| *task)
    }

    /// When the next assignment is to be taken back.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.overdue.first().map(|(at, _)| *at)
    }

    /// How many tasks are assigned.
    pub fn assigned_count(&self) -> usize {
        self.overdue.len()
    }

    /// How many tasks are parked.
    pub fn parked_count(&self) -> usize {
        self.aside.parked_count()
    }

    /// The standing requests, in the order of tasks.
    pub fn requests(&self) -> impl Iterator<Item = (TaskId, Request)> {
        self.aside.requests()
    }

    /// What is asked of a task.
    pub fn request(&self, task: TaskId) -> Option<Request> {
        self.aside.request(task)
    }

    /// A parked task, if it can be read.
    pub fn parked(&self, task: TaskId) -> Option<Parked> {
        self.aside.parked(task)
    }

    /// Waiting tasks that have waited longer than they may.
    pub fn expired(&self, now: Instant) -> impl Iterator<Item = TaskId> {
        self.expiring.iter().take_while(move |(at, _)| *at <= now).map(|(_, task)| *task)
    }

    /// Parked tasks that are past their retention.
    pub fn expired_parked(&self, now: Instant) -> impl Iterator<Item = TaskId> {
        self.aside.expired(now)
    }

    /// The first moment after `now` at which a waiting or a parked task expires.
    pub fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let after = (now, TaskId::from_bits(u128::MAX));
        let waiting = self.expiring.range(after..).next().map(|(at, _)| *at);
        waiting.into_iter().chain(self.aside.next_expiry(now)).min()
    }

    /// The slots of all living workers, whether they take tasks or not.
    pub fn slots(&self) -> usize {
        self.workers.values().map(|worker| worker.record.slots as usize).sum()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.policy.is_none()
            && !self.open
            && self.tasks.is_empty()
            && self.workers.is_empty()
            && self.aside.is_empty()
    }

    /// Changes what is known of a task, and keeps every index true.
    fn change(&mut self, id: TaskId, with: impl FnOnce(&mut Task)) {
        let mut task = self.tasks.remove(&id).unwrap_or_default();
        let before = task.lane();
        self.unindex(id, &mut task);
        with(&mut task);
        let after = task.lane();
        if !task.is_empty() {
            self.index(id, &mut task);
            self.tasks.insert(id, task);
        }
        // Only now: a lane that was empty for a moment keeps its turn.
        self.lanes.settle(&after);
        if before != after {
            self.lanes.settle(&before);
        }
    }

    fn unindex(&mut self, id: TaskId, task: &mut Task) {
        self.payload_bytes -= task.payload_bytes();
        let lane = task.lane();
        if let Some(key) = task.queued.take() {
            self.queue.remove(&key);
            match self.place(task, key) {
                Place::Later => {}
                Place::Lane => self.lanes.remove(&lane, task.class(), &task.rank(key)),
                Place::Out => self.out -= 1,
            }
        }
        if let Some(at) = task.expires_waiting() {
            self.expiring.remove(&(at, id));
        }
        if let Some(assigned) = &task.assignment {
            self.overdue.remove(&(assigned.overdue, id));
            let slots = task.class().weight.slots();
            self.assigned_slots -= slots;
            self.lanes.release(&lane);
            if let Some(held) = self.held.get_mut(&assigned.worker) {
                held.tasks.remove(&id);
                held.slots -= slots;
                held.alone -= usize::from(assigned.isolation == Isolation::Alone);
                if held.tasks.is_empty() {
                    self.held.remove(&assigned.worker);
                }
            }
        }
    }

    fn index(&mut self, id: TaskId, task: &mut Task) {
        self.payload_bytes += task.payload_bytes();
        let lane = task.lane();
        task.queued = task.queue_key(id);
        if let Some(key) = task.queued {
            self.queue.insert(key);
            match self.place(task, key) {
                Place::Later => {}
                Place::Lane => self.lanes.add(&lane, task.class(), task.rank(key)),
                Place::Out => self.out += 1,
            }
        }
        self.expiring.extend(task.expires_waiting().map(|at| (at, id)));
        if let Some(assigned) = &task.assignment {
            self.overdue.insert((assigned.overdue, id));
            let slots = task.class().weight.slots();
            self.assigned_slots += slots;
            self.lanes.hold(&lane);
            let held = self.held.entry(assigned.worker.clone()).or_default();
            held.tasks.insert(id);
            held.slots += slots;
            held.alone += usize::from(assigned.isolation == Isolation::Alone);
        }
    }

    /// Where a waiting task stands as of `passed`.
    fn place(&self, task: &Task, key: QueueKey) -> Place {
        match self.passed {
            Some(passed) if passed >= key.due && task.has_expired(passed) => Place::Out,
            Some(passed) if passed >= key.due => Place::Lane,
            _ => Place::Later,
        }
    }

    /// Moves what has become due into its lane, and what has expired out of it: a plan must not
    /// pass over a million of those again and again.
    pub(super) fn pass(&mut self, now: Instant) {
        if self.passed >= Some(now) {
            return;
        }
        let last_id = TaskId::from_bits(u128::MAX);
        let since = |at: Option<(Instant, TaskId)>| at.map_or(Bound::Unbounded, Bound::Excluded);
        let first = since(self.passed.map(|passed| (passed, last_id)));
        let expired: Vec<TaskId> =
            self.expiring.range((first, Bound::Included((now, last_id)))).map(|(_, id)| *id).collect();
        for id in expired {
            let Some(task) = self.tasks.get(&id) else { continue };
            if let Some(key) = task.queued.filter(|key| self.place(task, *key) == Place::Lane) {
                let lane = task.lane();
                self.lanes.remove(&lane, task.class(), &task.rank(key));
                self.lanes.settle(&lane);
                self.out += 1;
            }
        }
        let last = QueueKey { due: now, revision: Revision::MAX, id: last_id };
        let due: Vec<QueueKey> = match self.passed {
            None => self.queue.range(..=last).copied().collect(),
            Some(passed) => {
                let first = QueueKey { due: passed, ..last };
                self.queue.range((Bound::Excluded(first), Bound::Included(last))).copied().collect()
            }
        };
        self.passed = Some(now);
        for key in due {
            let Some(task) = self.tasks.get(&key.id) else { continue };
            if self.place(task, key) == Place::Out {
                self.out += 1;
                continue;
            }
            let lane = task.lane();
            self.lanes.add(&lane, task.class(), task.rank(key));
            self.lanes.settle(&lane);
        }
    }

    pub(super) fn keys(&self, id: &DefinitionId) -> Vec<Key> {
        let mut keys = Vec::new();
        keys.extend(self.policy.as_ref().map(|_| Key::Policy(id.clone())));
        keys.extend(self.open.then(|| Key::Open(id.clone())));
        keys.extend(self.workers.keys().map(|worker| Key::Worker(id.clone(), worker.clone())));
        keys.extend(self.aside.keys(id));
        for (task_id, task) in &self.tasks {
            keys.extend(task.record.as_ref().map(|_| Key::Task(id.clone(), *task_id)));
            keys.extend(task.tally.as_ref().map(|_| Key::Tally(id.clone(), *task_id)));
            keys.extend(task.checkpoint.then(|| Key::Checkpoint(id.clone(), *task_id)));
            keys.extend(task.assignment.as_ref().map(|assigned| {
                Key::Assignment(id.clone(), assigned.worker.clone(), *task_id, assigned.attempt)
            }));
        }
        keys
    }
}
