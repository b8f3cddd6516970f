//! A Kubernetes Lease: which replica reconciles.
//!
//! # Expected flow
//! [`Keeper::run`] tries to take the Lease, renews it while it holds it, and gives it up
//! when told to stop. Whether it holds it is a watch channel that others look at.
//!
//! # Guarantees
//! The holder says "not held" at the latest [`TRUST`] after its last successful renewal
//! *began*, also while a request hangs; nobody else takes the Lease before its duration has
//! passed since that renewal was written. So it says so first, by the difference of the
//! two, as long as its process runs: one that is frozen says nothing. Nothing depends on
//! it: two reconcilers apply the same objects, and do no harm. Assigning is fenced in etcd,
//! not here.
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
/// Who cannot do the whole work gives others so long to take it first,
const AFTER_YOU: Duration = Duration::from_secs(10);
/// and lets it go again after it had so long for it.
const TURN: Duration = Duration::from_secs(60);
/// A request without an answer for so long has failed.
const REQUEST: Duration = Duration::from_secs(5);

/// Takes and keeps one Lease.
#[derive(Debug)]
pub struct Keeper {
    candidate: Candidate,
    held: Held,
}

/// Who wants the Lease.
#[derive(Debug)]
struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<(String, Instant)>,
}

/// Whether we have it, for others to look at.
#[derive(Debug)]
struct Held(watch::Sender<bool>);

/// What one look led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Held,
    Others,
}

impl Keeper {
    /// Keeps the Lease `name` for `identity`; nothing is sent before it runs.
    pub fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        let candidate = Candidate { api, name: name.to_owned(), identity: identity.to_owned(), seen: None };
        Self { candidate, held: Held(watch::channel(false).0) }
    }

    /// Whether the Lease is held.
    pub fn held(&self) -> watch::Receiver<bool> {
        self.held.0.subscribe()
    }

    /// Runs until `stop`, then gives the Lease up. Until `able` ends, others go first: who can
    /// do the whole work must not wait for one that cannot.
    pub async fn run<F: Future<Output = ()>>(self, able: impl Fn() -> F, stop: CancellationToken) {
        let Self { mut candidate, held } = self;
        take_turns(&held, &mut candidate, able, &stop).await;
    }
}

/// Holds the Lease until `stop`; in turns, with a pause before each, until `able` ends.
async fn take_turns<F: Future<Output = ()>>(
    held: &Held,
    candidate: &mut impl Look,
    able: impl Fn() -> F,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tokio::time::timeout(AFTER_YOU, able()) => {}
        }
        let turn = async {
            if tokio::time::timeout(TURN, able()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = hold(held, candidate, stop) => {}
            () = turn => {}
        }
        if *held.0.borrow() {
            held.set(false);
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), candidate.release()).await {
                tracing::debug!(%error, "the Lease runs out by itself");
            }
        }
    }
}

/// What is done with the Lease.
trait Look {
    /// One look: taking or renewing it, where it is ours to take.
    fn look(&mut self) -> impl Future<Output = Result<Outcome, kube::Error>> + Send;
    /// Lets it go, if it is ours.
    fn release(&mut self) -> impl Future<Output = Result<(), kube::Error>> + Send;
}

/// Looks again and again until `stop`, and keeps `held` true to what it found.
async fn hold(held: &Held, candidate: &mut impl Look, stop: &CancellationToken) {
    // Until when the last renewal is good for.
    let mut trusted = clock::instant();
    while !stop.is_cancelled() {
        // Before the request: nobody knows when in its course it was written.
        let asked = clock::instant();
        match held.until(trusted, tokio::time::timeout(REQUEST, candidate.look())).await {
            Ok(Ok(Outcome::Held)) => {
                trusted = asked + TRUST;
                held.set(true);
            }
            Ok(Ok(Outcome::Others)) => held.set(false),
            Ok(Err(error)) => tracing::debug!(%error, "the Lease could not be renewed"),
            Err(_) => tracing::debug!("the Lease could not be renewed in time"),
        }
        let pause = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        };
        held.until(trusted, pause).await;
    }
}

impl Held {
    fn set(&self, held: bool) {
        let changed = self.0.send_if_modified(|now| std::mem::replace(now, held) != held);
        if changed {
            tracing::info!(held, "the reconcile lease");
        }
    }

    /// Does `work`, and says "not held" when `trusted` passes meanwhile.
    async fn until<T>(&self, trusted: Instant, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(trusted) => self.set(false),
        }
        work.await
    }
}

impl Look for Candidate {
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

    async fn release(&mut self) -> Result<(), kube::Error> {
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

impl Candidate {
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Look for std::vec::IntoIter<Result<Outcome, kube::Error>> {
        async fn look(&mut self) -> Result<Outcome, kube::Error> {
            match self.next() {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        }

        async fn release(&mut self) -> Result<(), kube::Error> {
            Ok(())
        }
    }

    /// A Lease that nobody else wants, and when it was let go.
    struct Free(Vec<Instant>);

    impl Look for Free {
        async fn look(&mut self) -> Result<Outcome, kube::Error> {
            Ok(Outcome::Held)
        }

        async fn release(&mut self) -> Result<(), kube::Error> {
            self.0.push(clock::instant());
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_do_the_whole_work_lets_others_go_first_and_go_again() {
        let secs = |moments: &[Instant], began: Instant| -> Vec<u64> {
            moments.iter().map(|at| (*at - began).as_secs()).collect()
        };
        for (able_at, let_go) in
            [(0, vec![200]), (30, vec![200]), (75, vec![70, 200]), (999, vec![70, 140, 200])]
        {
            let (held, stop, began) =
                (Held(watch::channel(false).0), CancellationToken::new(), clock::instant());
            let mut lease = Free(Vec::new());
            let able = || tokio::time::sleep_until(began + Duration::from_secs(able_at));
            let (held_now, end) = (held.0.subscribe(), stop.clone());
            let watching = async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert_eq!(*held_now.borrow(), able_at == 0, "at once, or after the others");
                tokio::time::sleep(Duration::from_secs(195)).await;
                end.cancel();
            };
            tokio::join!(take_turns(&held, &mut lease, able, &stop), watching);
            assert_eq!(secs(&lease.0, began), let_go, "able after {able_at} s");
            assert!(!*held.0.borrow());
        }
    }

    /// What is said when the looks go so, one after the other, and then hang.
    async fn told(looks: Vec<Result<Outcome, kube::Error>>) -> Vec<(u64, bool)> {
        let (held, stop, began) = (Held(watch::channel(false).0), CancellationToken::new(), clock::instant());
        let mut seen = held.0.subscribe();
        let mut looks = looks.into_iter();
        let mut told = Vec::new();
        let watching = async {
            while seen.changed().await.is_ok() {
                told.push(((clock::instant() - began).as_secs(), *seen.borrow_and_update()));
            }
        };
        tokio::select! {
            () = hold(&held, &mut looks, &stop) => {}
            () = watching => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        told
    }

    fn refused() -> Result<Outcome, kube::Error> {
        Err(kube::Error::Service("no way".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_whose_renewals_hang_says_so_before_the_lease_can_be_taken() {
        let held = || Ok(Outcome::Held);
        // Renewed at 0 and at 3 s; the look of 6 s hangs, and so does the next.
        let end = 3 + TRUST.as_secs();
        assert_eq!(told(vec![held(), held()]).await, [(0, true), (end, false)]);
        assert!(TRUST < DURATION, "others may take it 3 + 15 s after the start at the earliest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_whose_renewals_are_refused_keeps_it_for_a_while_and_takes_it_again() {
        let outcomes = vec![Ok(Outcome::Held), refused(), refused(), Ok(Outcome::Held)];
        // At 9 s it is renewed, before the trust in the first renewal ended.
        assert_eq!(told(outcomes).await, [(0, true), (9 + TRUST.as_secs(), false)]);
        let lost = vec![Ok(Outcome::Held), Ok(Outcome::Others), Ok(Outcome::Held)];
        assert_eq!(told(lost).await[..3], [(0, true), (3, false), (6, true)]);
    }
}
