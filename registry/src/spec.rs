//! Policy: what a task definition says about how its tasks are run.
//!
//! These types are the operator's CRD, the SDK's manifest and the registry's
//! policy record at once, so they carry serde and schemars and nothing else.
//! Bounds that one field can state are in the schema; [`Policy::check`] has those
//! that concern several.

mod span;

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

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
    /// No task is accepted; waiting tasks are kept and reported.
    Drain,
    /// Waiting tasks are removed.
    Purge,
}

/// A number of percent from 0 to 100, written `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Refuses more than 100.
    pub fn new(percent: u8) -> Option<Self> {
        (percent <= 100).then_some(Self(percent))
    }

    /// The number, 0 to 100.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        let number = text.strip_suffix('%').and_then(|n| n.parse().ok());
        number.and_then(Self::new).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a percentage from \"0%\" to \"100%\""))
        })
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(100|[0-9]{1,2})%$", "maxLength": 4 })
    }
}

/// How long to wait before the next attempt after a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Backoff {
    /// The wait after the first failed attempt.
    pub initial: Span,
    /// Each further wait is this many times the one before.
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// No wait is longer than this.
    pub max: Span,
    /// A wait is shortened by up to this share, so that tasks which failed together
    /// do not come back together.
    pub jitter: Percent,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Span::secs(1), factor: 2, max: Span::secs(300), jitter: Percent(20) }
    }
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (counted from 1). The jitter is
    /// drawn from `seed`, so that one task and attempt always wait the same time.
    pub fn wait(&self, attempt: u32, mut seed: u64) -> Duration {
        let factor = f64::from(self.factor.max(1));
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let max = self.max.get().as_secs_f64();
        let full = (self.initial.get().as_secs_f64() * factor.powi(exponent)).min(max);
        let unit = (crate::entropy::split_mix(&mut seed) >> 11) as f64 / (1u64 << 53) as f64;
        Duration::from_secs_f64(full * (1.0 - unit * f64::from(self.jitter.0) / 100.0))
    }
}

/// How often a task is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retry {
    /// A task is parked after this many failed attempts.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 8, backoff: Backoff::default() }
    }
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
}

impl Default for Execution {
    fn default() -> Self {
        Self { timeout: Span::secs(30), retry: Retry::default(), max_disruptions: 3 }
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_maximum_and_jitter_only_shortens() {
        let backoff = Backoff { jitter: Percent(0), ..Backoff::default() };
        let waits: Vec<u64> = (1..=10).map(|n| backoff.wait(n, 7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        let jittered = Backoff::default();
        for attempt in 1..50 {
            let (wait, full) = (jittered.wait(attempt, 99), backoff.wait(attempt, 99));
            assert!(wait <= full && wait >= full.mul_f64(0.8), "{wait:?} of {full:?}");
            assert_eq!(wait, jittered.wait(attempt, 99), "the same seed waits the same time");
        }
    }

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
    fn defaults_are_what_the_documentation_says() {
        let text = serde_json::to_string(&Policy::default()).unwrap();
        assert_eq!(
            text,
            r#"{"trigger":"Publish","mode":"Active","execution":{"timeout":"30s","retry":{"maxAttempts":8,"backoff":{"initial":"1s","factor":2,"max":"5m","jitter":"20%"}},"maxDisruptions":3},"retention":{"succeeded":"10m","failed":"168h"}}"#
        );
    }
}
