//! Reconciling one definition, in named steps: dereference, validate, build, apply,
//! status.
//!
//! Level-triggered and idempotent: it takes no input but the names of what may have
//! changed, and two of them at once do no harm. Only the holder of the Lease acts.

pub mod apply;
pub mod build;
mod finalize;
pub mod run;
pub mod status;
pub mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellows_registry::clock;
use bellows_registry::demand::DemandReport;
use bellows_registry::id::DefinitionId;
use bellows_registry::record::PolicyState;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::crd::{ConditionType, FINALIZER, TaskDefinition, TaskDefinitionStatus};
use crate::events::{self, Events};
use crate::kubernetes::Clients;
use crate::metrics::Metrics;
use crate::registry::{Established, Registry, RegistryError, policy_record};
use build::Installation;
use finalize::Progress;
use status::{Finding, Holds, Part, Target};
use validate::{Invalid, ValidDefinition, check_ownership, validate};

/// A definition as it is watched: one that does not parse must not stop the watch.
pub type Guarded = DeserializeGuard<TaskDefinition>;

/// A step failed, and will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server.
    #[error("the Kubernetes API refused a step or did not answer")]
    Kube(#[from] kube::Error),
    /// The registry.
    #[error("the registry could not be told")]
    Registry(#[from] RegistryError),
}

impl ReconcileError {
    /// The reason in the `Ready` condition; stable.
    fn reason(&self) -> &'static str {
        match self {
            Self::Kube(_) => "ApplyFailed",
            Self::Registry(RegistryError::Owner { .. }) => "RegistryForeign",
            Self::Registry(RegistryError::Unreadable { .. }) => "RegistryUnreadable",
            Self::Registry(_) => "RegistryUnavailable",
        }
    }

    /// What went wrong, without the client library's debug output.
    fn message(&self) -> String {
        match self {
            Self::Kube(kube::Error::Api(status)) => status.message.clone(),
            Self::Kube(error) => format!("the Kubernetes API does not answer: {error}"),
            Self::Registry(error) => error.to_string(),
        }
    }

    /// The word for metric labels.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.code == 409 => "conflict",
            Self::Kube(kube::Error::Api(status)) if status.code < 500 => "refused",
            Self::Kube(_) => "kubernetes",
            Self::Registry(error) => error.class(),
        }
    }
}

/// What reconciling needs.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// Kubernetes, to watch.
    pub watches: Client,
    /// The registry.
    pub registry: Registry,
    /// What the registry holds, where this process leads.
    pub demand: watch::Receiver<Arc<DemandReport>>,
    /// What worker pods are told of this installation.
    pub installation: Installation,
    /// Whether this replica reconciles.
    pub lease: watch::Receiver<bool>,
    /// For people.
    pub events: Events,
    /// For machines.
    pub metrics: Metrics,
    /// Failures in a row, by object.
    failures: Mutex<HashMap<ObjectRef<Guarded>, u32>>,
}

/// A definition is looked at again after this time even if nothing happened: it heals
/// what was changed behind our back in the registry.
const RESYNC: Duration = Duration::from_secs(300);

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

impl Context {
    /// With no failures yet.
    pub fn new(
        clients: Clients,
        registry: Registry,
        demand: watch::Receiver<Arc<DemandReport>>,
        installation: Installation,
        lease: watch::Receiver<bool>,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let Clients { calls: client, watches } = clients;
        let failures = Mutex::default();
        Self { client, watches, registry, demand, installation, lease, events, metrics, failures }
    }

    fn failed(&self, object: &ObjectRef<Guarded>) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.clone()).or_default();
        *count = (*count + 1).min(7);
        Duration::from_millis(500 << *count)
    }

    fn succeeded(&self, object: &ObjectRef<Guarded>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

/// Brings one definition to where it should be.
pub async fn reconcile(guard: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if !*context.lease.borrow() {
        return Ok(Action::await_change());
    }
    let object = ObjectRef::from_obj(&*guard);
    let result = if guard.meta().deletion_timestamp.is_some() {
        end(&guard, &context).await
    } else {
        live(&guard, &context).await
    };
    match &result {
        Ok(_) => {
            context.succeeded(&object);
            context.metrics.reconciled("ok");
        }
        Err(error) => {
            context.metrics.reconciled(error.class());
            tracing::warn!(definition = %object, error = error.message(), "reconciling failed");
        }
    }
    result
}

/// When to try again.
pub fn after_failure(guard: &Guarded, error: &ReconcileError, context: &Context) -> Action {
    match error.class() {
        // Something changed under our hands: what we need is already on its way.
        "conflict" => Action::requeue(Duration::from_millis(200)),
        // A deletion has a deadline, which a long wait must not miss.
        _ if guard.meta().deletion_timestamp.is_some() => Action::requeue(Duration::from_secs(5)),
        _ => Action::requeue(context.failed(&ObjectRef::from_obj(guard))),
    }
}

async fn live(guard: &Guarded, context: &Context) -> Result<Action, ReconcileError> {
    let found = dereference(guard, context).await?;
    let valid = validate(guard).and_then(|valid| check_ownership(&valid, found.as_ref()).map(|()| valid));
    let valid = match valid {
        Ok(valid) => valid,
        Err(invalid) => return refuse(guard, &invalid, context).await,
    };
    keep(guard, context).await?;
    let record = policy_record(&valid.uid, valid.generation, PolicyState::Active, valid.spec.policy());
    // The registry first: a pod that starts finds its definition. But its being away
    // does not keep a template from being rolled out, unless it may be another cluster's.
    let told = match context.registry.establish(&valid.id, &record).await {
        Ok(Established::Superseded { generation }) => {
            return superseded(guard, &valid, generation, context).await;
        }
        Ok(Established::Said) => Ok(()),
        Err(error) => Err(ReconcileError::from(error)),
    };
    let (deployment, error) = match told {
        Err(error @ ReconcileError::Registry(RegistryError::NotClaimed)) => (found, Some(error)),
        told => match apply::deployment(&context.client, &valid, &context.installation, found.as_ref()).await
        {
            Ok(deployment) => (Some(deployment), told.err()),
            Err(error) => (found, Some(error.into())),
        },
    };
    let ready = match &error {
        None => Finding::new(
            ConditionType::Ready,
            Holds::True,
            "Established",
            "tasks are accepted as spec.mode says, and the worker Deployment is in place",
        ),
        Some(error) => Finding::new(ConditionType::Ready, Holds::False, error.reason(), error.message()),
    };
    let mut findings = vec![ready];
    findings.extend(deployment.as_ref().map(status::progressing));
    if let Some(error) = error.as_ref().filter(|error| error.class() != "conflict") {
        let (before, reason) = (status_of(guard), error.reason());
        if before.conditions.iter().all(|c| c.type_ != "Ready" || c.reason != reason) {
            let said = events::warning(reason, "Reconcile", error.message());
            context.events.say(&guard.object_ref(&()), said);
        }
    }
    if error.as_ref().is_none_or(|error| error.class() != "conflict") {
        report(guard, &valid, findings, context).await?;
    }
    match error {
        None => Ok(Action::requeue(RESYNC)),
        Some(error) => Err(error),
    }
}

/// The registry is ahead of us. Mostly what we hold is old, and whoever wrote the newer
/// generation goes on with it: then nothing is applied. Where it is not, somebody turned
/// Kubernetes back, and a person must know.
async fn superseded(
    guard: &Guarded,
    valid: &ValidDefinition,
    generation: i64,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let api: Api<TaskDefinition> = Api::namespaced(context.client.clone(), valid.id.namespace.as_str());
    let newest = api.get_metadata_opt(valid.id.name.as_str()).await?;
    let is_newest = newest.is_some_and(|newest| {
        newest.uid().as_deref() == Some(valid.uid.as_str())
            && newest.metadata.generation == Some(valid.generation)
    });
    tracing::info!(definition = %valid.id, generation, ours = valid.generation, is_newest, "superseded");
    if is_newest {
        let message = format!(
            "the registry has generation {generation} of this definition, and this is {}: was Kubernetes restored from a backup? Nothing is changed until the definition is as new",
            valid.generation
        );
        let finding = Finding::new(ConditionType::Ready, Holds::False, "RegistryAhead", message);
        report(guard, valid, vec![finding], context).await?;
    }
    Ok(Action::requeue(RESYNC / 10))
}

/// Step 1: what there is. Read live, since the cache has no `managedFields` and a
/// decision about ownership should not rest on an old view.
async fn dereference(guard: &Guarded, context: &Context) -> Result<Option<Deployment>, ReconcileError> {
    let namespace = guard.namespace().unwrap_or_default();
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &namespace);
    Ok(api.get_opt(&guard.name_any()).await?)
}

/// A definition that is not acted on: said in its status and by an event, once.
async fn refuse(guard: &Guarded, invalid: &Invalid, context: &Context) -> Result<Action, ReconcileError> {
    let finding = Finding::new(ConditionType::Ready, Holds::False, invalid.reason(), invalid.to_string());
    let before = stored_status(guard, context).await?;
    let is_news = before.conditions.iter().all(|c| c.type_ != "Ready" || c.message != finding.message);
    if is_news {
        let said = events::warning(invalid.reason(), "Validate", invalid.to_string());
        context.events.say(&guard.object_ref(&()), said);
    }
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    let uid = guard.uid().unwrap_or_default();
    let target = Target { namespace: &namespace, name: &name, uid: &uid };
    let part = Part {
        generation: guard.meta().generation.unwrap_or_default(),
        findings: vec![finding],
        selector: None,
    };
    status::write(&context.client, target, part, &before, now()).await?;
    // A foreign Deployment does not carry our label, so nobody tells when it is gone.
    Ok(Action::requeue(RESYNC / 10))
}

async fn report(
    guard: &Guarded,
    valid: &ValidDefinition,
    findings: Vec<Finding>,
    context: &Context,
) -> Result<(), ReconcileError> {
    let target =
        Target { namespace: valid.id.namespace.as_str(), name: valid.id.name.as_str(), uid: &valid.uid };
    let selector = Some(build::selector_text(valid));
    let part = Part { generation: valid.generation, findings, selector };
    Ok(status::write(&context.client, target, part, &status_of(guard), now()).await?)
}

/// Puts the finalizer in place before anything is made.
async fn keep(guard: &Guarded, context: &Context) -> Result<(), ReconcileError> {
    if guard.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = guard.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(guard, finalizers, context).await
}

/// The definition is being deleted: see `finalize.rs`.
async fn end(guard: &Guarded, context: &Context) -> Result<Action, ReconcileError> {
    if !guard.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    let deleted = guard.meta().deletion_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
    let since = clock::wall().since(clock::WallMillis(u64::try_from(deleted).unwrap_or(0)));
    let id = DefinitionId::new(&guard.namespace().unwrap_or_default(), &guard.name_any());
    let step = match (validate(guard), id) {
        (Ok(valid), _) => finalize::step(&context.registry, &valid, since).await,
        // It cannot be read now, but it may have been once.
        (Err(_), Ok(id)) => finalize::unread(&context.registry, &id, &guard.uid().unwrap_or_default()).await,
        (Err(_), Err(_)) => Ok(Progress::NotOurs), // its name is no name in the registry
    };
    let said = match step {
        Ok(Progress::Waiting) => return Ok(Action::requeue(Duration::from_secs(1))),
        Ok(Progress::Done(said)) => Some(said),
        Ok(Progress::NotOurs) => None,
        Err(error) if since >= finalize::GIVE_UP => Some(finalize::abandoned(&error)),
        Err(error) => return Err(error.into()),
    };
    if let Some(said) = said {
        tracing::info!(definition = %ObjectRef::from_obj(guard), note = said.note, "the definition ends");
        context.events.say(&guard.object_ref(&()), said);
    }
    let rest = guard.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match set_finalizers(guard, rest, context).await {
        Err(ReconcileError::Kube(kube::Error::Api(status))) if status.code == 404 => {}
        other => other?,
    }
    Ok(Action::await_change())
}

/// A merge patch replaces the whole list, so it is tied to the version that was read.
async fn set_finalizers(
    guard: &Guarded,
    finalizers: Vec<String>,
    context: &Context,
) -> Result<(), ReconcileError> {
    let namespace = guard.namespace().unwrap_or_default();
    let api: Api<TaskDefinition> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": guard.resource_version(),
    } });
    let patch = Patch::Merge(&patch);
    api.patch_metadata(&guard.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// As `status_of`. A definition that cannot be read has one too, and without it every look
/// would be news.
async fn stored_status(guard: &Guarded, context: &Context) -> Result<TaskDefinitionStatus, ReconcileError> {
    if guard.0.is_ok() {
        return Ok(status_of(guard));
    }
    let (namespace, kind) =
        (guard.namespace().unwrap_or_default(), ApiResource::erase::<TaskDefinition>(&()));
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &kind);
    let stored = api.get_opt(&guard.name_any()).await?;
    let status = stored.and_then(|object| object.data.get("status").cloned()).unwrap_or_default();
    Ok(serde_json::from_value(status).unwrap_or_default())
}

fn status_of(guard: &Guarded) -> TaskDefinitionStatus {
    guard.0.as_ref().ok().and_then(|definition| definition.status.clone()).unwrap_or_default()
}

fn now() -> Time {
    Time(crate::lease::timestamp())
}

#[cfg(test)]
mod tests;
