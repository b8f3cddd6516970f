//! The thin rim of scaling: from the assigner's demand to replicas, without a poll.
//!
//! Runs where the assigner leads, whoever holds the Lease. Deployments are known from a
//! cache, so that a decision waits for no read; the answer of a write stands in for the
//! cache until the cache has caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::demand::{Demand, DemandReport};
use bellows_registry::id::DefinitionId;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::memory::{Answer, Attempt, Memory, Scaled};
use super::status::Shown;
use super::{Decision, Limits, Reason, Signal, Verdict, decide, gather};
use crate::events::{self, Events};
use crate::metrics::Metrics;
use crate::reconcile::run::Scope;
use crate::reconcile::validate;
use crate::registry::Registry;

/// The scaler's field manager.
pub const SCALER: &str = "bellows-scaler";

/// Writes under way at once.
const IN_FLIGHT: usize = 32;
/// A write without an answer for so long is given up and decided anew.
const REQUEST: Duration = Duration::from_secs(5);
/// How often a replica that holds the Lease but does not lead looks whether the registry
/// can be reached at all, to say so where nobody leads.
const LOOK: Duration = Duration::from_secs(5);

/// What the scaler works with.
pub struct Scaler {
    /// Kubernetes.
    pub client: Client,
    /// What is known of it.
    pub scopes: Vec<Scope>,
    /// What the assigner sees.
    pub demand: watch::Receiver<Arc<DemandReport>>,
    /// Touched when a cache changed.
    pub changed: watch::Receiver<u64>,
    /// Whether this replica reconciles.
    pub lease: watch::Receiver<bool>,
    /// To find out whether anybody could lead.
    pub registry: Registry,
    /// For people.
    pub events: Events,
    /// For machines.
    pub metrics: Metrics,
}

/// What this replica may conclude from what it sees.
#[derive(Clone, Copy)]
struct View {
    /// It leads: what it shows is what holds.
    leading: bool,
    /// What it sees is current.
    fresh: bool,
}

/// One definition and its Deployment, as cached.
struct Pair {
    id: DefinitionId,
    uid: String,
    generation: i64,
    limits: Limits,
    deployment: Arc<Deployment>,
    status: crate::crd::TaskDefinitionStatus,
    object: ObjectReference,
}

impl std::fmt::Debug for Scaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scaler")
    }
}

impl Scaler {
    /// Runs until `stop`. What is under way is dropped then: it is decided again by
    /// whoever leads next.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut memories: BTreeMap<DefinitionId, Memory> = BTreeMap::new();
        let mut writes: JoinSet<Answer> = JoinSet::new();
        let mut reachable = true;
        let mut next_look = clock::instant() + LOOK;
        loop {
            if self.demand.borrow().leading {
                reachable = true; // what it was before says nothing about when this ends
            }
            let wake = self.turn(&mut memories, &mut writes, reachable);
            let wake = wake.unwrap_or_else(|| clock::instant() + clock::FAR);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.demand.changed() => if changed.is_err() { return },
                changed = self.changed.changed() => if changed.is_err() { return },
                Some(answer) = writes.join_next() => self.answered(&mut memories, answer.ok()),
                () = tokio::time::sleep_until(wake) => {}
                () = tokio::time::sleep_until(next_look) => {
                    next_look = clock::instant() + LOOK;
                    if !self.demand.borrow().leading && *self.lease.borrow() {
                        reachable = self.registry.ping().await.is_ok();
                    }
                }
            }
        }
    }

    /// One look at everything. Answers when to look again though nothing changes.
    fn turn(
        &mut self,
        memories: &mut BTreeMap<DefinitionId, Memory>,
        writes: &mut JoinSet<Answer>,
        reachable: bool,
    ) -> Option<Instant> {
        let report = Arc::clone(&self.demand.borrow_and_update());
        self.changed.borrow_and_update();
        let now = clock::instant();
        // Whoever leads scales. Where nobody can, the holder of the Lease says so.
        let nobody_leads = !report.leading && *self.lease.borrow() && !reachable;
        if !report.leading && !nobody_leads {
            memories.clear();
            self.metrics.forget_but(&BTreeSet::new());
            return None;
        }
        let pairs = self.pairs();
        let known: BTreeSet<&DefinitionId> = pairs.iter().map(|pair| &pair.id).collect();
        memories.retain(|id, _| known.contains(id));
        self.metrics.forget_but(&known);
        let mut wake: Option<Instant> = None;
        for pair in pairs {
            let memory = memories.entry(pair.id.clone()).or_default();
            let demand = report.definitions.get(&pair.id).cloned().unwrap_or_default();
            let view = View { leading: report.leading, fresh: report.is_fresh(now) };
            let at = self.one(&pair, &demand, view, memory, writes, now);
            wake = [wake, at].into_iter().flatten().min();
        }
        wake
    }

    fn one(
        &self,
        pair: &Pair,
        demand: &Demand,
        View { leading, fresh }: View,
        memory: &mut Memory,
        writes: &mut JoinSet<Answer>,
        now: Instant,
    ) -> Option<Instant> {
        let current = current(pair, memory);
        let signal = if fresh { Signal::of(demand) } else { Signal::Lost };
        let decision = decide(&pair.limits, signal, current, memory.idle_since, now);
        memory.idle_since = decision.idle_since;
        if fresh {
            self.metrics.demand(&pair.id, demand, now);
        }
        let mut wake = decision.wake;
        let gathering = gather(&pair.limits, &decision, &mut memory.burst_since, now);
        if gathering.is_some() {
            wake = gathering;
        } else if let Verdict::Scale { from, to } = decision.verdict {
            match memory.attempt(writes.len() < IN_FLIGHT, now) {
                Attempt::Now => {
                    memory.writing = true;
                    self.scale(pair, from, to, decision.reason, writes);
                }
                Attempt::At(at) => wake = Some(at),
                Attempt::OnAnswer => {}
            }
        }
        if memory.telling || writes.len() >= IN_FLIGHT {
            return wake; // an answer brings the next turn
        }
        let shown = Shown::of(&decision, demand, fresh, &pair.deployment, now);
        let told = memory.told.next(shown, pair.generation, &pair.status, leading, now);
        if let Some(status) = told.write {
            memory.telling = true;
            self.tell(pair, status, &decision, told.signal_changed, writes);
        }
        [wake, told.wake].into_iter().flatten().min()
    }

    fn answered(&self, memories: &mut BTreeMap<DefinitionId, Memory>, answer: Option<Answer>) {
        match answer {
            Some(Answer::Shown { id, written }) => {
                if let Some(memory) = memories.get_mut(&id) {
                    memory.shown(written);
                }
            }
            Some(Answer::Scaled(scaled)) => {
                if let Ok((_, took)) = &scaled.result {
                    self.metrics.scaled(scaled.from, scaled.to, *took);
                } else {
                    self.metrics.scale_failed();
                }
                scaled.end(memories.get_mut(&scaled.id), &self.events);
            }
            // It panicked, and whose it was is not known: all begin anew, or that one would wait
            // for its answer for ever.
            None => memories.clear(),
        }
    }

    /// Definitions that live and whose Deployment is their own.
    fn pairs(&self) -> Vec<Pair> {
        self.scopes
            .iter()
            .flat_map(|scope| scope.definitions.state().into_iter().filter_map(|g| pair(scope, &g)))
            .collect()
    }

    /// Sets the number of pods. The UID keeps the apply from creating anything, or from
    /// touching another life of the name.
    fn scale(&self, pair: &Pair, from: u32, to: u32, reason: Reason, writes: &mut JoinSet<Answer>) {
        let (id, namespace) = (pair.id.clone(), pair.id.namespace.to_string());
        tracing::info!(definition = %id, from, to, reason = reason.word(), "scaling: {reason}");
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
        let name = pair.deployment.name_any();
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "namespace": namespace, "uid": pair.deployment.uid() },
            "spec": { "replicas": to },
        });
        let (object, began) = (pair.object.clone(), clock::instant());
        writes.spawn(async move {
            let params = PatchParams::apply(SCALER).force();
            let answer = tokio::time::timeout(REQUEST, api.patch(&name, &params, &Patch::Apply(&body))).await;
            let result = match answer {
                Ok(Ok(deployment)) => {
                    Ok((deployment.metadata.generation.unwrap_or_default(), clock::instant() - began))
                }
                Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            Answer::Scaled(Box::new(Scaled { id, object, from, to, reason, result }))
        });
    }

    /// Writes our part of the status.
    fn tell(
        &self,
        pair: &Pair,
        status: serde_json::Value,
        decision: &Decision,
        signal_changed: bool,
        writes: &mut JoinSet<Answer>,
    ) {
        let lost = signal_changed && decision.verdict == Verdict::Frozen;
        let (client, id, uid) = (self.client.clone(), pair.id.clone(), pair.uid.clone());
        let (events, object, reason) = (self.events.clone(), pair.object.clone(), decision.reason);
        writes.spawn(async move {
            let target = crate::reconcile::status::Target {
                namespace: id.namespace.as_str(),
                name: id.name.as_str(),
                uid: &uid,
            };
            let write = crate::reconcile::status::apply(&client, target, SCALER, status);
            let answer = tokio::time::timeout(REQUEST, write).await;
            let written = matches!(answer, Ok(Ok(())));
            match answer {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(definition = %id, %error, "the status was not written"),
                Err(_) => tracing::debug!(definition = %id, "the status was not written in time"),
            }
            if lost && written {
                events.say(&object, events::warning("SignalLost", "Scale", reason.to_string()));
            }
            Answer::Shown { id, written }
        });
    }
}

/// The number of pods asked for: the cache's, or our last write's while that is newer.
fn current(pair: &Pair, memory: &mut Memory) -> u32 {
    let cached = u32::try_from(pair.deployment.spec.replicas.unwrap_or(1)).unwrap_or(0);
    match memory.written {
        Some((generation, replicas)) if pair.deployment.metadata.generation < Some(generation) => replicas,
        _ => {
            memory.written = None;
            cached
        }
    }
}

fn pair(scope: &Scope, guard: &crate::reconcile::Guarded) -> Option<Pair> {
    let definition = guard.0.as_ref().ok()?;
    if definition.meta().deletion_timestamp.is_some() {
        return None;
    }
    let namespace = definition.namespace()?;
    let name = definition.name_any();
    let uid = definition.uid()?;
    let deployment = scope.deployments.get(&ObjectRef::new(&name).within(&namespace))?;
    if !validate::owned_by(&deployment, &uid) {
        return None;
    }
    Some(Pair {
        id: DefinitionId::new(&namespace, &name).ok()?,
        uid,
        generation: definition.meta().generation.unwrap_or_default(),
        limits: Limits::of(&definition.spec),
        deployment,
        status: definition.status.clone().unwrap_or_default(),
        object: definition.object_ref(&()),
    })
}
