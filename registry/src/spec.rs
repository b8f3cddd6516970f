//! Policy: what a task definition says about how its tasks are run.
//!
//! These types are the operator's CRD, the SDK's manifest and the registry's
//! policy record at once, so they carry serde and schemars and nothing else.
//! Bounds that one field can state are in the schema; [`Policy::check`] has those
//! that concern several.

mod limits;
mod retry;
mod span;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use limits::{ConcurrencyLimit, Pace, RateLimit};
pub use retry::{Backoff, Percent, Retry};
pub use span::{Span, SpanError};

/// How work of this kind begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// Tasks are published, each with a payload.
    #[default]
    Publish,
    /// Exactly one task exists while the definition does; it carries no payload.
    Singleton,
}

/// Whether new tasks are accepted and waiting ones are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Tasks are accepted and run.
    #[default]
    Active,
    /// Tasks are accepted but none is started.
    Hold,
    /// No task is accepted; those waiting are run until none is left.
    HoldAndDrain,
}

/// What happens to tasks when their definition is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Waiting tasks stay in the registry until the definition is there again.
    #[default]
    Retain,
    /// No task is accepted; the pods that are there go on for up to 40 s, and what is left is
    /// kept and reported.
    Drain,
    /// Waiting tasks are removed.
    Purge,
}

/// How one attempt is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Execution {
    /// An attempt is cancelled and counted as failed after this time. A worker pod's
    /// grace period follows from it.
    pub timeout: Span,
    /// How often and when a failed task is tried again.
    pub retry: Retry,
    /// A task is parked once this many workers were lost while it ran alone.
    #[schemars(range(min = 1, max = 100))]
    pub max_disruptions: u32,
    /// How many tasks run at once. Not set: as many as the workers have slots for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<ConcurrencyLimit>,
    /// How many tasks are started in a time. Not set: as many as there are slots for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How many tasks of a fairness key are given out in its turn, 1 to 100; 1 for a key
    /// that is not named here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key_shares: BTreeMap<String, u32>,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            timeout: Span::secs(30),
            retry: Retry::default(),
            max_disruptions: 3,
            concurrency_limit: None,
            rate_limit: None,
            key_shares: BTreeMap::new(),
        }
    }
}

impl Execution {
    /// How many keys may have a share of their own.
    pub const MAX_KEY_SHARES: usize = 64;

    /// How many tasks of one fairness key run at once, if that is limited.
    pub fn per_key_limit(&self) -> Option<u32> {
        self.concurrency_limit.and_then(|limit| limit.per_key)
    }

    fn check_limits(&self) -> Result<(), PolicyError> {
        if let Some(limit) = self.concurrency_limit {
            limit.check()?;
        }
        if let Some(limit) = &self.rate_limit {
            limit.check()?;
        }
        if self.key_shares.len() > Self::MAX_KEY_SHARES {
            let (field, max) = ("execution.keyShares", Self::MAX_KEY_SHARES);
            return Err(PolicyError::TooMany { field, count: self.key_shares.len(), max });
        }
        match self.key_shares.values().find(|share| **share < 1 || **share > 100) {
            Some(&value) => {
                Err(PolicyError::Range { field: "a share of execution.keyShares", value, min: 1, max: 100 })
            }
            None => Ok(()),
        }
    }
}

/// How long terminal records are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retention {
    /// Of tasks that succeeded. Never less than two minutes, so that a waiting
    /// publisher sees its result.
    pub succeeded: Span,
    /// Of tasks that did not.
    pub failed: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self { succeeded: Span::secs(600), failed: Span::secs(168 * 3600) }
    }
}

impl Retention {
    /// The shortest time any terminal record is kept.
    pub const FLOOR: Duration = Duration::from_secs(120);
}

/// What operator and workers need to know to run tasks of one definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// How work begins.
    pub trigger: Trigger,
    /// Whether tasks are accepted and started.
    pub mode: Mode,
    /// How one attempt is run.
    pub execution: Execution,
    /// How long results are kept.
    pub retention: Retention,
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An attempt must have some time.
    #[error("execution.timeout must be from 1s to 24h, not {0}")]
    Timeout(Span),
    /// The first wait must not exceed the longest.
    #[error("execution.retry.backoff.initial ({initial}) must not exceed backoff.max ({max})")]
    Backoff {
        /// The first wait.
        initial: Span,
        /// The longest wait.
        max: Span,
    },
    /// The numbers that the schema bounds, for those who build a policy in code.
    #[error("{field} must be from {min} to {max}, not {value}")]
    Range {
        /// The field's path in the TaskDefinition.
        field: &'static str,
        /// What it is.
        value: u32,
        /// The least allowed value.
        min: u32,
        /// The greatest allowed value.
        max: u32,
    },
    /// A time out of its range.
    #[error("{field} must be from {min} to {max}, not {value}")]
    Time {
        /// The field's path in the TaskDefinition.
        field: &'static str,
        /// What it is.
        value: Span,
        /// The least allowed value.
        min: Span,
        /// The greatest allowed value.
        max: Span,
    },
    /// A limit that limits nothing.
    #[error("{field} needs {first} or perKey")]
    NoLimit {
        /// The field's path in the TaskDefinition.
        field: &'static str,
        /// The field beside `perKey`.
        first: &'static str,
    },
    /// More entries than are allowed.
    #[error("{field} has {count} entries; the limit is {max}")]
    TooMany {
        /// The field's path in the TaskDefinition.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// The limit.
        max: usize,
    },
}

impl Policy {
    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), PolicyError> {
        let execution = &self.execution;
        let timeout = execution.timeout.get();
        if timeout < Duration::from_secs(1) || timeout > Duration::from_secs(24 * 3600) {
            return Err(PolicyError::Timeout(execution.timeout));
        }
        let backoff = &execution.retry.backoff;
        if backoff.initial.get() > backoff.max.get() {
            return Err(PolicyError::Backoff { initial: backoff.initial, max: backoff.max });
        }
        for (field, value, min, max) in [
            ("execution.retry.maxAttempts", execution.retry.max_attempts, 1, 100),
            ("execution.retry.backoff.factor", backoff.factor, 1, 10),
            ("execution.maxDisruptions", execution.max_disruptions, 1, 100),
        ] {
            if value < min || value > max {
                return Err(PolicyError::Range { field, value, min, max });
            }
        }
        execution.check_limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_contradicts_itself_says_where() {
        let mut policy = Policy::default();
        assert_eq!(policy.check(), Ok(()));
        policy.execution.retry.max_attempts = 0;
        assert_eq!(
            policy.check().unwrap_err().to_string(),
            "execution.retry.maxAttempts must be from 1 to 100, not 0"
        );
        policy.execution.timeout = Span::secs(0);
        assert!(policy.check().unwrap_err().to_string().starts_with("execution.timeout"));
    }

    #[test]
    fn a_limit_out_of_range_names_field_value_and_bounds() {
        let says = |execution: Execution| {
            let policy = Policy { execution, ..Policy::default() };
            policy.check().map_err(|error| error.to_string()).unwrap_err()
        };
        let with_rate = |tasks, per| Execution {
            rate_limit: Some(RateLimit { tasks, per_key: None, per }),
            ..Execution::default()
        };
        let total = Some(ConcurrencyLimit { total: Some(0), per_key: None });
        for (execution, text) in [
            (
                Execution { concurrency_limit: total, ..Execution::default() },
                "execution.concurrencyLimit.total must be from 1 to 1000000, not 0",
            ),
            (
                Execution { concurrency_limit: Some(ConcurrencyLimit::default()), ..Execution::default() },
                "execution.concurrencyLimit needs total or perKey",
            ),
            (with_rate(None, Span::secs(1)), "execution.rateLimit needs tasks or perKey"),
            (with_rate(Some(0), Span::secs(1)), "execution.rateLimit.tasks must be from 1 to 100000, not 0"),
            (with_rate(Some(1), Span::secs(3601)), "execution.rateLimit.per must be from 1s to 1h, not 1h1s"),
            (
                Execution { key_shares: [("a".to_owned(), 101)].into(), ..Execution::default() },
                "a share of execution.keyShares must be from 1 to 100, not 101",
            ),
        ] {
            assert_eq!(says(execution), text);
        }
    }

    #[test]
    fn defaults_are_what_the_documentation_says() {
        let text = serde_json::to_string(&Policy::default()).unwrap();
        assert_eq!(
            text,
            r#"{"trigger":"Publish","mode":"Active","execution":{"timeout":"30s","retry":{"maxAttempts":8,"backoff":{"initial":"1s","factor":2,"max":"5m","jitter":"20%"}},"maxDisruptions":3},"retention":{"succeeded":"10m","failed":"168h"}}"#
        );
    }
}
