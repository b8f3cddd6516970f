//! `/healthz`, `/readyz` and `/metrics` of a worker.

use std::net::TcpListener;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;

use crate::dispatcher::{Health, Vitals};

/// What `/metrics` says: the format of `prometheus-client`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn alive(vitals: &Vitals) -> (StatusCode, String) {
    match vitals.ailment() {
        None => (StatusCode::OK, "alive\n".to_owned()),
        Some(ailment) => (StatusCode::SERVICE_UNAVAILABLE, format!("{ailment}\n")),
    }
}

fn ready(vitals: &Vitals) -> (StatusCode, String) {
    let said = match vitals.health() {
        Health::Ready => return (StatusCode::OK, details(vitals)),
        Health::NotReady(why) => format!("not ready: {why}\n"),
        Health::Draining => "draining\n".to_owned(),
        Health::Cordoned => "cordoned\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, said)
}

/// Ready, and what is worth knowing all the same: a line each.
fn details(vitals: &Vitals) -> String {
    let drift = vitals.drift();
    let lines = drift.iter().map(|drift| format!("drift: {drift}\n"));
    std::iter::once("ready\n".to_owned()).chain(lines).collect()
}

/// Serves on a bound socket until the future is dropped, or the socket fails.
pub(crate) async fn serve(listener: TcpListener, vitals: Vitals) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (healthz, readyz, metrics) = (vitals.clone(), vitals.clone(), vitals);
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(alive(&healthz))))
        .route("/readyz", get(move || std::future::ready(ready(&readyz))))
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.metrics_text()) }),
        );
    axum::serve(listener, router).await
}
