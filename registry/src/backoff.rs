//! How long to wait before trying again to reach the registry: growing, capped,
//! and spread, so that a hundred pods do not come back in the same millisecond.

use std::time::Duration;

use crate::entropy::split_mix;

/// The waits of one retrying loop. Pure: the loop sleeps, this only counts.
#[derive(Debug, Clone)]
pub struct Waits {
    failures: u32,
    seed: u64,
}

impl Waits {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    /// Waits spread by `name`: loops of different names do not march in step.
    pub fn spread_by(name: &[u8]) -> Self {
        let seed = name.iter().fold(0, |seed: u64, byte| seed.rotate_left(5) ^ u64::from(*byte));
        Self { failures: 0, seed }
    }

    /// The wait after one more failure: 50 ms, doubling to 2 s, shortened by up to half.
    pub fn after_failure(&mut self) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        let unit = (split_mix(&mut self.seed) >> 11) as f64 / (1u64 << 53) as f64;
        full.mul_f64(1.0 - unit / 2.0)
    }

    /// Begins again with the shortest wait.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}
