//! Wrong TaskDefinitions against a real API server: each is refused, with a message that a
//! person understands. Needs a cluster: run it by `make test-cluster`.

use std::time::Duration;

use bellows_operator::crd::TaskDefinitionSpec;
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Backoff, Percent, Policy, Span, Trigger};
use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};

const CRD: &str = include_str!("../../crds/bellows.dev_taskdefinitions.yaml");
const FULL: &str = include_str!("../../operator/tests/golden/definition-full.yaml");
const WRONG: &str = include_str!("data/wrong-definitions.yaml");
const PATH: &str = "/apis/bellows.dev/v1alpha1/namespaces/default/taskdefinitions";

/// The CRD in the cluster, and whether we put it there.
struct Installed {
    api: Api<CustomResourceDefinition>,
    name: String,
    ours: bool,
}

async fn install(client: &Client) -> Installed {
    let crd: CustomResourceDefinition = serde_yaml_ng::from_str(CRD).unwrap();
    let name = crd.metadata.name.clone().unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = api.get_opt(&name).await.expect("a cluster that answers: run `make test-cluster`").is_none();
    if ours {
        let params = PatchParams::apply("bellows-tests").force();
        api.patch(&name, &params, &Patch::Apply(&crd)).await.expect("the API server takes the CRD");
    }
    wait_until_served(client).await;
    Installed { api, name, ours }
}

async fn wait_until_served(client: &Client) {
    for _ in 0..300 {
        let list = Request::get(PATH).body(Vec::new()).unwrap();
        if client.request::<Value>(list).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the API server does not serve TaskDefinitions after 30 s");
}

fn definition(name: &str, spec: &Value) -> Value {
    let mut whole = json!({ "worker": { "image": "registry.example/a:1" } });
    merge(&mut whole, spec);
    json!({
        "apiVersion": "bellows.dev/v1alpha1",
        "kind": "TaskDefinition",
        "metadata": { "name": name },
        "spec": whole,
    })
}

/// JSON merge patch: null removes.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// What the API server says to a definition, as `kubectl apply` would send it.
async fn refusal(client: &Client, definition: &Value) -> Option<String> {
    let uri = format!("{PATH}?dryRun=All&fieldValidation=Strict");
    let body = serde_json::to_vec(definition).unwrap();
    let request = Request::post(uri).header("content-type", "application/json").body(body).unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => None,
        Err(Error::Api(status)) => Some(status.message.clone()),
        Err(error) => panic!("the API server did not answer: {error}"),
    }
}

#[tokio::test]
async fn every_wrong_definition_is_refused_with_a_sentence() {
    let client = Client::try_default().await.expect("KUBECONFIG: run `make test-cluster`");
    let installed = install(&client).await;
    let good = definition("good", &json!({}));
    assert_eq!(refusal(&client, &good).await, None, "a minimal definition is accepted");
    let log = json!([{ "name": "BELLOWS_LOG", "value": "debug" }, { "name": "BELLOWS_LOG_FORMAT", "value": "json" }]);
    let talkative = definition("talkative", &json!({ "worker": { "env": log } }));
    assert_eq!(refusal(&client, &talkative).await, None, "how a worker logs is the user's to say");
    let full = definition("full", &serde_yaml_ng::from_str(FULL).unwrap());
    assert_eq!(refusal(&client, &full).await, None, "a definition with everything is accepted");
    let table: Vec<Value> = serde_yaml_ng::from_str(WRONG).unwrap();
    assert!(table.len() >= 20);
    let mut failures = Vec::new();
    for case in &table {
        let (wrong, says) = (case["wrong"].as_str().unwrap(), case["says"].as_str().unwrap());
        let name = case["name"].as_str().unwrap_or("wrong");
        match refusal(&client, &definition(name, &case["spec"])).await {
            None => failures.push(format!("{wrong}: was accepted")),
            Some(said) if !said.contains(says) => {
                failures.push(format!("{wrong}:\n  expected {says:?}\n  but it said {said:?}"));
            }
            Some(_) => {}
        }
    }
    let trigger = change_of_trigger(&client).await;
    let manifests = printed_manifests(&client).await;
    if installed.ours {
        installed.api.delete(&installed.name, &DeleteParams::default()).await.unwrap();
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), table.len(), failures.join("\n"));
    assert!(trigger.contains("trigger cannot be changed"), "{trigger}");
    assert_eq!(
        manifests,
        [("everything-stated".to_owned(), everything()), ("nothing-stated".to_owned(), nothing())]
    );
}

#[task(
    name = "everything-stated",
    timeout = "45s",
    max_attempts = 5,
    backoff(initial = "300ms", factor = 3, max = "2m", jitter = "10%"),
    max_disruptions = 7,
    concurrency = 16,
    retention(succeeded = "1h", failed = "48h")
)]
async fn everything_stated(input: String) -> Result<String, TaskError> {
    Ok(input)
}

#[task(singleton, name = "nothing-stated")]
async fn nothing_stated() -> Result<(), TaskError> {
    Ok(())
}

fn everything() -> Policy {
    let mut policy = Policy::default();
    policy.execution.timeout = Span::secs(45);
    policy.execution.max_disruptions = 7;
    policy.execution.retry.max_attempts = 5;
    policy.execution.retry.backoff = Backoff {
        initial: Span::millis(300),
        factor: 3,
        max: Span::secs(120),
        jitter: Percent::new(10).unwrap(),
    };
    policy.retention.succeeded = Span::secs(3600);
    policy.retention.failed = Span::secs(48 * 3600);
    policy
}

fn nothing() -> Policy {
    Policy { trigger: Trigger::Singleton, ..Policy::default() }
}

/// Applies what a worker prints, and reads it back as the operator does.
async fn printed_manifests(client: &Client) -> Vec<(String, Policy)> {
    let printed = tasks![everything_stated, nothing_stated].manifest(Some("registry.example/a:1"));
    let mut read = Vec::new();
    for manifest in printed.split("---\n") {
        let manifest: Value = serde_yaml_ng::from_str(manifest).unwrap();
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        let create = Request::post(format!("{PATH}?fieldValidation=Strict"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&manifest).unwrap())
            .unwrap();
        let stored: Value = client.request(create).await.expect("a printed manifest is accepted");
        let delete = Request::delete(format!("{PATH}/{name}")).body(Vec::new()).unwrap();
        client.request::<Value>(delete).await.expect("and deleted");
        let spec: TaskDefinitionSpec = serde_json::from_value(stored["spec"].clone()).unwrap();
        assert_eq!(spec.worker.concurrency, if name == "everything-stated" { 16 } else { 1 });
        read.push((name, spec.policy()));
    }
    read
}

/// The one rule about a change needs an object that is there.
async fn change_of_trigger(client: &Client) -> String {
    let name = "admission-trigger";
    let body = serde_json::to_vec(&definition(name, &json!({}))).unwrap();
    let create = Request::post(PATH).header("content-type", "application/json").body(body).unwrap();
    client.request::<Value>(create).await.expect("a good definition is created");
    let patch = serde_json::to_vec(&json!({ "spec": { "trigger": "Singleton" } })).unwrap();
    let change = Request::patch(format!("{PATH}/{name}"))
        .header("content-type", "application/merge-patch+json")
        .body(patch)
        .unwrap();
    let said = match client.request::<Value>(change).await {
        Ok(_) => "it was accepted".to_owned(),
        Err(Error::Api(status)) => status.message.clone(),
        Err(error) => error.to_string(),
    };
    let delete = Request::delete(format!("{PATH}/{name}")).body(Vec::new()).unwrap();
    client.request::<Value>(delete).await.expect("and deleted");
    said
}
