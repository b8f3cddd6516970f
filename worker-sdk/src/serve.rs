//! [`serve`]: a whole worker process, told everything by its environment.

use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::client::Bellows;
use crate::config::Config;
use crate::dispatcher::{DispatcherError, WorkerDispatcher};
use crate::error::ConnectError;
use crate::http;
use crate::tasks::Tasks;

/// Why a worker process could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
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
}

/// Runs a worker process until SIGTERM or SIGINT, then drains it: running tasks may
/// finish for `BELLOWS_DRAIN_TIMEOUT`, and what does not finish is handed back, which
/// costs no attempt. Works as process 1 of an image that holds nothing else.
///
/// Sets up logging unless the program has done so, serves `/healthz`, `/readyz` and
/// `/metrics`, and is told the rest by its environment: see [`Config`].
///
/// # Errors
/// Before anything starts: what is missing or malformed. Later: what ended the worker. An
/// unreachable registry is no error: `/readyz` says so, and it is tried again.
pub async fn serve(tasks: Tasks) -> Result<(), ServeError> {
    init_logging();
    let config = Config::from_env()?;
    let tasks = chosen(tasks, config.definition.as_deref())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let client = Bellows::connect(&config)?;
    let mut dispatcher = WorkerDispatcher::of(&client, tasks).pod(&config.pod);
    if let Some(slots) = config.concurrency {
        tracing::info!(slots, "BELLOWS_CONCURRENCY wins over the code");
        dispatcher = dispatcher.concurrency(slots);
    }
    let mut handle = dispatcher.launch().await?;
    let refused = |source| ServeError::Http { addr: config.http_addr, source };
    let mut http = http::serve(config.http_addr, &handle, &client.shared.control).map_err(refused)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = handle.ended() => return Err(error.into()),
        served = http.join() => {
            let ended = || std::io::Error::other("the server ended");
            return Err(refused(served.and_then(Result::err).unwrap_or_else(ended)));
        }
    }
    tracing::info!(drain_timeout = ?config.drain_timeout, "told to end");
    // Health goes on being served meanwhile: `/readyz` says that it drains.
    handle.drain(config.drain_timeout).await?;
    tracing::info!("drained");
    Ok(())
}

fn chosen(mut tasks: Tasks, wanted: Option<&str>) -> Result<Tasks, ServeError> {
    let Some(wanted) = wanted else { return Ok(tasks) };
    let known = tasks.names().join(", ");
    tasks.kinds.retain(|kind| kind.name == wanted);
    if tasks.kinds.is_empty() {
        return Err(ServeError::UnknownDefinition { wanted: wanted.to_owned(), known });
    }
    Ok(tasks)
}

/// Logs to standard error, as `BELLOWS_LOG` and `BELLOWS_LOG_FORMAT` say. Does nothing if
/// the program has a logger already.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("BELLOWS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("BELLOWS_LOG_FORMAT").is_ok_and(|format| format == "json");
    // An error means that there is a logger already: it stays.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}
