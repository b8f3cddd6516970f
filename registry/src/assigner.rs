//! The loop that gives tasks to workers: election, then mirror → plan → commit.
//!
//! # Expected flow
//! [`Assigner::run`] campaigns for the leader key, leads until it is deposed or its
//! lease is lost, and campaigns again, until it is told to stop. Two assigners may run
//! at any time, and do no harm: every transaction compares the **term** (law 4).
//!
//! # Guarantees
//! * It plans only from a view at least as new as its term (law 5).
//! * After an unknown outcome it raises its term, lists, and only then plans again.
//! * It never writes an outcome of its own making except for tasks that lost their
//!   workers for good.
//!
//! # Cancel safety
//! Dropping the future of [`Assigner::run`] is as good as a crash.

mod election;
mod lead;
mod send;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::DynBackend;
use crate::backoff::Waits;
use crate::demand::DemandReport;
use crate::entropy::Entropy;
use crate::key::Keyspace;
use crate::session::Session;

/// How an assigner takes part.
#[derive(Debug, Clone)]
pub struct AssignerConfig {
    /// A name for people, such as the pod's.
    pub identity: String,
    /// The shard it leads; 0 for now.
    pub shard: u16,
    /// The TTL of its lease: how long nobody leads after a crash.
    pub lease_ttl: Duration,
    /// How long a candidate that is not preferred lets others go first.
    pub deference: Duration,
    /// Whether this candidate is the preferred one (in the operator: it holds the
    /// Kubernetes Lease). `None`: always.
    pub preferred: Option<watch::Receiver<bool>>,
}

impl Default for AssignerConfig {
    fn default() -> Self {
        Self {
            identity: "assigner".to_owned(),
            shard: 0,
            lease_ttl: Duration::from_secs(5),
            deference: Duration::from_secs(2),
            preferred: None,
        }
    }
}

/// Gives due tasks to live workers, while it leads.
#[derive(Debug)]
pub struct Assigner {
    backend: DynBackend,
    space: Keyspace,
    config: AssignerConfig,
    entropy: Arc<Entropy>,
    demand: watch::Sender<Arc<DemandReport>>,
}

/// Why an assigner stopped leading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Stopped,
    Deposed,
    LeaseLost,
}

impl Assigner {
    /// An assigner of the registry under `space`; nothing is sent before it runs.
    pub fn new(backend: DynBackend, space: Keyspace, config: AssignerConfig, entropy: Arc<Entropy>) -> Self {
        let (demand, _) = watch::channel(Arc::default());
        Self { backend, space, config, entropy, demand }
    }

    /// What its view says about the work there is. Changes as often as the view does;
    /// a reader sees the newest.
    pub fn demand(&self) -> watch::Receiver<Arc<DemandReport>> {
        self.demand.subscribe()
    }

    /// Runs until `stop`; then gives up the leader key at once, so that another leads.
    pub async fn run(self, stop: CancellationToken) {
        let mut waits = Waits::spread_by(self.config.identity.as_bytes());
        while !stop.is_cancelled() {
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = Session::open(Arc::clone(&self.backend), self.config.lease_ttl) => opened,
            };
            let session = match opened {
                Ok(session) => session,
                Err(error) => {
                    tracing::warn!(%error, "the assigner cannot reach the registry");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(waits.after_failure()) => continue,
                    }
                }
            };
            waits.succeeded();
            self.campaign_and_lead(&session, &stop).await;
            self.demand.send_replace(Arc::default());
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "the assigner's lease runs out by itself");
            }
        }
    }

    async fn campaign_and_lead(&self, session: &Session, stop: &CancellationToken) {
        let Some(term) = election::campaign(self, session, stop).await else { return };
        tracing::info!(identity = self.config.identity, shard = self.config.shard, term, "leading");
        let left = lead::Lead::new(self, session, term).run(stop).await;
        tracing::info!(
            identity = self.config.identity,
            shard = self.config.shard,
            ?left,
            "no longer leading"
        );
    }
}
