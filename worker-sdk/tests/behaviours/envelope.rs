//! What travels around a payload: headers and trace, version and old names, media type.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::KeyRange;
use bellows_registry::record::{Envelope, TaskOptions, TaskRecord};
use bellows_registry::{clock, txn};
use bellows_sdk::prelude::*;
use bellows_sdk::upgrade::{self, UpgradeError, Value};
use bellows_sdk::{DispatcherHandle, Ended, ErrorKind, RawTaskRef, TaskFailed, TraceParent, WaitError};

use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_traceparent_given_at_publish_is_the_parent_of_the_attempt,
    a_task_without_a_trace_begins_one_that_is_named_like_it,
    what_a_handler_publishes_belongs_to_its_trace,
    a_header_that_is_not_allowed_is_refused_and_nothing_is_written,
    a_media_type_arrives_and_one_that_is_not_json_is_not_read,
    an_older_payload_is_upgraded_step_by_step,
    a_payload_whose_upgrade_is_refused_is_parked_with_the_words,
    a_payload_newer_than_its_worker_is_not_touched,
    a_task_under_an_old_name_is_done_by_the_worker_of_the_new_one,
    a_name_that_two_kinds_of_work_claim_is_refused_at_launch,
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a handler is told of its trace.
async fn trace(context: TaskContext, _: String) -> TaskResult<String> {
    let (own, parent) = (context.traceparent(), &context.headers()["traceparent"]);
    assert_eq!(own.span_id(), context.attempt_id().to_string(), "a span is named like its attempt");
    Ok(format!("{parent} {own}").into())
}

/// The trace and the parent's span that a handler was told.
async fn traced(task: TaskHandle<Act>) -> (TraceParent, TraceParent) {
    let told = within(SOON, task).await.unwrap();
    let (parent, own) = told.split_once(' ').unwrap();
    (parent.parse().unwrap(), own.parse().unwrap())
}

async fn a_traceparent_given_at_publish_is_the_parent_of_the_attempt(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, trace).await;
    let task = world.bellows.publish::<Act>("x".into()).traceparent(TRACE).await.unwrap();
    let (parent, own) = traced(task).await;
    assert_eq!(parent.to_string(), TRACE);
    assert_eq!((own.trace_id(), own.is_sampled()), (parent.trace_id(), true));
    assert_ne!(own.span_id(), parent.span_id());
}

async fn a_task_without_a_trace_begins_one_that_is_named_like_it(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, trace).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let id = task.id().to_string();
    let (parent, own) = traced(task).await;
    assert_eq!((parent.trace_id(), own.trace_id()), (id.clone(), id));
    assert!(!own.is_sampled(), "nobody has decided to record it");
}

async fn what_a_handler_publishes_belongs_to_its_trace(world: World) {
    world.define(LONG).await;
    let client = world.bellows.clone();
    let act = move |context: TaskContext, text: String| {
        let client = client.clone();
        async move {
            if text == "parent" {
                let child = client.publish::<Act>("child".into()).await?;
                return Ok(format!("{} {}", context.traceparent(), child.await?).into());
            }
            Ok(context.headers()["traceparent"].clone().into())
        }
    };
    let _worker = world.worker(&world.bellows, 2, act).await;
    let task = world.bellows.publish::<Act>("parent".into()).traceparent(TRACE).await.unwrap();
    let told = within(SOON, task).await.unwrap();
    let (parents, childs) = told.split_once(' ').unwrap();
    assert_eq!(parents, childs, "the handler's attempt is the parent of what it publishes");
}

async fn a_header_that_is_not_allowed_is_refused_and_nothing_is_written(world: World) {
    world.define(LONG).await;
    let publish = || world.bellows.publish::<Act>("x".into());
    for (refused, said) in [
        (publish().header("a b", "x"), "header name \"a b\" is not allowed: use 1 to 128 letters"),
        (publish().header("n", "a\nb"), "the value of header \"n\" is not allowed: use text without"),
        (publish().traceparent("00-0-0-0"), "header traceparent \"00-0-0-0\" is not allowed: use 00-<32"),
        (
            publish().content_type("text/plain"),
            "content type \"text/plain\" is not allowed: use application/json",
        ),
        (publish().header("n", "x".repeat(5000)), "the headers together has 5001 bytes; the limit is 4096"),
    ] {
        let error = refused.await.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    let tasks = KeyRange::prefix(format!("{}q/default/act/t/", world.space().prefix()));
    let found = world.store.range(bellows_registry::backend::RangeRequest::new(tasks)).await.unwrap();
    assert_eq!(found.entries, []);
}

async fn a_media_type_arrives_and_one_that_is_not_json_is_not_read(world: World) {
    world.define(LONG).await;
    let told = |context: TaskContext, _: String| async move { Ok(context.content_type().to_owned().into()) };
    let _worker = world.worker(&world.bellows, 1, told).await;
    let acme = "application/vnd.acme+json";
    for (publish, said) in [
        (world.bellows.publish::<Act>("x".into()), "application/json"),
        (world.bellows.publish::<Act>("x".into()).content_type(acme), acme),
    ] {
        assert_eq!(within(SOON, publish.await.unwrap()).await.unwrap(), said);
    }
    // Another program's.
    let cbor = Envelope { content_type: Some("application/cbor".to_owned()), ..Envelope::default() };
    let failed = failed(written(&world, cbor, b"\"x\"").await).await;
    assert_eq!(failed.errors[0].message, "the payload is \"application/cbor\"; this worker reads JSON");
}

/// Writes a task as another program might.
async fn written(world: &World, envelope: Envelope, payload: &'static [u8]) -> TaskHandle<Act> {
    let raw = RawTaskRef {
        definition: DefinitionId::new("default", Act::NAME).unwrap(),
        id: TaskId::from_bits(0xabc),
        slot: bellows_registry::id::ResultSlot::from_bits(1),
    };
    let record = TaskRecord {
        slot: raw.slot,
        published: clock::wall(),
        delay: None,
        headers: std::collections::BTreeMap::new(),
        options: TaskOptions { envelope: envelope.stored(), ..TaskOptions::default() },
        payload: bytes::Bytes::from_static(payload),
    };
    world.write(txn::publish(&world.space(), &raw.definition, raw.id, &record)).await;
    world.bellows.task(TaskRef::from_raw(raw))
}

async fn failed<T: TaskDefinition>(task: TaskHandle<T>) -> TaskFailed {
    match within(SOON, task).await {
        Err(WaitError::Failed(failed)) => failed,
        Err(other) => panic!("expected a failure, found {other}"),
        Ok(_) => panic!("expected a failure, found a result"),
    }
}

/// `Act` as it was, is, and will be: the same name, another shape each time.
struct First;
struct Second;
struct Third;

impl TaskDefinition for First {
    const NAME: &'static str = Act::NAME;
    type Callback = String;
    type Trigger = PublishTrigger<(String, u32)>;
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    times: u32,
}

impl TaskDefinition for Second {
    const NAME: &'static str = Act::NAME;
    const VERSION: u32 = 2;
    type Callback = String;
    type Trigger = PublishTrigger<Named>;

    fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> {
        match version {
            1 => upgrade::try_step(payload, |(name, times): (String, u32)| match times {
                0 => Err("it was never to be done"),
                times => Ok(Named { name, times }),
            }),
            _ => Err(UpgradeError::NoStep(version)),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Text {
    text: String,
}

impl TaskDefinition for Third {
    const NAME: &'static str = Act::NAME;
    const VERSION: u32 = 3;
    type Callback = String;
    type Trigger = PublishTrigger<Text>;

    fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> {
        match version {
            1 => Second::upgrade(version, payload),
            2 => upgrade::step(payload, |old: Named| Text { text: old.name.repeat(old.times as usize) }),
            _ => Err(UpgradeError::NoStep(version)),
        }
    }
}

async fn third_worker(world: &World) -> DispatcherHandle {
    let act = |context: TaskContext, payload: Text| async move {
        Ok(format!("{} from {}", payload.text, context.payload_version()).into())
    };
    launched(world, Tasks::new().with_fn::<Third, _, _>(act)).await
}

async fn launched(world: &World, tasks: Tasks) -> DispatcherHandle {
    let mut worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    worker
}

async fn an_older_payload_is_upgraded_step_by_step(world: World) {
    world.define(LONG).await;
    let first = world.bellows.publish::<First>(("ab".into(), 3)).await.unwrap();
    let second = world.bellows.publish::<Second>(Named { name: "cd".into(), times: 2 }).await.unwrap();
    let third = world.bellows.publish::<Third>(Text { text: "ef".into() }).await.unwrap();
    let _worker = third_worker(&world).await;
    assert_eq!(within(SOON, first).await.unwrap(), "ababab from 1");
    assert_eq!(within(SOON, second).await.unwrap(), "cdcd from 2");
    assert_eq!(within(SOON, third).await.unwrap(), "ef from 3");
}

async fn a_payload_whose_upgrade_is_refused_is_parked_with_the_words(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<First>(("ab".into(), 0)).await.unwrap();
    let _worker = third_worker(&world).await;
    let failed = failed(task).await;
    assert_eq!((failed.ended, failed.errors[0].kind), (Ended::Parked, ErrorKind::Undecodable));
    let said = "the payload of version 1 cannot be upgraded: it was never to be done";
    assert_eq!(failed.errors[0].message, said);
}

async fn a_payload_newer_than_its_worker_is_not_touched(world: World) {
    world.define(LONG).await;
    // Its text would do as a first payload: only the version says that it is none.
    let envelope = Envelope { version: 2, ..Envelope::default() };
    let task = written(&world, envelope, b"\"looks like the first\"").await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let act = move |_: TaskContext, text: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(text.into()) }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let failed = failed(task).await;
    assert_eq!(failed.errors[0].kind, ErrorKind::Undecodable);
    assert_eq!(failed.errors[0].message, "the payload has version 2; this worker knows up to 1");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

/// `Act`, renamed.
struct Renamed;

impl TaskDefinition for Renamed {
    const NAME: &'static str = "renamed";
    const ALIASES: &'static [&'static str] = &[Act::NAME];
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

async fn a_task_under_an_old_name_is_done_by_the_worker_of_the_new_one(world: World) {
    world.define(LONG).await;
    let old = world.bellows.publish::<Act>("old".into()).await.unwrap();
    let saved = serde_json::to_string(&old.to_ref()).unwrap();
    let act = |_: TaskContext, text: String| async move { Ok(format!("{text}, done").into()) };
    let _worker = launched(&world, Tasks::new().with_fn::<Renamed, _, _>(act)).await;
    // The reference was saved by a program that knew the old name only.
    let task = world.other_client().task::<Renamed>(serde_json::from_str(&saved).unwrap());
    assert_eq!(within(SOON, task).await.unwrap(), "old, done");
    let new = world.bellows.publish::<Renamed>("new".into()).await.unwrap();
    assert_eq!(new.to_ref().raw().definition.name.as_str(), "renamed");
    assert_eq!(within(SOON, new).await.unwrap(), "new, done");
    // And a publish that was unanswered under the old name is repeated there.
    let raw = old.to_ref().raw().clone();
    let again = world.bellows.publish::<Renamed>("twice".into()).again(&raw).await.unwrap();
    assert_eq!(within(SOON, again).await.unwrap(), "old, done");
}

async fn a_name_that_two_kinds_of_work_claim_is_refused_at_launch(world: World) {
    world.bellows.define::<Act>(policy(LONG)).await.unwrap();
    let echo = |_: TaskContext, text: String| async move { Ok(text.into()) };
    let tasks = Tasks::new().with_fn::<Act, _, _>(echo).with_fn::<Renamed, _, _>(echo);
    let refused = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap_err();
    let said = "renamed says that it was called act before, but act is another kind of work here";
    assert_eq!(refused.to_string(), said);
}
