//! What is told of a launched worker, to people and to the kubelet. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use tokio::sync::watch;

use super::Health;
use super::slots::Slots;
use crate::drift::Drift;
use crate::metrics::Metrics;

/// The signs of life of a launched worker.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    pub(super) health: Vec<watch::Receiver<Health>>,
    pub(super) ticks: Vec<watch::Receiver<Instant>>,
    pub(super) slots: Vec<Arc<Slots>>,
    pub(super) metrics: Metrics,
    pub(super) drift: Vec<watch::Receiver<Vec<Drift>>>,
}

/// A loop that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

impl Vitals {
    /// The least healthy of the kinds of work.
    pub(crate) fn health(&self) -> Health {
        let mut all = self.health.iter().map(|health| health.borrow().clone());
        all.find(|health| *health != Health::Ready).unwrap_or(Health::Ready)
    }

    pub(crate) fn drift(&self) -> Vec<Drift> {
        self.drift.iter().flat_map(|drift| drift.borrow().clone()).collect()
    }

    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.text()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.ailment().is_none()
    }

    /// Why the worker is as good as dead, if it is.
    pub(crate) fn ailment(&self) -> Option<&'static str> {
        let now = clock::instant();
        let turns = |tick: &watch::Receiver<Instant>| now.saturating_duration_since(*tick.borrow()) < STUCK;
        if !self.ticks.iter().all(turns) {
            return Some("the dispatcher's loop does not turn");
        }
        let all_stuck = self.slots.iter().any(|slots| slots.all_stuck());
        all_stuck.then_some("every slot is held by a handler that did not stop when it was told to")
    }

    /// Whether a handler that was told to stop has not ended yet.
    pub(crate) fn any_stuck(&self) -> bool {
        self.slots.iter().any(|slots| *slots.stuck().borrow() > 0)
    }

    /// Waits until all slots of a kind of work have been stuck for so long without a
    /// break; answers the kind. Cancel safe.
    pub(crate) async fn all_stuck_for(&self, time: Duration) -> &'static str {
        let each = self.slots.iter().map(|slots| Box::pin(all_stuck_for(slots, time)));
        futures::future::select_all(each).await.0
    }
}

async fn all_stuck_for(slots: &Slots, time: Duration) -> &'static str {
    let mut stuck = slots.stuck();
    loop {
        // An error cannot be: the sender is in `slots`.
        let _ = stuck.wait_for(|stuck| slots.are_all(*stuck)).await;
        let not_all = stuck.wait_for(|stuck| !slots.are_all(*stuck));
        if tokio::time::timeout(time, not_all).await.is_err() {
            return slots.name();
        }
    }
}
