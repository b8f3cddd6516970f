//! A Kubernetes Lease: which replica reconciles.
//!
//! # Expected flow
//! [`Keeper::run`] tries to take the Lease, renews it while it holds it, and gives it up
//! when told to stop. Whether it holds it is a watch channel that others look at.
//!
//! # Guarantees
//! The holder says "not held" before anybody else can take the Lease, as long as its own
//! clock runs. Nothing depends on that: two reconcilers apply the same objects, and do
//! no harm. Assigning is fenced in etcd, not here.
//!
//! # Caveats
//! Other holders' clocks are never compared with ours: a Lease has run out when we have
//! seen it unchanged for its duration.

use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a Lease lives without a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long no longer holds it.
const TRUST: Duration = Duration::from_secs(10);
/// How often it is looked at and renewed.
const PERIOD: Duration = Duration::from_secs(3);
/// A request without an answer for so long has failed.
const REQUEST: Duration = Duration::from_secs(5);

/// Takes and keeps one Lease.
#[derive(Debug)]
pub struct Keeper {
    api: Api<Lease>,
    name: String,
    identity: String,
    held: watch::Sender<bool>,
    seen: Option<(String, Instant)>,
}

/// What one look led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Held,
    Others,
}

impl Keeper {
    /// Keeps the Lease `name` for `identity`; nothing is sent before it runs.
    pub fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        let (held, _) = watch::channel(false);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), held, seen: None }
    }

    /// Whether the Lease is held.
    pub fn held(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Runs until `stop`, then gives the Lease up.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut renewed = clock::instant();
        while !stop.is_cancelled() {
            let asked = clock::instant();
            match tokio::time::timeout(REQUEST, self.look()).await {
                Ok(Ok(Outcome::Held)) => {
                    renewed = asked;
                    self.set(true);
                }
                Ok(Ok(Outcome::Others)) => self.set(false),
                Ok(Err(error)) => tracing::debug!(%error, "the Lease could not be renewed"),
                Err(_) => tracing::debug!("the Lease could not be renewed in time"),
            }
            if clock::instant() >= renewed + TRUST {
                self.set(false);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        if *self.held.borrow() {
            self.set(false);
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), self.release()).await {
                tracing::debug!(%error, "the Lease runs out by itself");
            }
        }
    }

    fn set(&self, held: bool) {
        let changed = self.held.send_if_modified(|now| std::mem::replace(now, held) != held);
        if changed {
            tracing::info!(lease = self.name, held, "the reconcile lease");
        }
    }

    async fn look(&mut self) -> Result<Outcome, kube::Error> {
        let Some(found) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(0)) };
            return lost_race(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = found.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let transitions = spec.lease_transitions.unwrap_or(0);
        let ours = holder.as_deref() == Some(self.identity.as_str());
        if holder.is_some() && !ours && !self.has_run_out(&found) {
            return Ok(Outcome::Others);
        }
        let mut claim = self.claim(transitions + i32::from(!ours));
        if ours {
            claim.acquire_time = spec.acquire_time;
        }
        let lease = Lease { metadata: found.metadata, spec: Some(claim) };
        lost_race(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether we have seen the Lease unchanged for its duration.
    fn has_run_out(&mut self, found: &Lease) -> bool {
        let now = clock::instant();
        let version = found.metadata.resource_version.clone().unwrap_or_default();
        let seconds = found.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(15);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        match &self.seen {
            Some((seen, since)) if *seen == version => now >= *since + duration,
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn claim(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(timestamp());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let found = self.api.get(&self.name).await?;
        let mut spec = found.spec.unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let lease = Lease { metadata: found.metadata, spec: Some(spec) };
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}

/// A conflict means that somebody else was faster, which is no error.
fn lost_race(answer: Result<Lease, kube::Error>) -> Result<Outcome, kube::Error> {
    match answer {
        Ok(_) => Ok(Outcome::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Others),
        Err(error) => Err(error),
    }
}

/// This moment, for records that people read.
pub(crate) fn timestamp() -> Timestamp {
    let millis = i64::try_from(clock::wall().0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}
