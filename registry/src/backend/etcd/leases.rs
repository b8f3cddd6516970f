//! Leases, on a connection of their own, with one keep-alive stream a lease.
//!
//! Renews only when asked: who holds a session decides whether it is still alive.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{LeaseClient, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::timeout;

use super::EtcdConfig;
use super::errors::Failure;
use super::pool::Pool;
use crate::backend::{BackendError, Lease, LeaseId};
use crate::clock::{self, Instant};

struct Keeper {
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    generation: u64,
    /// Nobody renews a lease after this: its session is over, and so is the lease.
    ends: Instant,
}

pub(super) struct Leases {
    pool: Pool<LeaseClient>,
    /// Idle keepers. One in use is taken out, so that a call that is dropped drops its
    /// stream too: an answer left in it would pass for that of a later renewal.
    idle: Mutex<HashMap<LeaseId, Keeper>>,
}

impl Leases {
    pub(super) fn new(config: &EtcdConfig) -> Self {
        Self { pool: Pool::new(config, etcd_client::Client::lease_client), idle: Mutex::new(HashMap::new()) }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<LeaseId, Keeper>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a keeper back, and drops those of sessions that ended without a word: each
    /// holds a stream open.
    fn rest(&self, lease: LeaseId, keeper: Keeper, now: Instant) {
        let mut idle = self.idle();
        idle.retain(|_, keeper| keeper.ends > now);
        idle.insert(lease, keeper);
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<Lease, BackendError> {
        self.idle().retain(|_, keeper| keeper.ends > clock::instant());
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let asked = i64::try_from(whole.max(1)).unwrap_or(i64::MAX);
        let call = |mut client: LeaseClient| async move { client.grant(asked, None).await };
        let answer = self.pool.call(call).await.map_err(Failure::plain)?;
        Ok(Lease { id: LeaseId(answer.id()), ttl: seconds(answer.ttl()) })
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), BackendError> {
        self.idle().remove(&lease);
        let call = |mut client: LeaseClient| async move { client.revoke(lease.0).await };
        self.pool.call(call).await.map_err(|failure| failure.of_lease(lease))?;
        Ok(())
    }

    pub(super) async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, BackendError> {
        let idle = self.idle().remove(&lease);
        let mut keeper = match idle {
            Some(keeper) => keeper,
            None => self.open(lease).await.map_err(|failure| failure.of_lease(lease))?,
        };
        let asking = self.pool.until_answered(keeper.generation);
        let renewal = async {
            keeper.requests.keep_alive().await?;
            keeper.answers.message().await
        };
        let failure = match timeout(self.pool.request_timeout(), renewal).await {
            Ok(Ok(Some(answer))) => {
                asking.answered();
                if answer.ttl() <= 0 {
                    return Err(BackendError::LeaseLost(lease));
                }
                let (ttl, now) = (seconds(answer.ttl()), clock::instant());
                keeper.ends = now + ttl;
                self.rest(lease, keeper, now);
                return Ok(ttl);
            }
            Ok(Ok(None)) => Failure::from(etcd_client::Error::Internal("the stream has ended".to_owned())),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::TimedOut(self.pool.request_timeout()),
        };
        if !failure.is_the_members() {
            asking.answered();
        }
        Err(failure.of_lease(lease))
    }

    async fn open(&self, lease: LeaseId) -> Result<Keeper, Failure> {
        let asking = self.pool.until_answered(self.pool.lend().await?.generation());
        let call = |mut client: LeaseClient| async move { client.keep_alive(lease.0).await };
        let opened = self.pool.call_and_tell(call).await;
        asking.answered(); // the pool has left what failed
        let ((requests, answers), generation) = opened?;
        Ok(Keeper { requests, answers, generation, ends: clock::instant() })
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
