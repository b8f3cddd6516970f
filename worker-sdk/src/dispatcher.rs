//! The loop of one worker: a session, its live key, the watch on its own prefix, and the
//! attempts it runs.
//!
//! # Expected flow
//! [`WorkerDispatcher::launch`] opens a session, registers a worker id that was never used
//! before, and runs what is assigned to it. A lost session cancels its handlers and is
//! followed by a new one with a new id. [`DispatcherHandle::drain`] ends it.
//!
//! # Guarantees
//! At most as many handlers run as there are slots. An outcome is sent until an answer
//! says whether it was recorded. Nothing runs silently deaf: [`DispatcherHandle::health`]
//! says why tasks do not arrive, and a fatal error ends [`DispatcherHandle::ended`].

mod attempt;
mod ending;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::coalesce::{Writer, WriterConfig};
use bellows_registry::backend::{BackendError, Change, Class, Entry};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::id::{AttemptId, DefinitionId, TaskId, WorkerId};
use bellows_registry::key::Key;
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{AssignmentRecord, Record, WorkerRecord, WorkerState};
use bellows_registry::session::Session;
use bellows_registry::txn::{self, AttemptRef, Batch, Move};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::client::Bellows;
use crate::control::Owned;
use crate::metrics::Metrics;
use crate::tasks::{Kind, Tasks};
use crate::worker::WorkerFactory;
use attempt::{Stage, Stop};

/// Slots where nobody says how many.
pub const DEFAULT_SLOTS: u32 = 8;

/// A worker that is not launched yet.
#[derive(Debug)]
pub struct WorkerDispatcher {
    client: Bellows,
    tasks: Tasks,
    pod: String,
    slots: Option<u32>,
    pub(crate) metrics: Metrics,
}

/// Why a dispatcher could not be launched, or ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DispatcherError {
    /// A name is not allowed.
    #[error("{0}")]
    Name(#[from] bellows_registry::id::IdError),
    /// There is nothing to do.
    #[error("no kind of work was given: add one with Tasks::with")]
    NoTasks,
    /// The registry refuses what a worker must do, and will go on refusing.
    #[error("the registry refuses this worker: {0}")]
    Refused(String),
    /// A loop of the dispatcher panicked.
    #[error("the dispatcher panicked")]
    Panicked,
    /// The registry could not be told of a definition.
    #[error("a task definition could not be made: {0}")]
    Define(String),
}

/// Whether tasks can arrive, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Lease and watch are live.
    Ready,
    /// Tasks cannot arrive now; the dispatcher works on it.
    NotReady(&'static str),
    /// It was told to drain.
    Draining,
    /// The operator wants it to finish what it has and take nothing.
    Cordoned,
}

/// A launched worker. Dropping it is a crash: its lease runs out, and its tasks run
/// elsewhere. To end well, [`DispatcherHandle::drain`] it.
#[derive(Debug)]
pub struct DispatcherHandle {
    loops: Vec<Owned<Result<(), DispatcherError>>>,
    drain: watch::Sender<Option<Instant>>,
    health: Vec<watch::Receiver<Health>>,
    ticks: Vec<watch::Receiver<Instant>>,
    metrics: Metrics,
}

impl WorkerDispatcher {
    /// A worker of one kind of work.
    pub fn new<F: WorkerFactory>(client: &Bellows, factory: F) -> Self {
        Self::of(client, Tasks::new().with(factory))
    }

    /// A worker of several kinds of work, each with slots of its own.
    pub fn of(client: &Bellows, tasks: Tasks) -> Self {
        let pod = "local".to_owned();
        Self { client: client.clone(), tasks, pod, slots: None, metrics: Metrics::new() }
    }

    /// How many tasks run at once, of each kind; wins over the kinds' own numbers.
    pub fn concurrency(mut self, slots: u32) -> Self {
        self.slots = Some(slots.max(1));
        self
    }

    /// The name that worker ids begin with: the pod's. A DNS name.
    pub fn pod(mut self, pod: &str) -> Self {
        pod.clone_into(&mut self.pod);
        self
    }

    /// Starts the loops. Returns at once: an unreachable registry is told by
    /// [`DispatcherHandle::health`], and tried again for ever.
    ///
    /// In a registry that this process hosts, the kinds of work are defined first.
    ///
    /// # Panics
    /// Outside of a tokio runtime: handlers run on it.
    pub async fn launch(self) -> Result<DispatcherHandle, DispatcherError> {
        if self.tasks.kinds.is_empty() {
            return Err(DispatcherError::NoTasks);
        }
        let (drain, draining) = watch::channel(None);
        let mut handle = DispatcherHandle {
            loops: Vec::new(),
            drain,
            health: Vec::new(),
            ticks: Vec::new(),
            metrics: self.metrics.clone(),
        };
        for kind in &self.tasks.kinds {
            let def = self.client.definition_named(kind.name)?;
            WorkerId::for_session(&self.pod, 0)?; // before anything starts
            self.client
                .define_if_hosted(&def, kind)
                .await
                .map_err(|error| DispatcherError::Define(error.to_string()))?;
            let (health, is_healthy) = watch::channel(Health::NotReady("the session is not open yet"));
            let (tick, ticked) = watch::channel(clock::instant());
            let slots = self.slots.or(kind.concurrency).unwrap_or(DEFAULT_SLOTS);
            self.metrics.slots(kind.name, slots);
            let dispatcher = Dispatcher {
                client: self.client.clone(),
                kind: kind.clone(),
                def,
                pod: self.pod.clone(),
                slots,
                permits: Arc::new(Semaphore::new(slots as usize)),
                users: Handle::current(),
                metrics: self.metrics.clone(),
                health,
                tick,
                draining: draining.clone(),
            };
            handle.loops.push(self.client.shared.control.spawn(dispatcher.run()));
            handle.health.push(is_healthy);
            handle.ticks.push(ticked);
        }
        Ok(handle)
    }
}

impl DispatcherHandle {
    /// Stops taking tasks, lets handlers finish for at most `deadline`, then cancels them
    /// and hands their tasks back, which costs no attempt. Ends the lease. Takes a few
    /// seconds more than `deadline` at most.
    ///
    /// # Errors
    /// What ended the dispatcher before it was drained.
    pub async fn drain(mut self, deadline: Duration) -> Result<(), DispatcherError> {
        self.drain.send_replace(Some(clock::instant() + deadline));
        let mut result = Ok(());
        for one in &mut self.loops {
            let ended = one.join().await.unwrap_or(Err(DispatcherError::Panicked));
            result = result.and(ended);
        }
        result
    }

    /// Waits until a loop ends by itself, which it does only on a fatal error. Cancel safe.
    pub async fn ended(&mut self) -> DispatcherError {
        let ends = self.loops.iter_mut().map(|one| Box::pin(one.join()));
        let (ended, ..) = futures::future::select_all(ends).await;
        match ended {
            Some(Err(error)) => error,
            Some(Ok(())) | None => DispatcherError::Panicked,
        }
    }

    /// Whether tasks can arrive: the least healthy of the kinds of work.
    pub fn health(&self) -> Health {
        let all = self.health.iter().map(|health| health.borrow().clone());
        all.reduce(|a, b| if a == Health::Ready { b } else { a })
            .unwrap_or(Health::NotReady("no kinds of work"))
    }

    /// Waits until tasks can arrive. Cancel safe.
    pub async fn ready(&mut self) {
        for health in &mut self.health {
            // An error means that the loop ended: `ended` says so.
            let _ = health.wait_for(|health| *health == Health::Ready).await;
        }
    }

    /// Whether the loops turn.
    pub fn is_alive(&self) -> bool {
        let now = clock::instant();
        self.ticks.iter().all(|tick| now.saturating_duration_since(*tick.borrow()) < Duration::from_secs(30))
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    pub(crate) fn watches(&self) -> (Vec<watch::Receiver<Health>>, Vec<watch::Receiver<Instant>>) {
        (self.health.clone(), self.ticks.clone())
    }
}

/// The loop of one kind of work.
struct Dispatcher {
    client: Bellows,
    kind: Kind,
    def: DefinitionId,
    pod: String,
    slots: u32,
    permits: Arc<Semaphore>,
    users: Handle,
    metrics: Metrics,
    health: watch::Sender<Health>,
    tick: watch::Sender<Instant>,
    draining: watch::Receiver<Option<Instant>>,
}

/// Why a session is over.
enum Over {
    Lost,
    Drained,
}

type Running = HashMap<(TaskId, AttemptId), watch::Sender<Stop>>;

impl Dispatcher {
    async fn run(mut self) -> Result<(), DispatcherError> {
        let shared = Arc::clone(&self.client.shared);
        let writer = Arc::new(Writer::new(Arc::clone(&shared.backend), None, WriterConfig::default()));
        let stage = Arc::new(Stage {
            backend: Arc::clone(&shared.backend),
            space: shared.space.clone(),
            writer,
            kind: self.kind.clone(),
            slots: Arc::clone(&self.permits),
            users: self.users.clone(),
            max_result: shared.options.max_body,
            metrics: self.metrics.clone(),
        });
        // Attempts outlive their session: an outcome in hand is still sent.
        let mut attempts = JoinSet::new();
        let mut waits = Waits::spread_by(self.pod.as_bytes());
        loop {
            self.tick.send_replace(clock::instant());
            if self.draining.borrow().is_some() {
                while attempts.join_next().await.is_some() {}
                return Ok(());
            }
            match self.session(&stage, &mut attempts).await {
                Ok(Over::Drained) => return Ok(()),
                Ok(Over::Lost) => waits.succeeded(),
                Err(error) if error.class() == Class::Invalid => {
                    return Err(DispatcherError::Refused(error.to_string()));
                }
                Err(error) => {
                    self.health.send_replace(Health::NotReady("the registry does not answer"));
                    tracing::warn!(definition = %self.def, %error, "no session yet");
                    let mut draining = self.draining.clone();
                    tokio::select! {
                        () = sleep(waits.after_failure()) => {}
                        _ = draining.wait_for(Option::is_some) => {}
                    }
                }
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
        let session = Session::open(Arc::clone(&shared.backend), shared.options.lease_ttl).await?;
        let worker = WorkerId::for_session(&self.pod, shared.entropy.bits64())
            .map_err(|error| BackendError::Invalid(error.to_string()))?;
        let record = self.record(WorkerState::Active);
        let register = txn::register_worker(&shared.space, &self.def, &worker, session.lease(), &record);
        // An unanswered registration is not repeated: another session gets another id.
        if !send(stage, register).await? {
            return Err(BackendError::unknown("a new worker id was taken"));
        }
        self.metrics.session(self.kind.name);
        tracing::info!(definition = %self.def, %worker, slots = self.slots, "worker registered");
        let over = self.serve(&session, &worker, stage, attempts).await;
        if matches!(over, Over::Lost) {
            tracing::warn!(definition = %self.def, %worker, "the session is lost: its handlers are cancelled");
        } else if let Err(error) = session.close().await {
            tracing::debug!(%error, "the lease runs out by itself");
        }
        Ok(over)
    }

    async fn serve(
        &mut self,
        session: &Session,
        worker: &WorkerId,
        stage: &Arc<Stage>,
        attempts: &mut JoinSet<()>,
    ) -> Over {
        let shared = Arc::clone(&self.client.shared);
        let range = shared.space.assignments_range(&self.def, worker);
        let mut mirror = Mirror::new(Arc::clone(&shared.backend), range);
        let (lost, mut running) = (session.lost(), Running::new());
        let mut draining = self.draining.clone();
        loop {
            session.tick();
            self.tick.send_replace(clock::instant());
            running.retain(|_, stop| !stop.is_closed());
            tokio::select! {
                () = lost.cancelled() => {
                    self.health.send_replace(Health::NotReady("the lease was lost"));
                    stop_all(&running, Stop::Lost);
                    return Over::Lost;
                }
                deadline = drain_deadline(&mut draining) => {
                    self.health.send_replace(Health::Draining);
                    return self.drain(session, worker, stage, attempts, &running, deadline).await;
                }
                event = mirror.next() => self.told(event, worker, stage, attempts, &mut running),
                Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
                () = sleep(session.ttl() / 4) => {}
            }
        }
    }

    fn told(
        &self,
        event: MirrorEvent,
        worker: &WorkerId,
        stage: &Arc<Stage>,
        attempts: &mut JoinSet<()>,
        running: &mut Running,
    ) {
        match event {
            MirrorEvent::Listed { entries, .. } => {
                self.health.send_replace(Health::Ready);
                let mut there = Vec::new();
                for entry in entries {
                    there.extend(self.assigned(&entry, worker, stage, attempts, running));
                }
                // What is not in the list was taken away while nobody looked.
                running.iter().filter(|(key, _)| !there.contains(key)).for_each(|(_, stop)| {
                    stop.send_replace(Stop::Withdrawn);
                });
            }
            MirrorEvent::Changed(changes) => {
                for change in changes.changes {
                    match change {
                        Change::Put(entry) => {
                            self.assigned(&entry, worker, stage, attempts, running);
                        }
                        Change::Delete { key, .. } => {
                            if let Ok(Key::Assignment(_, _, task, attempt)) = stage.space.parse(&key) {
                                // Its own settle deletes it too: then nothing listens any more.
                                if let Some(stop) = running.get(&(task, attempt)) {
                                    stop.send_replace(Stop::Withdrawn);
                                }
                            }
                        }
                    }
                }
            }
            MirrorEvent::Interrupted(error) => {
                tracing::debug!(%error, "the signal channel is interrupted");
                self.health.send_replace(Health::NotReady("the watch is interrupted"));
            }
            MirrorEvent::Resumed => {
                self.health.send_replace(Health::Ready);
            }
        }
    }

    /// Starts an attempt, unless it runs already.
    fn assigned(
        &self,
        entry: &Entry,
        worker: &WorkerId,
        stage: &Arc<Stage>,
        attempts: &mut JoinSet<()>,
        running: &mut Running,
    ) -> Option<(TaskId, AttemptId)> {
        let Ok(Key::Assignment(definition, _, task, attempt)) = stage.space.parse(&entry.key) else {
            return None;
        };
        if running.contains_key(&(task, attempt)) {
            return Some((task, attempt));
        }
        let record = match AssignmentRecord::decode(&entry.value) {
            Ok(record) => record,
            Err(error) => {
                // Left alone: the assigner takes it back in time.
                tracing::error!(%task, %error, "an assignment cannot be read");
                return None;
            }
        };
        let at = AttemptRef { definition, worker: worker.clone(), task, attempt };
        let (stop, stopped) = watch::channel(Stop::No);
        running.insert((task, attempt), stop);
        attempts.spawn(attempt::run(Arc::clone(stage), at, record, stopped));
        Some((task, attempt))
    }

    /// Takes nothing more, waits, hands back.
    async fn drain(
        &self,
        session: &Session,
        worker: &WorkerId,
        stage: &Arc<Stage>,
        attempts: &mut JoinSet<()>,
        running: &Running,
        deadline: Instant,
    ) -> Over {
        let record = self.record(WorkerState::Draining);
        let row = txn::put_worker(&stage.space, &self.def, worker, &record);
        // If this is not heard, the end of the lease says it.
        if let Err(error) = timeout(Duration::from_secs(2), send(stage, row)).await.unwrap_or(Ok(false)) {
            tracing::warn!(%error, "the registry was not told that this worker drains");
        }
        tracing::info!(definition = %self.def, %worker, running = attempts.len(), "draining");
        let lost = session.lost();
        let mut told_to_stop = false;
        let end = deadline + attempt::GRACE + Duration::from_secs(3);
        while !attempts.is_empty() {
            session.tick();
            self.tick.send_replace(clock::instant());
            let wake = if told_to_stop { end } else { deadline };
            tokio::select! {
                _ = attempts.join_next() => {}
                () = lost.cancelled() => {
                    stop_all(running, Stop::Lost);
                    return Over::Lost;
                }
                () = sleep(session.ttl() / 4) => {}
                () = sleep_until(wake) => {
                    if told_to_stop {
                        tracing::warn!(definition = %self.def, left = attempts.len(), "attempts are left behind");
                        break;
                    }
                    told_to_stop = true;
                    stop_all(running, Stop::HandBack);
                }
            }
        }
        Over::Drained
    }

    fn record(&self, state: WorkerState) -> WorkerRecord {
        WorkerRecord { slots: self.slots, state, sdk: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

fn stop_all(running: &Running, why: Stop) {
    for stop in running.values() {
        stop.send_replace(why);
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

async fn send(stage: &Stage, row: Move) -> Result<bool, BackendError> {
    let mut batch = Batch::default();
    if batch.push(row).is_err() {
        return Ok(false);
    }
    let answers = Batch::answers(stage.backend.txn(batch.into_txn(None)).await?);
    Ok(answers.is_some_and(|all| all.iter().all(|one| one.succeeded)))
}
