//! Payloads by reference: what is too large for the registry lies in an object store.

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::key::Key;
use bellows_registry::record::{Record, Tally};
use bellows_sdk::object_store::memory::InMemory;
use bellows_sdk::object_store::path::Path;
use bellows_sdk::object_store::throttle::{ThrottleConfig, ThrottledStore};
use bellows_sdk::object_store::{ObjectStore, ObjectStoreExt};
use bellows_sdk::prelude::*;
use bellows_sdk::{Codecs, Ended, PublishError, Replayed, TaskFailed};
use futures::TryStreamExt;

use super::codecs::{CANARY, echo, encrypted, everything, failed, key, parks};
use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_large_payload_goes_by_reference_and_its_object_is_deleted_when_done,
    a_small_payload_does_not_go_by_reference,
    a_parked_task_keeps_its_object,
    a_task_parked_for_its_losses_keeps_its_object_whatever_its_last_worker_says_later,
    a_large_payload_of_a_refused_publish_leaves_no_object,
    publishing_again_with_other_bytes_leaves_the_first_object_alone,
    an_object_that_was_changed_or_is_gone_is_told_apart,
    a_worker_without_the_object_store_says_so,
}

behaviours! {
    paused_only: an_object_store_that_does_not_answer_costs_no_attempt,
}

/// A bucket, and codecs that put large payloads into it, encrypted.
fn bucket() -> (Arc<InMemory>, Codecs) {
    let store = Arc::new(InMemory::new());
    let codecs =
        encrypted(key("2026", 1)).by_reference(Arc::clone(&store) as Arc<dyn ObjectStore>, "payloads");
    (store, codecs)
}

async fn objects(store: &InMemory) -> Vec<Path> {
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    all.into_iter().map(|meta| meta.location).collect()
}

fn large() -> String {
    CANARY.repeat(60_000) // 1 MB
}

async fn measure(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.len().to_string().into())
}

async fn a_large_payload_goes_by_reference_and_its_object_is_deleted_when_done(world: World) {
    world.define(LONG).await;
    let (store, codecs) = bucket();
    let client = world.client_with(codecs);
    let task = client.publish::<Act>(large()).await.unwrap();
    let path = format!("payloads/default/act/{}/", task.id());
    let lie = objects(&store).await;
    assert!(lie.len() == 1 && lie[0].as_ref().starts_with(&path), "{lie:?}");
    let sealed = store.get(&lie[0]).await.unwrap().bytes().await.unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("canary"), "what lies there is encrypted");
    assert!(everything(&world).await.len() < 10_000, "the registry has a note only");
    let _worker = world.worker(&client, 1, measure).await;
    assert_eq!(within(SOON, task).await.unwrap(), "1020000");
    let gone = async {
        while !objects(&store).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(SOON, gone).await;
}

async fn a_small_payload_does_not_go_by_reference(world: World) {
    world.define(LONG).await;
    let (store, codecs) = bucket();
    let client = world.client_with(codecs);
    client.publish::<Act>("small".into()).await.unwrap();
    assert_eq!(objects(&store).await, []);
}

async fn a_parked_task_keeps_its_object(world: World) {
    world.define(LONG).await;
    let (store, codecs) = bucket();
    let client = world.client_with(codecs);
    let _worker = world.worker(&client, 1, parks).await;
    let failed = failed(client.publish::<Act>(large()).await.unwrap()).await;
    assert_eq!(failed.ended, Ended::Parked);
    assert_eq!(objects(&store).await.len(), 1);
}

/// The last worker was only thought dead, and its handler succeeded.
async fn a_task_parked_for_its_losses_keeps_its_object_whatever_its_last_worker_says_later(world: World) {
    let mut patient = policy(LONG);
    patient.execution.max_disruptions = 1;
    world.bellows.define::<Act>(patient).await.unwrap();
    let (store, codecs) = bucket();
    let (cut_off, link) = world.client_with_over_a_bad_link(codecs.clone());
    let client = world.client_with(codecs);
    let task = client.publish::<Act>(large()).await.unwrap();
    let raw = task.to_ref().raw().clone();
    let suspect = Tally { losses: Tally::SUSPECT_LOSSES, ..Tally::default() };
    world.put(world.space().path(&Key::Tally(raw.definition.clone(), raw.id)), suspect.encode()).await;
    let gate = Gate::default();
    let act = |_: TaskContext, text: String| async move { Ok(text.len().to_string().into()) };
    let late = world.worker(&cut_off, 1, gate.then(act)).await;
    gate.reached().await;
    link.set_reachable(false);
    gate.open();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Parked);
    link.set_reachable(true);
    within(SOON, late.drain(Duration::from_secs(5))).await.unwrap(); // its outcome is sent, in vain
    assert_eq!(objects(&store).await.len(), 1, "a replay needs it");
    let _worker = world.worker(&client, 1, measure).await;
    assert_eq!(within(SOON, client.replay(&raw)).await.unwrap(), Replayed::Again { life: 1 });
    assert_eq!(within(SOON, task).await.unwrap(), "1020000");
}

async fn a_large_payload_of_a_refused_publish_leaves_no_object(world: World) {
    let (store, codecs) = bucket();
    let client = world.client_with(codecs);
    let refused = client.publish::<Act>(large()).await.unwrap_err();
    assert!(matches!(refused, PublishError::NoSuchDefinition(_)), "{refused}");
    assert_eq!(objects(&store).await, []);
}

async fn publishing_again_with_other_bytes_leaves_the_first_object_alone(world: World) {
    world.define(LONG).await;
    let (_, codecs) = bucket();
    let client = world.client_with(codecs);
    let first = client.publish::<Act>(large()).await.unwrap();
    let raw = first.to_ref().raw().clone();
    client.publish::<Act>(large() + "and more").again(&raw).await.unwrap();
    let _worker = world.worker(&client, 1, measure).await;
    assert_eq!(within(SOON, first).await.unwrap(), "1020000");
}

async fn an_object_that_was_changed_or_is_gone_is_told_apart(world: World) {
    world.define(LONG).await;
    let (store, codecs) = bucket();
    let client = world.client_with(codecs);
    let changed = client.publish::<Act>(large()).await.unwrap();
    let path = objects(&store).await[0].clone();
    store.put(&path, bytes::Bytes::from_static(b"another's").into()).await.unwrap();
    let gone = client.publish::<Act>(large()).await.unwrap();
    for other in objects(&store).await.into_iter().filter(|other| *other != path) {
        store.delete(&other).await.unwrap();
    }
    let _worker = world.worker(&client, 2, measure).await;
    let said = |failed: TaskFailed| failed.errors[0].message.clone();
    assert_eq!(
        said(failed(changed).await),
        "the payload cannot be opened: it is damaged: not what codec \"object\" makes"
    );
    assert!(said(failed(gone).await).ends_with("that it refers to is not there"));
}

async fn a_worker_without_the_object_store_says_so(world: World) {
    world.define(LONG).await;
    let (_, codecs) = bucket();
    let _worker = world.worker(&world.client_with(encrypted(key("2026", 1))), 1, echo).await;
    let failed = failed(world.client_with(codecs).publish::<Act>(large()).await.unwrap()).await;
    let said = "the payload cannot be opened: codec \"object\" is not known to this program";
    assert_eq!(failed.errors[0].message, said);
}

async fn an_object_store_that_does_not_answer_costs_no_attempt(world: World) {
    world.define(LONG).await;
    let (store, codecs) = bucket();
    let deaf = Arc::new(ThrottledStore::new(
        Arc::clone(&store),
        ThrottleConfig { wait_get_per_call: Duration::from_secs(3600), ..ThrottleConfig::default() },
    ));
    let client = world.client_with(codecs);
    let task = client.publish::<Act>(large()).await.unwrap();
    let hears = encrypted(key("2026", 1)).by_reference(Arc::clone(&deaf) as Arc<dyn ObjectStore>, "payloads");
    let _worker = world.worker(&world.client_with(hears), 1, measure).await;
    tokio::time::sleep(Duration::from_secs(40)).await; // by paused time: two tries
    deaf.config_mut(|config| config.wait_get_per_call = Duration::ZERO);
    let outcome = within(LONG, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts), (1, 0));
    assert!(outcome.tally.snoozes >= 2, "{:?}", outcome.tally);
}
