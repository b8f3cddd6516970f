//! `/healthz`, `/readyz` and `/metrics` of a worker.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use bellows_registry::clock::{self, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control::{Control, Owned};
use crate::dispatcher::{DispatcherHandle, Health};
use crate::metrics::Metrics;

/// What is told over HTTP.
#[derive(Clone)]
struct Told {
    health: Vec<watch::Receiver<Health>>,
    ticks: Vec<watch::Receiver<Instant>>,
    metrics: Metrics,
}

/// A loop that has not turned for so long is stuck: restart the process.
const STUCK: std::time::Duration = std::time::Duration::from_secs(30);

impl Told {
    fn alive(&self) -> (StatusCode, &'static str) {
        let now = clock::instant();
        let turns = |tick: &watch::Receiver<Instant>| now.saturating_duration_since(*tick.borrow()) < STUCK;
        if self.ticks.iter().all(turns) {
            (StatusCode::OK, "alive\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the dispatcher's loop does not turn\n")
        }
    }

    fn ready(&self) -> (StatusCode, String) {
        let not_ready = self.health.iter().find(|health| *health.borrow() != Health::Ready);
        let said = match not_ready.map(|health| health.borrow().clone()) {
            None => return (StatusCode::OK, "ready\n".to_owned()),
            Some(Health::NotReady(why)) => format!("not ready: {why}\n"),
            Some(Health::Draining) => "draining\n".to_owned(),
            Some(Health::Cordoned) => "cordoned\n".to_owned(),
            Some(Health::Ready) => "ready\n".to_owned(), // it changed while we looked
        };
        (StatusCode::SERVICE_UNAVAILABLE, said)
    }
}

/// Binds the address, and serves on the SDK's own thread: handlers that block every thread
/// of the user's runtime must not look like a dead process to the kubelet.
pub(crate) fn serve(
    addr: SocketAddr,
    handle: &DispatcherHandle,
    control: &Control,
) -> std::io::Result<Owned<std::io::Result<()>>> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let (health, ticks) = handle.watches();
    let told = Told { health, ticks, metrics: handle.metrics() };
    let (alive, ready, metrics) = (told.clone(), told.clone(), told);
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(alive.alive())))
        .route("/readyz", get(move || std::future::ready(ready.ready())))
        .route("/metrics", get(move || std::future::ready(metrics.metrics.text())));
    Ok(control.spawn(async move { axum::serve(TcpListener::from_std(listener)?, router).await }))
}
