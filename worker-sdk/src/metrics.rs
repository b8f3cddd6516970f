//! What a worker counts.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
//! | `bellows_worker_attempts_total` | counter | `definition`, `outcome` | attempts that ended: `succeeded`, `failed`, `parked`, `cancelled`, `snoozed`, `handed_back`, `undecodable`, `abandoned` |
//! | `bellows_worker_attempt_seconds` | histogram | `definition` | how long attempts took |
//! | `bellows_worker_running` | gauge | `definition` | attempts that run now |
//! | `bellows_worker_stuck` | gauge | `definition` | handlers that were told to stop and did not |
//! | `bellows_worker_slots` | gauge | `definition` | attempts that may run at once |
//! | `bellows_worker_sessions_total` | counter | `definition` | sessions opened; more than one means that a lease was lost |
//!
//! Labels are bounded: definitions are those of this process.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    definition: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct How {
    definition: &'static str,
    outcome: &'static str,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0])
    }
}

/// The worker's metrics. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    attempts: Family<How, Counter>,
    seconds: Family<Of, Histogram, Seconds>,
    running: Family<Of, Gauge<i64, AtomicI64>>,
    stuck: Family<Of, Gauge<i64, AtomicI64>>,
    slots: Family<Of, Gauge<i64, AtomicI64>>,
    sessions: Family<Of, Counter>,
}

impl std::fmt::Debug for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seconds")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("bellows_worker");
        let attempts = Family::<How, Counter>::default();
        let seconds = Family::<Of, Histogram, Seconds>::new_with_constructor(Seconds);
        let running = Family::<Of, Gauge<i64, AtomicI64>>::default();
        let stuck = Family::<Of, Gauge<i64, AtomicI64>>::default();
        let slots = Family::<Of, Gauge<i64, AtomicI64>>::default();
        let sessions = Family::<Of, Counter>::default();
        registry.register("attempts", "Attempts that ended", attempts.clone());
        registry.register("attempt_seconds", "How long attempts took", seconds.clone());
        registry.register("running", "Attempts that run now", running.clone());
        registry.register("stuck", "Handlers that were told to stop and did not", stuck.clone());
        registry.register("slots", "Attempts that may run at once", slots.clone());
        registry.register("sessions", "Sessions opened", sessions.clone());
        Self { registry: Arc::new(registry), attempts, seconds, running, stuck, slots, sessions }
    }

    pub(crate) fn started(&self, definition: &'static str) {
        self.running.get_or_create(&Of { definition }).inc();
    }

    pub(crate) fn ended(&self, definition: &'static str) {
        self.running.get_or_create(&Of { definition }).dec();
    }

    pub(crate) fn outcome(&self, definition: &'static str, outcome: &'static str, took: Duration) {
        self.attempts.get_or_create(&How { definition, outcome }).inc();
        self.seconds.get_or_create(&Of { definition }).observe(took.as_secs_f64());
    }

    pub(crate) fn stuck(&self, definition: &'static str, change: i64) {
        self.stuck.get_or_create(&Of { definition }).inc_by(change);
    }

    pub(crate) fn slots(&self, definition: &'static str, slots: u32) {
        self.slots.get_or_create(&Of { definition }).set(i64::from(slots));
    }

    pub(crate) fn session(&self, definition: &'static str) {
        self.sessions.get_or_create(&Of { definition }).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(), // writing to a String does not fail
        }
    }
}
