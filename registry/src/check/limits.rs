//! Limits: what a history may not exceed, counted from its records alone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::Violation;
use crate::backend::{Change, Changes};
use crate::clock::Instant;
use crate::id::{AttemptId, DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{AssignmentRecord, FairnessKey, PolicyRecord, Record};
use crate::spec::Execution;

type Lane = Option<FairnessKey>;

/// Follows what is given out, and remembers where a limit was exceeded (law 21).
///
/// A policy that changes is judged from then on: what ran before is not undone, and a
/// rate counts from the change.
#[derive(Debug)]
pub struct Limits {
    space: Keyspace,
    definitions: BTreeMap<DefinitionId, Counted>,
    violations: Vec<Violation>,
    given: u64,
}

#[derive(Debug, Default)]
struct Counted {
    execution: Execution,
    running: HashMap<(TaskId, AttemptId), Lane>,
    by_lane: HashMap<Lane, usize>,
    times: VecDeque<Instant>,
    times_by_lane: HashMap<Lane, VecDeque<Instant>>,
}

impl Limits {
    /// Limits of a history that begins with an empty registry.
    pub fn new(space: Keyspace) -> Self {
        Self { space, definitions: BTreeMap::new(), violations: Vec::new(), given: 0 }
    }

    /// Where limits were exceeded so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many tasks were given out so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Takes in whole revisions, which happened at `now`.
    pub fn take(&mut self, changes: &Changes, now: Instant) {
        // What ends in a revision makes room for what begins in it.
        let deletes = changes.changes.iter().filter(|change| matches!(change, Change::Delete { .. }));
        let puts = changes.changes.iter().filter(|change| matches!(change, Change::Put(_)));
        for change in deletes.chain(puts) {
            let Ok(key) = self.space.parse(change.key()) else { continue };
            self.change(&key, change, now);
        }
    }

    fn change(&mut self, key: &Key, change: &Change, now: Instant) {
        let Some(def) = key.definition() else { return };
        let counted = self.definitions.entry(def.clone()).or_default();
        match (key, change) {
            (Key::Policy(_), Change::Put(entry)) => {
                if let Ok(record) = PolicyRecord::decode(&entry.value) {
                    counted.follow(record.policy.execution);
                }
            }
            (Key::Assignment(_, _, task, attempt), Change::Put(entry)) => {
                let Ok(record) = AssignmentRecord::decode(&entry.value) else { return };
                if counted.running.contains_key(&(*task, *attempt)) {
                    return;
                }
                self.given += 1;
                for what in counted.begin((*task, *attempt), record.options.key, now) {
                    self.violations.push(Violation { law: 21, task: Some((def.clone(), *task)), what });
                }
            }
            (Key::Assignment(_, _, task, attempt), Change::Delete { .. }) => counted.end((*task, *attempt)),
            _ => {}
        }
    }
}

impl Counted {
    fn follow(&mut self, execution: Execution) {
        if self.execution.rate_limit != execution.rate_limit {
            self.times.clear();
            self.times_by_lane.clear();
        }
        self.execution = execution;
    }

    /// A task was given out: which limits that exceeds.
    fn begin(&mut self, attempt: (TaskId, AttemptId), lane: Lane, now: Instant) -> Vec<String> {
        let mut wrong = Vec::new();
        let at_once = self.execution.concurrency_limit.unwrap_or_default();
        self.running.insert(attempt, lane.clone());
        let of_lane = self.by_lane.entry(lane.clone()).or_default();
        *of_lane += 1;
        for (what, running, limit) in
            [("total", self.running.len(), at_once.total), ("perKey", *of_lane, at_once.per_key)]
        {
            if limit.is_some_and(|limit| running > limit as usize) {
                wrong.push(format!("{running} tasks run, concurrencyLimit.{what} is {limit:?}"));
            }
        }
        let Some(rate) = self.execution.rate_limit else { return wrong };
        let of_lane = self.times_by_lane.entry(lane).or_default();
        for (what, times, limit) in
            [("tasks", &mut self.times, rate.tasks), ("perKey", of_lane, rate.per_key)]
        {
            let count = in_window(times, rate.per.get(), now);
            if limit.is_some_and(|limit| count > limit as usize) {
                let per = rate.per;
                wrong.push(format!("{count} tasks were given out in {per}, rateLimit.{what} is {limit:?}"));
            }
        }
        wrong
    }

    fn end(&mut self, attempt: (TaskId, AttemptId)) {
        let Some(lane) = self.running.remove(&attempt) else { return };
        if let Some(count) = self.by_lane.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.by_lane.remove(&lane);
            }
        }
    }
}

/// How many there were in the time that ends now, this one among them.
fn in_window(times: &mut VecDeque<Instant>, per: Duration, now: Instant) -> usize {
    times.push_back(now);
    while times.front().is_some_and(|at| *at + per <= now) {
        times.pop_front();
    }
    times.len()
}
