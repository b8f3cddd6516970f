//! How much of a definition's work may run: at once, and in a time.
//!
//! A limit counts tasks given to workers, on all workers together. A change applies to
//! what is given out from then on; nothing that runs is stopped for it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyError, Span};

/// How many tasks run at once. A limit that is not set is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConcurrencyLimit {
    /// Tasks of the definition, on all workers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub total: Option<u32>,
    /// Tasks with the same fairness key. Those without a key count as one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_key: Option<u32>,
}

/// How many tasks are started in a time. A limit that is not set is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RateLimit {
    /// Tasks of the definition in any time as long as `per`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub tasks: Option<u32>,
    /// Tasks with the same fairness key in any time as long as `per`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_key: Option<u32>,
    /// The time, from 1s to 1h.
    pub per: Span,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { tasks: None, per_key: None, per: Span::secs(1) }
    }
}

/// A rate as it is kept: so many tasks in any time of this length.
///
/// A long rate is kept in even parts (100 an hour as 1 in 36 s): that bounds what has to
/// be remembered, and how long a new leader, which does not know what was started
/// before it, has to wait until all of that is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// So many tasks…
    pub tasks: u32,
    /// …in any time of this length.
    pub per: Duration,
}

impl Pace {
    /// A rate over this time or a shorter one is kept as it is.
    pub const WHOLE: Duration = Duration::from_secs(10);

    /// The pace that keeps `tasks` in any time of length `per`.
    ///
    /// The parts are equal and each of at most [`Pace::WHOLE`] or a sixtieth of `per`, or
    /// of one task: as many parts as that takes and as divide `tasks`.
    pub fn of(tasks: u32, per: Duration) -> Self {
        let tasks = tasks.max(1);
        let longest = Self::WHOLE.max(per / 60);
        let fits = |parts: &u32| tasks.is_multiple_of(*parts) && part(per, *parts) <= longest;
        let least = (per.as_nanos().div_ceil(longest.as_nanos())).max(1);
        let least = u32::try_from(least).unwrap_or(u32::MAX).min(tasks);
        let parts = (least..=tasks.min(least.saturating_mul(8))).find(fits).unwrap_or(tasks);
        Self { tasks: tasks / parts, per: part(per, parts) }
    }
}

/// One of equal parts, rounded up: they never add up to less than the whole.
fn part(whole: Duration, parts: u32) -> Duration {
    let floor = whole / parts;
    if floor * parts < whole { floor + Duration::from_nanos(1) } else { floor }
}

impl ConcurrencyLimit {
    pub(super) fn check(self) -> Result<(), PolicyError> {
        at_least_one("execution.concurrencyLimit", "total", &[self.total, self.per_key])?;
        for (field, value) in [
            ("execution.concurrencyLimit.total", self.total),
            ("execution.concurrencyLimit.perKey", self.per_key),
        ] {
            in_range(field, value, 1_000_000)?;
        }
        Ok(())
    }
}

impl RateLimit {
    /// The least and greatest `per`.
    pub const PER: (Span, Span) = (Span::secs(1), Span::secs(3600));

    /// The pace of the whole definition.
    pub fn total_pace(&self) -> Option<Pace> {
        self.tasks.map(|tasks| Pace::of(tasks, self.per.get()))
    }

    /// The pace of each fairness key.
    pub fn key_pace(&self) -> Option<Pace> {
        self.per_key.map(|tasks| Pace::of(tasks, self.per.get()))
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        at_least_one("execution.rateLimit", "tasks", &[self.tasks, self.per_key])?;
        in_range("execution.rateLimit.tasks", self.tasks, 100_000)?;
        in_range("execution.rateLimit.perKey", self.per_key, 100_000)?;
        let (min, max) = Self::PER;
        if self.per < min || self.per > max {
            return Err(PolicyError::Time { field: "execution.rateLimit.per", value: self.per, min, max });
        }
        Ok(())
    }
}

fn at_least_one(field: &'static str, first: &'static str, limits: &[Option<u32>]) -> Result<(), PolicyError> {
    if limits.iter().all(Option::is_none) {
        return Err(PolicyError::NoLimit { field, first });
    }
    Ok(())
}

fn in_range(field: &'static str, value: Option<u32>, max: u32) -> Result<(), PolicyError> {
    match value {
        Some(value) if value < 1 || value > max => Err(PolicyError::Range { field, value, min: 1, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_never_allows_more_than_its_rate_and_forgets_soon() {
        for per in [1, 7, 10, 11, 60, 601, 3600] {
            for tasks in [1, 2, 3, 7, 10, 60, 97, 100, 101, 600, 5000, 9973, 100_000] {
                let whole = Duration::from_secs(per);
                let pace = Pace::of(tasks, whole);
                let parts = tasks / pace.tasks;
                assert_eq!(pace.tasks * parts, tasks, "{tasks} in {per} s lose nothing by it");
                assert!(pace.per * parts >= whole, "{tasks} in {per} s: {pace:?}");
                let soon = pace.per <= Pace::WHOLE.max(whole / 60) || pace.tasks == 1;
                assert!(soon, "{tasks} in {per} s: {pace:?}");
            }
        }
        assert_eq!(Pace::of(100, Duration::from_secs(1)).tasks, 100);
        let hourly = Pace::of(100, Duration::from_secs(3600));
        assert_eq!(hourly, Pace { tasks: 1, per: Duration::from_secs(36) });
    }
}
