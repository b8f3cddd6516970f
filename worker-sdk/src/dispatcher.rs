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
mod live;
mod reporter;
mod sending;
mod sessions;
pub(crate) mod slots;
mod standing;
mod vitals;

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::id::WorkerId;
use bellows_registry::record::limits;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::client::Bellows;
use crate::control::Owned;
use crate::drift::{self, Drift};
use crate::error::OptionError;
use crate::metrics::Metrics;
use crate::middleware::Stack;
use crate::tasks::{Kind, MissingState, Tasks};
use crate::worker::WorkerFactory;
use sessions::Dispatcher;
use slots::Slots;
pub(crate) use vitals::Vitals;

/// Slots where nobody says how many.
pub const DEFAULT_SLOTS: u32 = 8;

/// A worker that is not launched yet.
#[derive(Debug)]
pub struct WorkerDispatcher {
    client: Bellows,
    tasks: Tasks,
    pod: String,
    version: Option<String>,
    slots: Option<u32>,
    told_slots: Option<u32>,
    pub(crate) metrics: Metrics,
}

/// Why a dispatcher could not be launched, or ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DispatcherError {
    /// A name is not allowed.
    #[error("{0}")]
    Name(#[from] bellows_registry::id::IdError),
    /// An option's value is not allowed.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// There is nothing to do.
    #[error("no kind of work was given: add one with Tasks::with")]
    NoTasks,
    /// A handler asks for state that the program does not give.
    #[error(transparent)]
    State(#[from] MissingState),
    /// Two kinds of work have the same name.
    #[error("{by} says that it was called {name} before, but {name} is another kind of work here")]
    NameTaken {
        /// The name.
        name: &'static str,
        /// The kind of work that claims it too.
        by: &'static str,
    },
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
#[non_exhaustive]
pub enum Health {
    /// Lease and watch are live.
    Ready,
    /// Tasks cannot arrive now; the dispatcher works on it, unless it says that it has ended.
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
    slots: Vec<Arc<Slots>>,
    metrics: Metrics,
    drift: Vec<watch::Receiver<Vec<Drift>>>,
    /// Follow the policies. Nothing depends on them.
    followers: Vec<Owned<()>>,
}

impl WorkerDispatcher {
    /// A worker of one kind of work.
    pub fn new<F: WorkerFactory>(client: &Bellows, factory: F) -> Self {
        Self::of(client, Tasks::new().with(factory))
    }

    /// A worker of several kinds of work, each with slots of its own.
    pub fn of(client: &Bellows, tasks: Tasks) -> Self {
        let pod = "local".to_owned();
        let (client, metrics) = (client.clone(), Metrics::new());
        Self { client, tasks, pod, version: None, slots: None, told_slots: None, metrics }
    }

    /// How many tasks run at once, of each kind; wins over the kinds' own numbers.
    pub fn concurrency(mut self, slots: u32) -> Self {
        self.slots = Some(slots.max(1));
        self
    }

    /// As [`WorkerDispatcher::concurrency`], by the TaskDefinition's word: code that says otherwise is drift.
    pub(crate) fn told_concurrency(mut self, slots: u32) -> Self {
        self.told_slots = Some(slots);
        self.concurrency(slots)
    }

    /// The name that worker ids begin with: the pod's. A DNS name.
    pub fn pod(mut self, pod: &str) -> Self {
        pod.clone_into(&mut self.pod);
        self
    }

    /// The version of this program, such as its image: whatever tells one roll-out from
    /// the next. A payload that one version cannot read is then given to workers of other
    /// versions before its task is parked. At most 256 bytes; what is beyond is cut off.
    pub fn version(mut self, version: &str) -> Self {
        let end = (0..=limits::VERSION.min(version.len())).rev().find(|end| version.is_char_boundary(*end));
        self.version = Some(version[..end.unwrap_or(0)].to_owned()).filter(|version| !version.is_empty());
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
        self.tasks.check()?;
        let codecs = self.tasks.codecs.clone().unwrap_or_else(|| self.client.shared.options.codecs.clone());
        codecs.check()?;
        let max_body = self.tasks.max_body.unwrap_or(self.client.shared.options.max_body);
        let kinds = self.kinds_to_serve().await?;
        let (drain, draining) = watch::channel(None);
        let mut handle = DispatcherHandle {
            loops: Vec::new(),
            drain,
            health: Vec::new(),
            ticks: Vec::new(),
            slots: Vec::new(),
            metrics: self.metrics.clone(),
            drift: Vec::new(),
            followers: Vec::new(),
        };
        for kind in &kinds {
            let def = self.client.definition_named(kind.name)?;
            WorkerId::for_session(&self.pod, 0)?; // before anything starts
            self.client
                .define_if_hosted(&def, kind)
                .await
                .map_err(|error| DispatcherError::Define(error.to_string()))?;
            let (health, is_healthy) = watch::channel(Health::NotReady("the session is not open yet"));
            let (tick, ticked) = watch::channel(clock::instant());
            let slots = self.slots.or(kind.concurrency).unwrap_or(DEFAULT_SLOTS);
            let slots = Slots::new(slots, kind.name, self.metrics.clone());
            let dispatcher = Dispatcher {
                client: self.client.clone(),
                kind: kind.clone(),
                stack: Stack::of(Arc::clone(&kind.runner), kind.name, &self.tasks.layers),
                def,
                pod: self.pod.clone(),
                version: self.version.clone(),
                slots: Arc::clone(&slots),
                users: Handle::current(),
                metrics: self.metrics.clone(),
                codecs: codecs.clone(),
                max_body,
                health,
                tick,
                draining: draining.clone(),
            };
            handle.loops.push(self.client.shared.control.spawn(dispatcher.run()));
            if self.client.shared.assigner.is_none() {
                handle.follow_policy(&self.client, kind, self.told_slots)?;
            }
            handle.health.push(is_healthy);
            handle.ticks.push(ticked);
            handle.slots.push(slots);
        }
        Ok(handle)
    }
}

impl Tasks {
    /// Whether every name, present or past, is one kind of work's.
    pub(crate) fn check_names(&self) -> Result<(), DispatcherError> {
        for kind in &self.kinds {
            let others = || self.kinds.iter().filter(|other| other.name != kind.name);
            let taken =
                |alias: &&&'static str| others().any(|o| o.name == **alias || o.aliases.contains(*alias));
            if let Some(name) = kind.aliases.iter().find(taken) {
                return Err(DispatcherError::NameTaken { name, by: kind.name });
            }
        }
        Ok(())
    }
}

impl WorkerDispatcher {
    /// The kinds of work, and again under each older name that the registry knows, if this
    /// process hosts it. Elsewhere a worker serves one name at a time.
    async fn kinds_to_serve(&self) -> Result<Vec<Kind>, DispatcherError> {
        let mut kinds = self.tasks.kinds.clone();
        for kind in &self.tasks.kinds {
            for alias in kind.aliases {
                if kinds.iter().any(|other| other.name == *alias) {
                    return Err(DispatcherError::NameTaken { name: alias, by: kind.name });
                }
                let def = self.client.definition_named(alias)?;
                if self
                    .client
                    .hosts(&def)
                    .await
                    .map_err(|error| DispatcherError::Define(error.to_string()))?
                {
                    kinds.push(kind.under(alias));
                }
            }
        }
        Ok(kinds)
    }
}

impl DispatcherHandle {
    /// Where this process hosts the registry, what the code states is applied instead.
    fn follow_policy(
        &mut self,
        client: &Bellows,
        kind: &Kind,
        told_slots: Option<u32>,
    ) -> Result<(), DispatcherError> {
        let (said, drift) = watch::channel(Vec::new());
        let def = client.definition_named(kind.name)?;
        let following = drift::follow(client.clone(), def, kind.clone(), told_slots, said);
        self.followers.push(client.shared.control.spawn(following));
        self.drift.push(drift);
        Ok(())
    }

    /// What the code states and the registry's definitions say otherwise; they count. Empty
    /// while nothing is known, and where this process hosts the registry.
    pub fn drift(&self) -> Vec<Drift> {
        self.vitals().drift()
    }

    /// Stops taking tasks, lets handlers finish for at most `deadline`, then cancels them
    /// and hands their tasks back, which costs no attempt. Ends the lease. Takes a few
    /// seconds more than `deadline` at most.
    ///
    /// # Errors
    /// What ended the dispatcher before it was drained.
    pub async fn drain(mut self, deadline: Duration) -> Result<(), DispatcherError> {
        self.drain.send_replace(Some(clock::instant() + deadline.min(clock::FAR)));
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
        self.vitals().health()
    }

    /// Waits until tasks can arrive, or never will: [`DispatcherHandle::health`] then says why,
    /// and [`DispatcherHandle::ended`] is at its end. Cancel safe.
    pub async fn ready(&mut self) {
        for health in &mut self.health {
            // An error means that the loop ended: `ended` says so.
            let _ = health.wait_for(|health| *health == Health::Ready).await;
        }
    }

    /// Whether the loops turn, and no kind of work has all its slots held by handlers that
    /// were told to stop and did not.
    pub fn is_alive(&self) -> bool {
        self.vitals().is_alive()
    }

    /// What the worker counts, as the text that Prometheus reads (OpenMetrics). The table
    /// is in `docs/reference/environment.md`.
    pub fn metrics_text(&self) -> String {
        self.vitals().metrics_text()
    }

    /// What is told of a worker over HTTP, for as long as anybody asks.
    pub(crate) fn vitals(&self) -> Vitals {
        Vitals {
            health: self.health.clone(),
            ticks: self.ticks.clone(),
            slots: self.slots.clone(),
            metrics: self.metrics.clone(),
            drift: self.drift.clone(),
        }
    }
}
