//! A lease and its keeper. *Lost* is a value the holder must look at.
//!
//! # Guarantees
//! * [`Session::lost`] fires before etcd can have ended the lease unnoticed: trust ends
//!   a margin before (time the last confirmed renewal was **sent**) + TTL.
//! * The keep-alive stops when the holder has not called [`Session::tick`] for half the
//!   TTL (law 15): a wedged holder loses its lease instead of sitting on its tasks.
//!
//! # Caveats
//! Open the session on a runtime whose threads no user code can block; the keeper is
//! a task of that runtime.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backend::{BackendError, Class, DynBackend, LeaseId};
use crate::clock;

/// A kept-alive lease. Dropping it stops the keeper and lets the lease run out;
/// [`Session::close`] ends it at once.
#[derive(Debug)]
pub struct Session {
    backend: DynBackend,
    lease: LeaseId,
    lost: CancellationToken,
    shared: Arc<Shared>,
    keeper: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    ttl: Duration,
    times: Mutex<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    ticked: Instant,
    trusted_until: Instant,
}

impl Shared {
    fn times(&self) -> Times {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, now: Instant) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).ticked = now;
    }

    fn trust(&self, until: Instant) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).trusted_until = until;
    }
}

/// Until when a lease is to be trusted, as its keeper renews it. By default never.
#[derive(Debug, Clone, Default)]
pub struct Trust(Option<Arc<Shared>>);

impl Trust {
    /// Whether the lease is to be trusted at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|shared| now < shared.times().trusted_until)
    }
}

/// Those of one session are equal, whenever it was renewed.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Trust {}

/// How long before the lease's end trust in it ends.
fn margin(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(1))
}

impl Session {
    /// Grants a lease of `ttl` and begins to keep it alive.
    ///
    /// # Errors
    /// Whatever the grant answers; a grant with an unknown outcome leaves at most a
    /// lease without keys, which runs out.
    pub async fn open(backend: DynBackend, ttl: Duration) -> Result<Self, BackendError> {
        let sent = clock::instant();
        let lease = backend.grant(ttl).await?;
        let trusted_until = sent + lease.ttl - margin(lease.ttl);
        let times = Mutex::new(Times { ticked: sent, trusted_until });
        let shared = Arc::new(Shared { ttl: lease.ttl, times });
        let lost = CancellationToken::new();
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(Arc::clone(&backend), lease.id, Arc::clone(&shared), lost.clone()));
        Ok(Self { backend, lease: lease.id, lost, shared, keeper })
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The time the lease lives without a renewal.
    pub fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    /// Fires once the lease is lost, or can no longer be trusted to live.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Says that the holder's loop is alive. To be called more often than every TTL/2.
    pub fn tick(&self) {
        self.shared.tick(clock::instant());
    }

    /// Whether the lease is to be trusted now.
    pub fn is_healthy(&self) -> bool {
        !self.lost.is_cancelled() && self.trust().holds(clock::instant())
    }

    /// For how long it is to be trusted, for those who act on what its holder found out. After a
    /// pause of the whole process they may run before the keeper does.
    pub fn trust(&self) -> Trust {
        Trust(Some(Arc::clone(&self.shared)))
    }

    /// Ends the lease: its keys go at once.
    ///
    /// # Errors
    /// If the registry does not answer; the lease then runs out by itself.
    pub async fn close(mut self) -> Result<(), BackendError> {
        self.keeper.shutdown().await;
        self.lost.cancel();
        self.backend.revoke(self.lease).await
    }
}

/// Renews every third of the TTL until the lease is lost.
async fn keep(backend: DynBackend, lease: LeaseId, shared: Arc<Shared>, lost: CancellationToken) {
    let (ttl, every) = (shared.ttl, shared.ttl / 3);
    let mut next = clock::instant() + every;
    loop {
        let times = shared.times();
        sleep_until(next.min(times.trusted_until)).await;
        let now = clock::instant();
        let times = shared.times();
        if now >= times.trusted_until {
            tracing::warn!(lease = lease.0, "the lease can no longer be trusted");
            break;
        }
        if now.saturating_duration_since(times.ticked) > ttl / 2 {
            // The holder is wedged: its lease must end (law 15). Look again soon, in
            // case it was only slow.
            next = now + every / 4;
            continue;
        }
        // Not for all the time that is left: another member may answer.
        match timeout_at(times.trusted_until.min(now + every), backend.keep_alive(lease)).await {
            Ok(Ok(ttl)) => {
                shared.trust(now + ttl - margin(ttl));
                next = now + every;
            }
            Ok(Err(error)) if error.class() == Class::LeaseLost => {
                tracing::warn!(lease = lease.0, "the lease has ended");
                break;
            }
            Ok(Err(error)) => {
                tracing::debug!(lease = lease.0, %error, "a renewal failed");
                next = now + every / 4;
            }
            Err(_) => next = clock::instant(), // the top of the loop says whether it is too late
        }
    }
    lost.cancel();
}
