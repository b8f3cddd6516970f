//! What machines read at `/metrics`.
//!
//! | Metric | Labels |
//! |---|---|
//! | `bellows_definition_tasks` | namespace, definition, state: due, delayed, assigned, parked |
//! | `bellows_definition_oldest_wait_seconds` | namespace, definition |
//! | `bellows_definition_workers`, `bellows_definition_slots` | namespace, definition |
//! | `bellows_reconciles_total` | result: ok or an error class |
//! | `bellows_scalings_total` | direction: out, in |
//! | `bellows_scaling_failures_total` | |
//! | `bellows_scaling_write_seconds` | (histogram) |
//!
//! Labels are bounded by the definitions there are; one that is gone takes its series along.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellows_registry::clock::Instant;
use bellows_registry::demand::Demand;
use bellows_registry::id::DefinitionId;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

/// Every metric. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    tasks: Family<Labels, Gauge>,
    oldest: Family<Labels, Gauge>,
    workers: Family<Labels, Gauge>,
    slots: Family<Labels, Gauge>,
    reconciles: Family<Labels, Counter>,
    scalings: Family<Labels, Counter>,
    scaling_failures: Counter,
    scaling_write: Histogram,
    known: Mutex<BTreeSet<DefinitionId>>,
}

const STATES: [&str; 4] = ["due", "delayed", "assigned", "parked"];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("bellows");
        let (tasks, oldest) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
        let (workers, slots) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
        let (reconciles, scalings) =
            (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        let scaling_failures = Counter::default();
        let scaling_write = Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
        registry.register("definition_tasks", "Tasks by state", tasks.clone());
        registry.register(
            "definition_oldest_wait_seconds",
            "How long the oldest due task has waited",
            oldest.clone(),
        );
        registry.register("definition_workers", "Living workers that take tasks", workers.clone());
        registry.register("definition_slots", "Slots of those workers", slots.clone());
        registry.register("reconciles", "Reconciles by result", reconciles.clone());
        registry.register("scalings", "Changes of a number of pods", scalings.clone());
        registry.register("scaling_failures", "Changes that failed", scaling_failures.clone());
        registry.register(
            "scaling_write_seconds",
            "From decision to the API server's answer",
            scaling_write.clone(),
        );
        Self(Arc::new(Inner {
            registry,
            tasks,
            oldest,
            workers,
            slots,
            reconciles,
            scalings,
            scaling_failures,
            scaling_write,
            known: Mutex::default(),
        }))
    }
}

fn of(id: &DefinitionId) -> Labels {
    vec![("namespace", id.namespace.to_string()), ("definition", id.name.to_string())]
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    /// The text that Prometheus reads.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// A reconcile has ended.
    pub fn reconciled(&self, result: &str) {
        self.0.reconciles.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// A number of pods was changed.
    pub fn scaled(&self, from: u32, to: u32, took: Duration) {
        let direction = if to > from { "out" } else { "in" };
        self.0.scalings.get_or_create(&vec![("direction", direction.to_owned())]).inc();
        self.0.scaling_write.observe(took.as_secs_f64());
    }

    /// A number of pods could not be changed.
    pub fn scale_failed(&self) {
        self.0.scaling_failures.inc();
    }

    /// What the assigner sees of one definition.
    pub fn demand(&self, id: &DefinitionId, demand: &Demand, now: Instant) {
        let counts = [demand.due, demand.delayed, demand.assigned, demand.parked];
        for (state, count) in STATES.iter().zip(counts) {
            let mut labels = of(id);
            labels.push(("state", (*state).to_owned()));
            self.0.tasks.get_or_create(&labels).set(gauge(count));
        }
        let wait = demand.oldest_due.map_or(0, |due| now.saturating_duration_since(due).as_secs());
        self.0.oldest.get_or_create(&of(id)).set(i64::try_from(wait).unwrap_or(i64::MAX));
        self.0.workers.get_or_create(&of(id)).set(gauge(demand.workers));
        self.0.slots.get_or_create(&of(id)).set(gauge(demand.slots));
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Drops the series of definitions that are not among these.
    pub fn forget_but(&self, living: &BTreeSet<&DefinitionId>) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id| {
            if living.contains(id) {
                return true;
            }
            for state in STATES {
                let mut labels = of(id);
                labels.push(("state", state.to_owned()));
                self.0.tasks.remove(&labels);
            }
            for family in [&self.0.oldest, &self.0.workers, &self.0.slots] {
                family.remove(&of(id));
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::clock;

    use super::*;

    #[test]
    fn a_definition_that_is_gone_takes_its_series_along() {
        let metrics = Metrics::default();
        let id = DefinitionId::new("media", "resize").unwrap();
        metrics.demand(&id, &Demand { due: 3, ..Demand::default() }, clock::instant());
        let line = r#"bellows_definition_tasks{namespace="media",definition="resize",state="due"} 3"#;
        assert!(metrics.render().unwrap().contains(line));
        metrics.forget_but(&BTreeSet::new());
        assert!(!metrics.render().unwrap().contains("resize"));
    }
}
