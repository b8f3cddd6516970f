//! The loop of one kind of work: session after session until it is told to drain.
//!
//! A session is a lease, a live key of its own on it, and two watches: the signal
//! channel, and the live key itself, by which the operator cordons a worker, and whose
//! absence says that the lease is over even where a renewal is answered.

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::coalesce::{Writer, WriterConfig};
use bellows_registry::backend::{BackendError, Class, Entry, RangeRequest};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{WorkerRecord, WorkerState};
use bellows_registry::session::Session;
use bellows_registry::txn;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use super::attempt::{self, GRACE, Stage, Stop};
use super::live::{Live, LiveKey, send};
use super::slots::Slots;
use super::standing::{Begin, Standing};
use super::{DispatcherError, Health};
use crate::client::Bellows;
use crate::envelope::codecs::Codecs;
use crate::metrics::Metrics;
use crate::middleware::Stack;
use crate::tasks::Kind;

/// After the deadline of a drain, and the grace of what was cancelled, outcomes and
/// hand-backs have so long to be answered.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The loop of one kind of work.
pub(super) struct Dispatcher {
    pub(super) client: Bellows,
    pub(super) kind: Kind,
    pub(super) stack: Stack,
    pub(super) def: DefinitionId,
    pub(super) pod: String,
    pub(super) version: Option<String>,
    pub(super) slots: Arc<Slots>,
    pub(super) users: Handle,
    pub(super) metrics: Metrics,
    pub(super) codecs: Codecs,
    pub(super) max_body: usize,
    pub(super) health: watch::Sender<Health>,
    pub(super) tick: watch::Sender<Instant>,
    pub(super) draining: watch::Receiver<Option<Instant>>,
}

/// Why a session is over.
enum Over {
    Lost,
    Drained,
}

/// One session, and what it holds.
struct Held<'a> {
    session: Session,
    worker: WorkerId,
    standing: Standing,
    stage: &'a Arc<Stage>,
    /// Attempts outlive their session: an outcome in hand is still sent.
    attempts: &'a mut JoinSet<()>,
}

impl Dispatcher {
    /// Runs until drained, or until the registry refuses for good.
    pub(super) async fn run(mut self) -> Result<(), DispatcherError> {
        let shared = Arc::clone(&self.client.shared);
        let stage = Arc::new(Stage {
            backend: Arc::clone(&shared.backend),
            space: shared.space.clone(),
            writer: Writer::new(Arc::clone(&shared.backend), None, WriterConfig::default()),
            kind: self.kind.clone(),
            stack: self.stack.clone(),
            slots: Arc::clone(&self.slots),
            users: self.users.clone(),
            version: self.version.clone(),
            max_body: self.max_body,
            codecs: self.codecs.clone(),
            metrics: self.metrics.clone(),
        });
        let mut attempts = JoinSet::new();
        let mut waits = Waits::spread_by(self.pod.as_bytes());
        loop {
            self.tick.send_replace(clock::instant());
            let drain_until = *self.draining.borrow();
            if let Some(deadline) = drain_until {
                self.health.send_replace(Health::Draining);
                finish(&mut attempts, deadline).await;
                return Ok(());
            }
            let began = clock::instant();
            match self.session(&stage, &mut attempts).await {
                Ok(Over::Drained) => return Ok(()),
                Ok(Over::Lost) if began.elapsed() > shared.options.lease_ttl => waits.succeeded(),
                Ok(Over::Lost) => {}
                Err(error) if error.class() == Class::Invalid => {
                    self.health
                        .send_replace(Health::NotReady("the registry refuses this worker: it has ended"));
                    tracing::error!(definition = %self.def, %error, "the registry refuses this worker: it ends");
                    return Err(DispatcherError::Refused(error.to_string()));
                }
                Err(error) => {
                    self.health.send_replace(Health::NotReady("the registry does not answer"));
                    tracing::warn!(definition = %self.def, %error, "no session yet");
                }
            }
            tokio::select! {
                () = sleep(waits.after_failure()) => {}
                _ = drain_deadline(&mut self.draining) => {}
            }
        }
    }

    /// One session, from its lease to its end.
    async fn session(
        &mut self,
        stage: &Arc<Stage>,
        attempts: &mut JoinSet<()>,
    ) -> Result<Over, BackendError> {
        let shared = Arc::clone(&self.client.shared);
        let session = tokio::select! {
            session = Session::open(Arc::clone(&shared.backend), shared.options.lease_ttl) => session?,
            // Nothing to give up yet, but for a lease without keys.
            _ = drain_deadline(&mut self.draining) => return Ok(Over::Lost),
        };
        let worker = WorkerId::for_session(&self.pod, shared.entropy.bits64())
            .map_err(|error| BackendError::Invalid(error.to_string()))?;
        let record = self.record(WorkerState::Active);
        let register = txn::register_worker(&shared.space, &self.def, &worker, session.lease(), &record);
        // An unanswered registration is not repeated: another session gets another id.
        let registered = send(&stage.backend, register).await.and_then(|done| {
            done.then_some(()).ok_or_else(|| BackendError::unknown("a new worker id was taken"))
        });
        if let Err(error) = registered {
            // It may be there all the same: nobody shall give it tasks.
            close(session).await;
            return Err(error);
        }
        self.metrics.session(self.kind.name);
        tracing::info!(definition = %self.def, %worker, slots = record.slots, "worker registered");
        let standing = Standing::new(stage.space.clone());
        let mut held = Held { session, worker, standing, stage, attempts };
        let over = self.serve(&mut held).await;
        match over {
            Over::Lost => {
                self.health.send_replace(Health::NotReady("the lease was lost"));
                held.standing.stop_all(Stop::Lost);
                tracing::warn!(definition = %self.def, worker = %held.worker, "the session is lost: its handlers are cancelled");
            }
            Over::Drained => close(held.session).await,
        }
        Ok(over)
    }

    async fn serve(&mut self, held: &mut Held<'_>) -> Over {
        let (space, backend) = (&held.stage.space, &held.stage.backend);
        let assignments = space.assignments_range(&self.def, &held.worker);
        let mut signals = Mirror::new(Arc::clone(backend), assignments);
        let mut live = LiveKey::new(Arc::clone(backend), space.clone(), &self.def, &held.worker);
        let mut stuck = self.slots.stuck();
        let lost = held.session.lost();
        let mut signal = Health::NotReady("the watch is not open yet");
        let mut state = WorkerState::Active;
        loop {
            held.session.tick();
            self.tick.send_replace(clock::instant());
            self.say(&signal, state);
            stuck.mark_unchanged();
            tokio::select! {
                // In this order: a lost session starts nothing (law 14).
                biased;
                () = lost.cancelled() => return Over::Lost,
                deadline = drain_deadline(&mut self.draining) => {
                    return self.drain(held, deadline, &mut signals, &mut live).await;
                }
                news = live.next(self.slots.usable()) => match news {
                    Live::Says(said) => state = said,
                    Live::Gone => return Over::Lost,
                    Live::NoNews => {}
                },
                Ok(()) = stuck.changed() => {}
                event = signals.next() => {
                    // Where all of the process stood still, the keeper may not have had its
                    // turn yet, and what waited in the socket is told first (law 14).
                    if !held.session.is_healthy() {
                        return Over::Lost;
                    }
                    if let Some(now) = health_of(&event) {
                        signal = now;
                    }
                    for begin in held.standing.told(event) {
                        held.begin(begin);
                    }
                }
                Some(_) = held.attempts.join_next(), if !held.attempts.is_empty() => {}
                () = sleep(held.session.ttl() / 4) => {}
            }
        }
    }

    fn say(&self, signal: &Health, state: WorkerState) {
        let health = match (signal, state) {
            (Health::Ready, WorkerState::Cordoned) => Health::Cordoned,
            (Health::Ready, WorkerState::Draining) => Health::Draining,
            (signal, _) => signal.clone(),
        };
        self.health.send_if_modified(|said| {
            let news = *said != health;
            if news {
                *said = health;
            }
            news
        });
    }

    /// Takes nothing more, waits, hands back. Meanwhile what runs can be cancelled and
    /// withdrawn as ever.
    async fn drain(
        &self,
        held: &mut Held<'_>,
        deadline: Instant,
        signals: &mut Mirror,
        live: &mut LiveKey,
    ) -> Over {
        self.health.send_replace(Health::Draining);
        tracing::info!(definition = %self.def, worker = %held.worker, running = held.attempts.len(), "draining");
        // What has no slot yet is handed back at once, and what is seen from now on too.
        held.stage.slots.close();
        let (lost, worker) = (held.session.lost(), held.worker.clone());
        let end = deadline + GRACE + LAST_WORDS;
        let mut telling = std::pin::pin!(self.tell_that_it_drains(held.stage, &worker));
        let (mut told, mut stopped) = (false, false);
        while !told || !held.attempts.is_empty() {
            held.session.tick();
            self.tick.send_replace(clock::instant());
            tokio::select! {
                biased;
                () = lost.cancelled() => return Over::Lost,
                unseen = &mut telling, if !told => {
                    told = true;
                    for entry in unseen {
                        if let Some(begin) = held.standing.put(&entry) {
                            held.begin(begin);
                        }
                    }
                }
                event = signals.next() => {
                    for begin in held.standing.told(event) {
                        held.begin(begin);
                    }
                }
                news = live.next(self.slots.usable()) => {
                    if news == Live::Gone {
                        return Over::Lost;
                    }
                }
                _ = held.attempts.join_next(), if !held.attempts.is_empty() => {}
                () = sleep_until(deadline), if !stopped => {
                    stopped = true;
                    held.standing.stop_all(Stop::HandBack);
                }
                () = sleep_until(end) => {
                    tracing::warn!(definition = %self.def, told, left = held.attempts.len(), "attempts are left behind");
                    break;
                }
                () = sleep(held.session.ttl() / 4) => {}
            }
        }
        Over::Drained
    }

    /// Tells the assigner until it is answered, and then reads what it gave before it
    /// heard: nothing follows that, since an assignment compares the worker's key. What
    /// nobody hears until the drain is over is said by the end of the lease.
    async fn tell_that_it_drains(&self, stage: &Arc<Stage>, worker: &WorkerId) -> Vec<Entry> {
        let assigned = stage.space.assignments_range(&self.def, worker);
        let mut waits = Waits::spread_by(self.pod.as_bytes());
        loop {
            let record = self.record(WorkerState::Draining);
            let row = txn::put_worker(&stage.space, &self.def, worker, &record);
            let telling = async {
                send(&stage.backend, row).await?;
                stage.backend.range(RangeRequest::new(assigned.clone())).await
            };
            match timeout(LAST_WORDS, telling).await {
                Ok(Ok(found)) => return found.entries,
                Ok(Err(error)) => {
                    tracing::warn!(%error, %worker, "the registry is told again that this worker drains");
                }
                Err(_) => {
                    tracing::warn!(%worker, "no answer: the registry is told again that this worker drains");
                }
            }
            sleep(waits.after_failure()).await;
        }
    }

    fn record(&self, state: WorkerState) -> WorkerRecord {
        WorkerRecord {
            slots: self.slots.usable(),
            state,
            sdk: env!("CARGO_PKG_VERSION").to_owned(),
            version: self.version.clone(),
        }
    }
}

impl Held<'_> {
    fn begin(&mut self, Begin { at, record, stop }: Begin) {
        self.attempts.spawn(attempt::run(Arc::clone(self.stage), at, record, stop));
    }
}

/// What an event of the signal channel says about the channel.
fn health_of(event: &MirrorEvent) -> Option<Health> {
    match event {
        MirrorEvent::Listed { .. } | MirrorEvent::Resumed => Some(Health::Ready),
        MirrorEvent::Changed(_) => None,
        MirrorEvent::Interrupted(error) => {
            tracing::debug!(%error, "the signal channel is interrupted");
            Some(Health::NotReady("the watch is interrupted"))
        }
    }
}

/// The time until which a drain may take; waits until there is one.
async fn drain_deadline(draining: &mut watch::Receiver<Option<Instant>>) -> Instant {
    let deadline = draining.wait_for(Option::is_some).await.map(|deadline| *deadline);
    match deadline {
        Ok(deadline) => deadline.unwrap_or_else(clock::instant),
        // The handle is gone: its owner has crashed or let go, and aborts this loop.
        Err(_) => std::future::pending().await,
    }
}

/// Without a session, a drain only waits for outcomes in hand to be answered.
async fn finish(attempts: &mut JoinSet<()>, deadline: Instant) {
    let all = async { while attempts.join_next().await.is_some() {} };
    if timeout_at(deadline + GRACE + LAST_WORDS, all).await.is_err() {
        tracing::warn!(left = attempts.len(), "attempts are left behind");
    }
}

/// Ends a lease, unless nobody answers: then it runs out by itself.
async fn close(session: Session) {
    match timeout(LAST_WORDS, session.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the lease runs out by itself"),
        Err(_) => tracing::debug!("the lease runs out by itself"),
    }
}
