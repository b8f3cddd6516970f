//! The only file that reads time.
//!
//! Deciding code takes an [`Instant`] and returns data. Time here is tokio's, so
//! that a test under paused time moves the whole system. The wall clock appears
//! only in records, for people and for `due_by_writer` (law 16).
//!
//! Tokio's clock is the system's monotonic one, which does not count the time for which a
//! machine is suspended: a lease may then have ended without its holder's knowledge, and
//! what keeps its writes out is their fence.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// Milliseconds since the Unix epoch, by this machine's wall clock.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct WallMillis(pub u64);

impl WallMillis {
    /// This moment plus a duration, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero if it is the other way round.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One reading of both clocks, taken once per turn of a loop.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock: every decision uses this one.
    pub instant: Instant,
    /// The wall clock: for records, and for what was listed rather than seen live.
    pub wall: WallMillis,
}

impl Now {
    /// When something due at `wall` time is due by the monotonic clock.
    pub fn instant_of(&self, wall: WallMillis) -> Instant {
        self.instant + wall.since(self.wall).min(FAR)
    }
}

/// Longer than anything waits; keeps instants from overflowing.
pub const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads both clocks.
pub fn now() -> Now {
    Now { instant: Instant::now(), wall: wall() }
}

/// Reads the monotonic clock (tokio's: it stands still under paused time).
pub fn instant() -> Instant {
    Instant::now()
}

#[cfg(any(test, feature = "testkit"))]
thread_local! {
    /// Where this thread's wall clock began to follow tokio's.
    static FOLLOWS: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

/// While this lives, the wall clock of the thread that made it follows tokio's, so that
/// paused time moves both. For tests on one thread.
#[cfg(any(test, feature = "testkit"))]
#[derive(Debug)]
pub struct WallFollows(());

/// See [`WallFollows`].
#[cfg(any(test, feature = "testkit"))]
pub fn wall_follows_instant() -> WallFollows {
    FOLLOWS.set(Some(now()));
    WallFollows(())
}

#[cfg(any(test, feature = "testkit"))]
impl Drop for WallFollows {
    fn drop(&mut self) {
        FOLLOWS.set(None);
    }
}

/// Reads the wall clock.
#[allow(clippy::disallowed_methods, reason = "this is the file that reads time")]
pub fn wall() -> WallMillis {
    #[cfg(any(test, feature = "testkit"))]
    if let Some(began) = FOLLOWS.get() {
        return began.wall.plus(instant() - began.instant);
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
