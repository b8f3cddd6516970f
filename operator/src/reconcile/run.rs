//! The rim of reconciling: watches, and the queue of what may have changed.
//!
//! Every replica watches, so that a new holder of the Lease starts from a warm cache and
//! the scaler, which runs where the assigner leads, knows the Deployments without asking.
//! One [`Scope`] a watched namespace, or one for all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::demand::DemandReport;
use bellows_registry::id::DefinitionId;
use bellows_registry::spec::Mode;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use kube::runtime::controller::{self, ReconcileReason, ReconcileRequest};
use kube::runtime::reflector::{self, ObjectRef, Store, store::Writer};
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Context, Guarded, after_failure, reconcile, validate};
use crate::registry::Registry;

/// What is known about one watched namespace, or about all.
#[derive(Clone)]
pub struct Scope {
    namespace: Option<String>,
    /// The definitions.
    pub definitions: Store<Guarded>,
    /// The Deployments that carry our label, without template and managed fields.
    pub deployments: Store<Deployment>,
    filled: watch::Receiver<Filled>,
}

/// Which caches have been filled. Not `Store::wait_until_ready`: that wakes one waiter.
#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    definitions: bool,
    deployments: bool,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The writing ends of a scope's caches.
pub struct Feeds {
    definitions: Writer<Guarded>,
    deployments: Writer<Deployment>,
    filled: watch::Sender<Filled>,
}

/// Definitions that may have changed, waiting for their turn.
const QUEUE: usize = 1024;

/// How long after the start the registry may take to be claimed before that is told, and
/// before a deletion that is late already is given up. Mostly it takes a moment.
const PATIENCE: Duration = Duration::from_secs(50);

impl Scope {
    /// A scope, and what fills it.
    pub fn new(namespace: Option<String>) -> (Self, Feeds) {
        let definitions = Writer::<Guarded>::new(());
        let deployments = Writer::<Deployment>::new(());
        let (filled, is_filled) = watch::channel(Filled::default());
        let scope = Self {
            namespace,
            definitions: definitions.as_reader(),
            deployments: deployments.as_reader(),
            filled: is_filled,
        };
        (scope, Feeds { definitions, deployments, filled })
    }

    /// Waits until both caches have been filled once.
    pub async fn filled(&self) {
        let mut filled = self.filled.clone();
        if filled.wait_for(|filled| filled.definitions && filled.deployments).await.is_err() {
            std::future::pending::<()>().await; // the watches have ended, and so will we
        }
    }

    fn definitions_api(&self, client: &Client) -> Api<Guarded> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    fn deployments_api(&self, client: &Client) -> Api<Deployment> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

type Queue = mpsc::Sender<ReconcileRequest<Guarded>>;

/// Who is told of changes.
#[derive(Clone, Copy)]
struct Told<'a> {
    queue: &'a Queue,
    changed: &'a watch::Sender<u64>,
    filled: &'a watch::Sender<Filled>,
}

/// Watches one scope and reconciles what changes, until `stop`. `changed` is touched at
/// every change of either cache.
pub async fn run(
    scope: Scope,
    feeds: Feeds,
    context: Arc<Context>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let told = Told { queue: &queue, changed: &changed, filled: &feeds.filled };
    let watches = async {
        tokio::join!(
            watch_definitions(&scope, feeds.definitions, &context.watches, told),
            watch_deployments(&scope, feeds.deployments, &context.watches, told),
            enqueue_when_held(&scope, context.lease.clone(), &queue),
            enqueue_when_claimed(&scope, &context.registry, &queue),
            enqueue_when_missing(&scope, context.demand.clone(), &queue),
        );
    };
    let applied = controller::applier(
        |guard, context| Box::pin(reconcile(guard, context)),
        |guard, error, context| after_failure(&guard, error, &context),
        Arc::clone(&context),
        scope.definitions.clone(),
        Box::pin(requests(waiting)),
        controller::Config::default().concurrency(8).debounce(Duration::from_millis(50)),
    )
    .for_each(|done| async {
        if let Err(error) = done {
            tracing::debug!(%error, "a reconcile ended with an error");
        }
    });
    let work = async {
        settled(&context.registry).await;
        applied.await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watches => {}
        () = work => {}
    }
}

/// Waits until the registry was claimed, or for as long as nothing is said of that.
async fn settled(registry: &Registry) {
    let _ = tokio::time::timeout(PATIENCE, registry.claimed()).await;
}

fn requests(
    waiting: mpsc::Receiver<ReconcileRequest<Guarded>>,
) -> impl futures::Stream<Item = Result<ReconcileRequest<Guarded>, std::convert::Infallible>> {
    futures::stream::unfold(waiting, |mut waiting| async move {
        let request = waiting.recv().await?;
        Some((Ok(request), waiting))
    })
}

async fn watch_definitions(scope: &Scope, writer: Writer<Guarded>, client: &Client, told: Told<'_>) {
    let events = watcher(scope.definitions_api(client), watcher::Config::default())
        .default_backoff()
        .modify(|guard| guard.managed_fields_mut().clear());
    let stream = reflector::reflector(writer, events)
        .inspect_ok(|event| {
            if matches!(event, watcher::Event::InitDone) {
                told.filled.send_modify(|filled| filled.definitions = true);
            }
            told.changed.send_modify(|count| *count += 1);
        })
        .inspect_err(|error| tracing::warn!(%error, "watching TaskDefinitions (is the CRD installed?)"))
        .touched_objects()
        // Our own writes to the status are no news; the spec and the deletion are.
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if let Ok(guard) = event {
            enqueue(told.queue, ObjectRef::from_obj(&guard), ReconcileReason::ObjectUpdated).await;
        }
    }
}

async fn watch_deployments(scope: &Scope, writer: Writer<Deployment>, client: &Client, told: Told<'_>) {
    let label = format!("app.kubernetes.io/managed-by={}", crate::crd::MANAGED_BY);
    let events = watcher(scope.deployments_api(client), watcher::Config::default().labels(&label))
        .default_backoff()
        .modify(|deployment| {
            deployment.managed_fields_mut().clear();
            deployment.spec.template = Default::default(); // by far the larger part of it
        });
    let stream = reflector::reflector(writer, events)
        .inspect_ok(|event| {
            if matches!(event, watcher::Event::InitDone) {
                told.filled.send_modify(|filled| filled.deployments = true);
            }
            told.changed.send_modify(|count| *count += 1);
        })
        .inspect_err(|error| tracing::warn!(%error, "watching Deployments"))
        .touched_objects();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let Ok(deployment) = event else { continue };
        let Some(owner) = validate::controller(&deployment) else { continue };
        let object = ObjectRef::new(&owner.name).within(&deployment.namespace().unwrap_or_default());
        let reason = ReconcileReason::Custom { reason: "its Deployment changed".to_owned() };
        enqueue(told.queue, object, reason).await;
    }
}

/// Looks at everything once this replica may act.
async fn enqueue_when_held(scope: &Scope, mut lease: watch::Receiver<bool>, queue: &Queue) {
    loop {
        if *lease.borrow_and_update() {
            enqueue_all(scope, queue).await;
        }
        if lease.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What failed for want of the registry need not wait for its next try.
async fn enqueue_when_claimed(scope: &Scope, registry: &Registry, queue: &Queue) {
    registry.claimed().await;
    enqueue_all(scope, queue).await;
    std::future::pending::<()>().await;
}

async fn enqueue_all(scope: &Scope, queue: &Queue) {
    scope.filled().await;
    for guard in scope.definitions.state() {
        enqueue(queue, ObjectRef::from_obj(&*guard), ReconcileReason::BulkReconcile).await;
    }
}

/// The pace at which the registry is compared with the definitions.
const COMPARE: Duration = Duration::from_millis(500);

/// Looks at definitions that the registry has forgotten, as soon as it is seen to have:
/// it was emptied, or restored from an old backup. Only where this replica leads the
/// assigner too, which is the rule; elsewhere the resync finds it.
async fn enqueue_when_missing(scope: &Scope, mut demand: watch::Receiver<Arc<DemandReport>>, queue: &Queue) {
    let mut missing = BTreeSet::new();
    loop {
        let report = Arc::clone(&demand.borrow_and_update());
        if report.leading && report.fresh {
            let now = forgotten(&report, &scope.definitions.state());
            for object in now.difference(&missing) {
                let reason = ReconcileReason::Custom { reason: "the registry has forgotten it".to_owned() };
                let obj_ref = ObjectRef::new(object.name.as_str()).within(object.namespace.as_str());
                enqueue(queue, obj_ref, reason).await;
            }
            missing = now;
        }
        if demand.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(COMPARE).await;
    }
}

/// Definitions that live and whose policy, or whose sign that tasks are accepted, is not
/// in the registry. A new one is among them until it is established, which does no harm.
fn forgotten(report: &DemandReport, definitions: &[Arc<Guarded>]) -> BTreeSet<DefinitionId> {
    let living = definitions.iter().filter(|guard| guard.meta().deletion_timestamp.is_none());
    living
        .filter_map(|guard| {
            let definition = guard.0.as_ref().ok()?;
            let id = DefinitionId::new(&guard.namespace()?, &guard.name_any()).ok()?;
            let known = report.definitions.get(&id);
            let open = known.is_some_and(|known| known.open);
            let complete = known.is_some_and(|known| known.state.is_some())
                && (open || definition.spec.mode == Mode::HoldAndDrain);
            (!complete).then_some(id)
        })
        .collect()
}

async fn enqueue(queue: &Queue, obj_ref: ObjectRef<Guarded>, reason: ReconcileReason) {
    // The receiver lives as long as the senders: `run` holds both.
    let _ = queue.send(ReconcileRequest { obj_ref, reason }).await;
}

#[cfg(test)]
mod tests {
    use bellows_registry::backend::memory::MemoryBackend;
    use bellows_registry::clock;
    use bellows_registry::demand::Demand;
    use bellows_registry::key::Keyspace;
    use bellows_registry::record::PolicyState;
    use kube::core::DeserializeGuard;

    use super::*;

    fn definition(name: &str, mode: Mode, deleted: bool) -> Arc<Guarded> {
        let spec = serde_yaml_ng::from_str(&format!("worker: {{ image: x }}\nmode: {mode:?}")).unwrap();
        let mut definition = crate::crd::TaskDefinition::new(name, spec);
        definition.metadata.namespace = Some("a".to_owned());
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::lease::timestamp());
        definition.metadata.deletion_timestamp = deleted.then_some(now);
        Arc::new(DeserializeGuard(Ok(definition)))
    }

    #[tokio::test(start_paused = true)]
    async fn reconciling_waits_for_the_claim_but_not_for_ever() {
        let registry = Registry::new(Arc::new(MemoryBackend::new()), Keyspace::default());
        let began = clock::instant();
        settled(&registry).await;
        assert_eq!(clock::instant() - began, PATIENCE);
        registry.claim("cluster").await.unwrap();
        settled(&registry).await;
        assert_eq!(clock::instant() - began, PATIENCE, "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_registry_is_looked_at_again_once_it_was_claimed() {
        let registry = Registry::new(Arc::new(MemoryBackend::new()), Keyspace::default());
        let (scope, mut feeds) = Scope::new(None);
        let late = Arc::into_inner(definition("late", Mode::Active, false)).unwrap();
        for event in [watcher::Event::Init, watcher::Event::InitApply(late), watcher::Event::InitDone] {
            feeds.definitions.apply_watcher_event(&event);
        }
        feeds.filled.send_replace(Filled { definitions: true, deployments: true });
        let (queue, mut waiting) = mpsc::channel::<ReconcileRequest<Guarded>>(QUEUE);
        let story = async {
            tokio::time::sleep(PATIENCE).await;
            assert!(waiting.try_recv().is_err(), "it was not claimed");
            registry.claim("cluster").await.unwrap();
            let request = tokio::time::timeout(Duration::from_secs(1), waiting.recv()).await;
            request.expect("it is looked at").unwrap().obj_ref.name
        };
        tokio::select! {
            () = enqueue_when_claimed(&scope, &registry, &queue) => unreachable!("it has no end"),
            name = story => assert_eq!(name, "late"),
        }
    }

    #[test]
    fn what_the_registry_has_forgotten_is_looked_at_again() {
        let mut report = DemandReport { leading: true, fresh: true, ..DemandReport::default() };
        let mut known = |name: &str, open: bool, state: Option<PolicyState>| {
            let id = DefinitionId::new("a", name).unwrap();
            report.definitions.insert(id, Demand { open, state, ..Demand::default() });
        };
        known("whole", true, Some(PolicyState::Active));
        known("draining", false, Some(PolicyState::Active));
        known("closed", false, Some(PolicyState::Active));
        known("without-policy", true, None);
        let definitions = [
            definition("whole", Mode::Active, false),
            definition("draining", Mode::HoldAndDrain, false),
            definition("closed", Mode::Hold, false),
            definition("without-policy", Mode::Active, false),
            definition("gone", Mode::Active, false),
            definition("deleted", Mode::Active, true),
        ];
        let names: Vec<String> =
            forgotten(&report, &definitions).into_iter().map(|id| id.name.to_string()).collect();
        assert_eq!(names, ["closed", "gone", "without-policy"]);
    }
}
