//! What the code says of how a kind of work is run: that part of a TaskDefinition's `spec`
//! which is written down in the program.

use bellows_registry::spec::{Percent, Policy, Span, Trigger};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::state::{Injected, Need};

/// What the code says of how a kind of work is run, and what its handler needs. What is
/// not said is the TaskDefinition's default.
///
/// Where this process hosts the registry, it is the definition. On a cluster the
/// TaskDefinition counts.
#[derive(Debug, Clone, Default)]
pub struct TaskSettings {
    pub(crate) stated: Stated,
    pub(crate) needs: Vec<Need>,
    pub(crate) blocks: bool,
}

impl TaskSettings {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An attempt is cancelled and fails after this time. From 1 s to 24 h.
    pub fn timeout(self, timeout: Span) -> Self {
        self.state(&["execution", "timeout"], timeout)
    }

    /// A task is parked after so many failed attempts. From 1 to 100.
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.state(&["execution", "retry", "maxAttempts"], attempts)
    }

    /// The wait after the first failed attempt; at most that of
    /// [`TaskSettings::backoff_max`].
    pub fn backoff_initial(self, wait: Span) -> Self {
        self.state(&["execution", "retry", "backoff", "initial"], wait)
    }

    /// Each further wait is so many times the one before. From 1 to 10.
    pub fn backoff_factor(self, factor: u32) -> Self {
        self.state(&["execution", "retry", "backoff", "factor"], factor)
    }

    /// No wait is longer.
    pub fn backoff_max(self, wait: Span) -> Self {
        self.state(&["execution", "retry", "backoff", "max"], wait)
    }

    /// A wait is shortened by up to so many percent, at most 100.
    pub fn backoff_jitter(self, percent: u8) -> Self {
        let percent = Percent::new(percent.min(100));
        self.state(&["execution", "retry", "backoff", "jitter"], percent)
    }

    /// A task is parked once so many workers were lost while it ran alone. From 1 to 100.
    pub fn max_disruptions(self, disruptions: u32) -> Self {
        self.state(&["execution", "maxDisruptions"], disruptions)
    }

    /// How long results of tasks that succeeded are kept. At least two minutes in effect.
    pub fn retention_succeeded(self, time: Span) -> Self {
        self.state(&["retention", "succeeded"], time)
    }

    /// How long the records of tasks that did not succeed are kept.
    pub fn retention_failed(self, time: Span) -> Self {
        self.state(&["retention", "failed"], time)
    }

    /// How many tasks run at once in one process. The environment's `BELLOWS_CONCURRENCY`
    /// wins.
    pub fn concurrency(self, slots: u32) -> Self {
        self.state(&["worker", "concurrency"], slots.max(1))
    }

    /// The handler blocks its thread, by computing for long or by calling a library that
    /// waits without `async`: each attempt runs on a thread of its own, with the
    /// guarantees of [`Tasks::with_blocking_fn`](crate::Tasks::with_blocking_fn).
    pub fn blocking(mut self) -> Self {
        self.blocks = true;
        self
    }

    /// The handler takes this beside its input: a program that does not give the state
    /// for it does not start.
    pub fn needs<A: Injected>(mut self) -> Self {
        self.needs.extend(A::need());
        self
    }

    fn state(mut self, path: &[&str], value: impl Serialize) -> Self {
        // Numbers and texts always have a JSON form.
        self.stated.set(path, serde_json::to_value(value).unwrap_or_default());
        self
    }
}

/// Part of a `spec`: only what was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stated(Map<String, Value>);

impl Stated {
    fn set(&mut self, path: &[&str], value: Value) {
        let Some((last, way)) = path.split_last() else { return };
        let mut at = &mut self.0;
        for step in way {
            let next = at.entry(*step).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = next else { return };
            at = next;
        }
        at.insert((*last).to_owned(), value);
    }

    /// All that is stated, as the fields of a `spec`.
    pub(crate) fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// How many tasks at once, if it says so.
    pub(crate) fn concurrency(&self) -> Option<u32> {
        self.0.get("worker")?.get("concurrency")?.as_u64().and_then(|slots| slots.try_into().ok())
    }

    /// A policy, with what is stated here over it.
    pub(crate) fn over(&self, policy: &Policy, trigger: Trigger) -> Policy {
        let mut whole = serde_json::to_value(policy).unwrap_or_default();
        merge(&mut whole, &self.0);
        let stated: Policy = serde_json::from_value(whole)
            .unwrap_or_else(|error| unreachable!("the setters write what a policy reads: {error}"));
        Policy { trigger, ..stated }
    }
}

/// Puts the fields of one over those of the other.
pub(crate) fn merge(into: &mut Value, from: &Map<String, Value>) {
    let Value::Object(into) = into else { return };
    for (key, value) in from {
        match value {
            Value::Object(inner) => {
                merge(into.entry(key).or_insert_with(|| Value::Object(Map::new())), inner);
            }
            leaf => drop(into.insert(key.clone(), leaf.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_arrives_in_the_policy_and_the_rest_stays() {
        let settings = TaskSettings::new()
            .timeout(Span::secs(7))
            .max_attempts(3)
            .backoff_initial(Span::millis(50))
            .backoff_factor(4)
            .backoff_max(Span::secs(9))
            .backoff_jitter(10)
            .max_disruptions(5)
            .retention_succeeded(Span::secs(120))
            .retention_failed(Span::secs(240))
            .concurrency(16);
        let policy = settings.stated.over(&Policy::default(), Trigger::Singleton);
        let (execution, backoff) = (&policy.execution, &policy.execution.retry.backoff);
        assert_eq!((policy.trigger, execution.timeout), (Trigger::Singleton, Span::secs(7)));
        assert_eq!((execution.retry.max_attempts, execution.max_disruptions), (3, 5));
        assert_eq!((backoff.initial, backoff.factor, backoff.max), (Span::millis(50), 4, Span::secs(9)));
        assert_eq!(backoff.jitter.get(), 10);
        assert_eq!((policy.retention.succeeded, policy.retention.failed), (Span::secs(120), Span::secs(240)));
        assert_eq!(settings.stated.concurrency(), Some(16));

        let before = Policy { retention: policy.retention.clone(), ..Policy::default() };
        let after = TaskSettings::new().timeout(Span::secs(7)).stated.over(&before, Trigger::Publish);
        assert_eq!(after.retention, before.retention);
        assert_eq!(after.execution.timeout, Span::secs(7));
    }
}
