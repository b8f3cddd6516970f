//! [`serve`]: a whole worker process, told everything by its environment.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Bellows;
use crate::config::{Config, LogFormat, Logging};
use crate::dispatcher::{DispatcherError, DispatcherHandle, Vitals, WorkerDispatcher};
use crate::error::ConnectError;
use crate::http;
use crate::manifest::{ImageError, print_manifest_if_asked};
use crate::tasks::{MissingState, Tasks};

/// Why a worker process could not start, or ended by itself.
///
/// Its `Debug` is the sentence with its causes: that is what a `main` which returns it
/// prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The environment.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// `BELLOWS_DEFINITION` names work that this program does not do.
    #[error("BELLOWS_DEFINITION={wanted:?} is not what this program does: {known}")]
    UnknownDefinition {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// `--print-manifest` with an `--image` that is none.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A handler asks for state that the program does not give.
    #[error(transparent)]
    State(#[from] MissingState),
    /// The address for health and metrics is taken or not allowed.
    #[error("cannot serve health and metrics on {addr} (BELLOWS_HTTP_ADDR)")]
    Http {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process may not listen for signals.
    #[error("cannot listen for SIGTERM")]
    Signals(#[source] std::io::Error),
    /// The worker ended by itself.
    #[error("the worker ended")]
    Dispatcher(#[from] DispatcherError),
    /// Nothing of a kind of work could run any more.
    #[error("every slot of {definition} is held by a handler that did not stop when it was told to")]
    Stuck {
        /// The kind of work.
        definition: &'static str,
    },
}

/// How long all slots may be stuck before the worker ends.
const STUCK_PATIENCE: Duration = Duration::from_secs(10);
/// A worker that has ended has so long to leave `main` by itself: its runtime waits for
/// handlers that block their thread. A pod has ten seconds beyond its drain, of which a
/// handler that does not stop takes up to five.
const EXIT_PATIENCE: Duration = Duration::from_secs(4);

impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Runs a worker process until SIGTERM or SIGINT, then drains it: running tasks may
/// finish for `BELLOWS_DRAIN_TIMEOUT`, and what does not finish is handed back, which
/// costs no attempt. Works as process 1 of an image that holds nothing else.
///
/// Started with `--print-manifest` (and `--image <image>`), the program prints the
/// TaskDefinitions of its tasks and ends, without a look at its environment:
/// see [`print_manifest_if_asked`].
///
/// Sets up logging unless the program has done so, serves `/healthz`, `/readyz` and
/// `/metrics`, and is told the rest by its environment: see [`Config`].
///
/// Handlers run on the caller's runtime. Everything else (the lease, outcomes, health,
/// the drain) has a thread of its own: handlers that block every thread of the runtime
/// cost neither the lease nor the pod.
///
/// ```no_run
/// use bellows_sdk::prelude::*;
///
/// # struct ResizeImage;
/// # impl TaskDefinition for ResizeImage {
/// #     const NAME: &'static str = "resize-image";
/// #     type Callback = String;
/// #     type Trigger = PublishTrigger<String>;
/// # }
/// async fn resize(_: TaskContext, url: String) -> TaskResult<String> {
///     Ok(url.into())
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), bellows_sdk::ServeError> {
///     bellows_sdk::serve(Tasks::new().with_fn::<ResizeImage, _, _>(resize)).await
/// }
/// ```
///
/// # Errors
/// Before anything starts: what is missing or malformed. Later: what ended the worker. An
/// unreachable registry is no error: `/readyz` says so, and it is tried again.
///
/// When all slots of a kind of work have been held for 10 s by handlers that did not stop
/// when they were told to, `/healthz` has failed for as long, the worker hands back what it
/// can, and this returns [`ServeError::Stuck`].
///
/// Where a handler that did not stop when it was told to keeps the program from leaving
/// `main`, the process is ended 4 s after the worker: with exit code 0 if it was drained,
/// else 1.
///
/// # Cancel safety
/// Dropping the future is a crash of the worker: its tasks run elsewhere once its lease
/// has run out.
pub async fn serve(tasks: Tasks) -> Result<(), ServeError> {
    if print_manifest_if_asked(&tasks)? {
        return Ok(());
    }
    init_logging()?;
    let config = Config::from_env()?;
    let tasks = chosen(tasks, config.definition.as_deref())?;
    tasks.check()?;
    let client = Bellows::connect(&config)?;
    let control = client.shared.control.clone();
    let signals = control.within(Signals::new).map_err(ServeError::Signals)?;
    let addr = config.http_addr;
    let listener = TcpListener::bind(addr).map_err(|source| ServeError::Http { addr, source })?;
    let mut dispatcher = WorkerDispatcher::of(&client, tasks).pod(&config.pod);
    if let Some(version) = &config.version {
        dispatcher = dispatcher.version(version);
    }
    if let Some(slots) = config.concurrency {
        dispatcher = dispatcher.told_concurrency(slots);
    }
    let handle = dispatcher.launch().await?;
    let run = control.spawn(until_drained(handle, signals, listener, config));
    run.end().await.unwrap_or(Err(ServeError::Dispatcher(DispatcherError::Panicked)))
}

/// The signals that end a worker.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn until_drained(
    mut handle: DispatcherHandle,
    mut signals: Signals,
    listener: TcpListener,
    config: Config,
) -> Result<(), ServeError> {
    let vitals = handle.vitals();
    let mut told = std::pin::pin!(http::serve(listener, vitals.clone()));
    tokio::select! {
        () = signals.any() => {}
        definition = vitals.all_stuck_for(STUCK_PATIENCE) => return Err(stuck(handle, definition).await),
        error = handle.ended() => return Err(error.into()),
        served = &mut told => {
            let source = served.err().unwrap_or_else(|| std::io::Error::other("it ended"));
            return Err(ServeError::Http { addr: config.http_addr, source });
        }
    }
    tracing::info!(drain_timeout = ?config.drain_timeout, "told to end");
    let mut drain = std::pin::pin!(handle.drain(config.drain_timeout));
    // Health goes on being served: `/readyz` says that it drains.
    let drained = tokio::select! {
        drained = &mut drain => drained,
        _ = &mut told => drain.await,
    };
    if vitals.any_stuck() {
        leave_in_time(vitals, i32::from(drained.is_err()));
    }
    drained?;
    tracing::info!("drained");
    Ok(())
}

/// Ends a worker of which nothing can run any more.
async fn stuck(handle: DispatcherHandle, definition: &'static str) -> ServeError {
    let (stuck, vitals) = (ServeError::Stuck { definition }, handle.vitals());
    tracing::error!("{stuck}: the worker ends");
    if let Err(error) = handle.drain(Duration::ZERO).await {
        tracing::warn!(%error, "the worker ended before it was drained");
    }
    leave_in_time(vitals, 1);
    stuck
}

/// Ends the process in a while, should a handler still keep it from leaving `main` then. On
/// a thread of its own: the user's may all be blocked, and the others end with `main`.
fn leave_in_time(vitals: Vitals, code: i32) {
    let exits = std::thread::Builder::new().name("bellows-exit".to_owned()).spawn(move || {
        std::thread::sleep(EXIT_PATIENCE);
        if vitals.any_stuck() {
            std::process::exit(code);
        }
    });
    if let Err(error) = exits {
        tracing::warn!(%error, "whoever watches this process has to end it");
    }
}

fn chosen(mut tasks: Tasks, wanted: Option<&str>) -> Result<Tasks, ServeError> {
    tasks.check_names()?;
    let Some(wanted) = wanted else { return Ok(tasks) };
    let known = tasks.names().join(", ");
    tasks.kinds.retain_mut(|kind| {
        let Some(alias) = kind.aliases.iter().find(|alias| **alias == wanted) else {
            return kind.name == wanted;
        };
        *kind = kind.under(alias);
        true
    });
    if tasks.kinds.is_empty() {
        return Err(ServeError::UnknownDefinition { wanted: wanted.to_owned(), known });
    }
    Ok(tasks)
}

/// Logs to standard error, as `BELLOWS_LOG` and `BELLOWS_LOG_FORMAT` say. Does nothing if
/// the program has a logger already.
///
/// # Errors
/// [`ConnectError::Malformed`] names the variable and what it may be.
pub fn init_logging() -> Result<(), ConnectError> {
    let logging = Logging::from_env()?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(logging.filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error means that there is a logger already: it stays.
    let _ = match logging.format {
        LogFormat::Json => logs.json().try_init(),
        LogFormat::Text => logs.try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{PublishTrigger, TaskDefinition};

    macro_rules! kind {
        ($kind:ident, $name:literal, $aliases:expr) => {
            struct $kind;
            impl TaskDefinition for $kind {
                const NAME: &'static str = $name;
                const ALIASES: &'static [&'static str] = &$aliases;
                type Callback = String;
                type Trigger = PublishTrigger<String>;
            }
        };
    }
    kind!(Resize, "resize", ["scale"]);
    kind!(Crop, "crop", []);
    kind!(Scale, "scale", []);
    kind!(Shrink, "shrink", ["scale"]);

    fn with<T: TaskDefinition<Callback = String, Trigger = PublishTrigger<String>>>(tasks: Tasks) -> Tasks {
        tasks.with_fn::<T, _, _>(|_, text| async move { Ok(text.into()) })
    }

    #[test]
    fn the_one_kind_is_chosen_by_its_name_or_an_older_one() {
        let tasks = || with::<Crop>(with::<Resize>(Tasks::new()));
        let names = |wanted| chosen(tasks(), wanted).map(|tasks| tasks.names());
        assert_eq!(names(None).unwrap(), ["resize", "crop"]);
        assert_eq!(names(Some("crop")).unwrap(), ["crop"]);
        assert_eq!(names(Some("scale")).unwrap(), ["scale"]);
        assert!(matches!(names(Some("blur")), Err(ServeError::UnknownDefinition { .. })));
    }

    #[test]
    fn a_name_that_two_kinds_claim_is_refused_whichever_is_wanted() {
        for wanted in [None, Some("scale"), Some("resize")] {
            for tasks in
                [with::<Scale>(with::<Resize>(Tasks::new())), with::<Shrink>(with::<Resize>(Tasks::new()))]
            {
                let refused = chosen(tasks, wanted).unwrap_err();
                assert!(matches!(
                    refused,
                    ServeError::Dispatcher(DispatcherError::NameTaken { name: "scale", .. })
                ));
            }
        }
    }
}
