//! Reconciling against an API server made of paper: what is written, and what is said.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::key::Keyspace;
use bellows_registry::spec::Policy;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::events::Spoken;
use crate::registry::Retired;

/// What the API server holds and was told.
#[derive(Debug, Default)]
struct Paper {
    definition: Value,
    /// Whether Deployments are refused.
    refuses: bool,
    /// Whether the registry was not claimed.
    unclaimed: bool,
    /// Writes of the status, of metadata, and of the Deployment.
    writes: Vec<(&'static str, Value)>,
    /// The server, which ends with the test.
    served: JoinSet<std::io::Result<()>>,
}

type Desk = Arc<Mutex<Paper>>;

impl Paper {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Response {
        let sent = || serde_json::from_slice::<Value>(body).unwrap();
        let refusal = |code: StatusCode, message: &str| {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": message, "reason": code.canonical_reason().unwrap().replace(' ', ""), "code": code.as_u16() });
            (code, status.to_string()).into_response()
        };
        if path.contains("/deployments/") {
            if *method == Method::GET {
                return refusal(StatusCode::NOT_FOUND, "no such Deployment");
            }
            self.writes.push(("deployment", sent()));
            if self.refuses {
                return refusal(StatusCode::FORBIDDEN, "exceeded quota");
            }
            return sent().to_string().into_response();
        }
        if *method == Method::PATCH && path.ends_with("/status") {
            self.definition["status"] = sent()["status"].clone();
            self.writes.push(("status", sent()));
        } else if *method == Method::PATCH {
            self.writes.push(("metadata", sent()));
        }
        self.definition.to_string().into_response()
    }
}

async fn answer(State(desk): State<Desk>, method: Method, uri: Uri, body: Bytes) -> Response {
    desk.lock().unwrap().answer(&method, uri.path(), &body)
}

/// A context whose API server is `paper`, what is said, and the desk.
async fn on(paper: Paper) -> (Arc<Context>, mpsc::Receiver<Spoken>, Desk) {
    let registry = Registry::new(Arc::new(MemoryBackend::new()), Keyspace::default());
    if !paper.unclaimed {
        registry.claim("cluster").await.unwrap();
    }
    let desk: Desk = Arc::new(Mutex::new(paper));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
    desk.lock().unwrap().served.spawn(async move { axum::serve(listener, router).await });
    let clients = Clients::of(kube::Config::new(url), Duration::from_secs(20)).unwrap();
    let (events, said) = Events::queue(16);
    let installation = Installation {
        etcd_endpoints: "http://etcd:2379".to_owned(),
        prefix: "/bellows/".to_owned(),
        lease_ttl: Duration::from_secs(10),
    };
    let (demand, lease) = (watch::channel(Arc::default()).1, watch::channel(true).1);
    let context = Context::new(clients, registry, demand, installation, lease, events, Metrics::default());
    (Arc::new(context), said, desk)
}

fn stored(spec: &Value) -> Value {
    json!({
        "apiVersion": "bellows.dev/v1alpha1",
        "kind": "TaskDefinition",
        "metadata": {
            "name": "b", "namespace": "a", "uid": "u", "generation": 1, "resourceVersion": "7",
            "finalizers": [FINALIZER],
        },
        "spec": spec,
    })
}

/// What an older schema let in.
fn unreadable() -> Value {
    stored(&json!({ "worker": { "image": "x" }, "retention": { "failed": "9000h" } }))
}

/// Reconciles the definition as it is on the desk.
async fn look(context: &Arc<Context>, desk: &Desk) -> Result<Action, ReconcileError> {
    let guard: Guarded = serde_json::from_value(desk.lock().unwrap().definition.clone()).unwrap();
    reconcile(Arc::new(guard), Arc::clone(context)).await
}

fn kinds(desk: &Desk) -> Vec<&'static str> {
    desk.lock().unwrap().writes.iter().map(|(kind, _)| *kind).collect()
}

/// The reasons of what was said since.
fn reasons(said: &mut mpsc::Receiver<Spoken>) -> Vec<&'static str> {
    std::iter::from_fn(|| said.try_recv().ok()).map(|spoken| spoken.said.reason).collect()
}

#[tokio::test]
async fn before_the_registry_is_claimed_no_pod_is_sent_there_and_a_deletion_is_given_up_in_time() {
    let definition = stored(&json!({ "worker": { "image": "x" } }));
    let (context, mut said, desk) = on(Paper { definition, unclaimed: true, ..Paper::default() }).await;
    look(&context, &desk).await.unwrap_err();
    assert_eq!(kinds(&desk), ["status"], "no Deployment");
    assert_eq!(reasons(&mut said), ["RegistryUnavailable"]);
    let now = crate::lease::timestamp().to_string();
    desk.lock().unwrap().definition["metadata"]["deletionTimestamp"] = json!(now);
    look(&context, &desk).await.unwrap_err();
    assert_eq!(kinds(&desk), ["status"], "the finalizer stays for now");
    desk.lock().unwrap().definition["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    look(&context, &desk).await.unwrap();
    assert_eq!(kinds(&desk), ["status", "metadata"]);
    assert_eq!(reasons(&mut said), ["TasksAbandoned"]);
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_is_told_so_once() {
    let (context, mut said, desk) = on(Paper { definition: unreadable(), ..Paper::default() }).await;
    for _ in 0..3 {
        look(&context, &desk).await.unwrap();
    }
    assert_eq!(kinds(&desk), ["status"]);
    assert_eq!(reasons(&mut said), ["Invalid"]);
    let ready = desk.lock().unwrap().definition["status"]["conditions"][0].clone();
    assert_eq!((&ready["type"], &ready["reason"]), (&json!("Ready"), &json!("Invalid")));
    assert!(ready["message"].as_str().unwrap().contains("9000h"), "{ready}");
}

#[tokio::test]
async fn a_step_that_fails_is_said_once_until_it_went_well_again() {
    let definition = stored(&json!({ "worker": { "image": "x" } }));
    let (context, mut said, desk) = on(Paper { definition, refuses: true, ..Paper::default() }).await;
    for _ in 0..3 {
        look(&context, &desk).await.unwrap_err();
    }
    assert_eq!(reasons(&mut said), ["ApplyFailed"]);
    desk.lock().unwrap().refuses = false;
    look(&context, &desk).await.unwrap();
    assert_eq!(reasons(&mut said), [""; 0]);
    desk.lock().unwrap().refuses = true;
    look(&context, &desk).await.unwrap_err();
    assert_eq!(reasons(&mut said), ["ApplyFailed"], "and again, once it is news");
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_is_closed_before_it_goes() {
    let mut definition = unreadable();
    definition["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (context, mut said, desk) = on(Paper { definition, ..Paper::default() }).await;
    let id = DefinitionId::new("a", "b").unwrap();
    let record = policy_record("u", 1, PolicyState::Active, Policy::default());
    context.registry.establish(&id, &record).await.unwrap();
    look(&context, &desk).await.unwrap();
    let dead = context.registry.establish(&id, &record).await.unwrap();
    assert_eq!(dead, Established::Superseded { generation: 1 }, "it was retired");
    assert!(matches!(context.registry.retain(&id, "u").await.unwrap(), Retired::At(_)));
    assert_eq!(reasons(&mut said), ["TasksRetained"]);
    assert_eq!(kinds(&desk), ["metadata"]);
    assert_eq!(desk.lock().unwrap().writes[0].1["metadata"]["finalizers"], json!([]));
}
