//! How often and when a failed task is tried again.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Span;

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
}
