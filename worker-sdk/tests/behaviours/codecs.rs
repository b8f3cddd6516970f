//! What is done to payloads and results on their way: compressed, encrypted.

use bellows_registry::backend::{Op, PutLease, RangeRequest, Txn};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Record, TaskRecord};
use bellows_sdk::prelude::*;
use bellows_sdk::{
    Codecs, Encryption, Ended, ErrorKind, Keyring, PublishError, RawTaskRef, TaskFailed, WaitError, Zstd,
};

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_compressed_payload_and_result_arrive_and_are_stored_small,
    an_encrypted_task_shows_nothing_of_its_payload_or_result,
    an_encrypted_payload_that_does_not_decode_is_not_quoted,
    keys_are_rotated_without_losing_a_task,
    a_worker_that_lacks_the_key_or_the_codec_says_which,
    a_wrong_key_of_the_right_name_opens_nothing,
    payloads_swapped_between_tasks_are_refused,
    a_decompression_bomb_is_given_up_at_the_limit,
    sizes_are_checked_encoded_and_as_they_are_before_anything_is_written,
    a_waiter_that_lacks_the_key_is_told_which,
    a_worker_reads_what_it_does_not_write_yet,
    the_payload_of_a_parked_task_is_opened_for_who_has_the_key,
    an_encrypted_payload_takes_a_pending_tasks_place,
    a_follow_up_task_is_encrypted_too,
}

/// What must be seen nowhere.
pub(super) const CANARY: &str = "canary-0xdeadbeef";

pub(super) async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.into())
}

pub(super) async fn parks(_: TaskContext, _: String) -> TaskResult<String> {
    Err(TaskFailure::park("hopeless"))
}

pub(super) fn key(name: &str, byte: u8) -> Keyring {
    Keyring::new(name, [byte; 32]).unwrap()
}

pub(super) fn encrypted(keys: Keyring) -> Codecs {
    Codecs::new().with(Encryption::new(keys))
}

/// Everything in the registry, as one text.
pub(super) async fn everything(world: &World) -> String {
    let all = RangeRequest::new(world.space().everything());
    let entries = world.store.range(all).await.unwrap().entries;
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.value).into_owned()).collect()
}

pub(super) async fn failed(task: TaskHandle<Act>) -> TaskFailed {
    match within(SOON, task).await {
        Err(WaitError::Failed(failed)) => failed,
        other => panic!("expected a failure, found {other:?}"),
    }
}

/// The stored task.
async fn stored(world: &World, task: &RawTaskRef) -> (bytes::Bytes, TaskRecord) {
    let path = world.space().path(&Key::Task(task.definition.clone(), task.id));
    let found = world.some(KeyRange::one(path.clone())).await;
    (path, TaskRecord::decode(&found[0].value).unwrap())
}

async fn store(world: &World, path: bytes::Bytes, record: &TaskRecord) {
    let put = Op::Put { key: path, value: record.encode(), lease: PutLease::None };
    world.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
}

async fn a_compressed_payload_and_result_arrive_and_are_stored_small(world: World) {
    world.define(LONG).await;
    let client = world.client_with(Codecs::new().with(Zstd::new()));
    let text = "to and fro ".repeat(50_000); // 550 KB: over the limit, unless compressed
    let task = client.publish::<Act>(text.clone()).await.unwrap();
    let (_, record) = stored(&world, task.to_ref().raw()).await;
    assert!(record.payload.len() < 1000, "{} bytes", record.payload.len());
    assert_eq!(record.options.envelope().codecs[0].codec, "zstd");
    let _worker = world.worker(&client, 1, echo).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert!(outcome.result.len() < 1000, "{} bytes", outcome.result.len());
    assert_eq!(within(SOON, task).await.unwrap(), text);
}

async fn an_encrypted_task_shows_nothing_of_its_payload_or_result(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let task = client.publish::<Act>(CANARY.into()).await.unwrap();
    assert!(!everything(&world).await.contains("canary"), "the payload is readable");
    let _worker = world.worker(&client, 1, echo).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!(outcome.codecs[0].key.as_deref(), Some("2026"));
    assert!(!everything(&world).await.contains("canary"), "the result is readable");
    assert_eq!(within(SOON, task).await.unwrap(), CANARY);
}

async fn an_encrypted_payload_that_does_not_decode_is_not_quoted(world: World) {
    struct Number;
    impl TaskDefinition for Number {
        const NAME: &'static str = Act::NAME;
        type Callback = String;
        type Trigger = PublishTrigger<u64>;
    }
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let task = client.publish::<Act>(CANARY.into()).await.unwrap();
    let act = |_: TaskContext, _: u64| async move { Ok(String::new().into()) };
    let tasks = Tasks::new().with_fn::<Number, _, _>(act);
    let _worker = WorkerDispatcher::of(&client, tasks).launch().await.unwrap();
    let failed = failed(task).await;
    assert_eq!(failed.errors[0].kind, ErrorKind::Undecodable);
    assert!(!everything(&world).await.contains("canary"), "{failed}");
}

async fn keys_are_rotated_without_losing_a_task(world: World) {
    world.define(LONG).await;
    let (old, both) = (key("2025", 1), key("2025", 1).with("2026", [2; 32]).unwrap());
    let before = world.client_with(encrypted(old)).publish::<Act>("before".into()).await.unwrap();
    let rotated = world.client_with(encrypted(both.active("2026").unwrap()));
    let after = rotated.publish::<Act>("after".into()).await.unwrap();
    let (_, record) = stored(&world, after.to_ref().raw()).await;
    assert_eq!(record.options.envelope().codecs[0].key.as_deref(), Some("2026"));
    let _worker = world.worker(&rotated, 1, echo).await;
    for (task, text) in [(before, "before"), (after, "after")] {
        let task = rotated.task(task.to_ref());
        assert_eq!(within(SOON, task.outcome()).await.unwrap().codecs[0].key.as_deref(), Some("2026"));
        assert_eq!(within(SOON, task).await.unwrap(), text);
    }
}

async fn a_worker_that_lacks_the_key_or_the_codec_says_which(world: World) {
    world.define(LONG).await;
    let sealed = world.client_with(encrypted(key("2026", 1)));
    let packed = world.client_with(Codecs::new().with(Zstd::new()));
    let _worker = world.worker(&world.client_with(encrypted(key("2025", 1))), 1, echo).await;
    for (task, said) in [
        (
            sealed.publish::<Act>(CANARY.into()).await.unwrap(),
            "the payload cannot be opened: key \"2026\" of codec \"aes256gcm\" is not known to this program",
        ),
        (
            packed.publish::<Act>(CANARY.repeat(100)).await.unwrap(),
            "the payload cannot be opened: codec \"zstd\" is not known to this program",
        ),
    ] {
        let failed = failed(task).await;
        assert_eq!((failed.ended, failed.errors[0].kind), (Ended::Parked, ErrorKind::Undecodable));
        assert_eq!(failed.errors[0].message, said);
    }
}

async fn a_wrong_key_of_the_right_name_opens_nothing(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let _worker = world.worker(&world.client_with(encrypted(key("2026", 2))), 1, echo).await;
    let failed = failed(client.publish::<Act>(CANARY.into()).await.unwrap()).await;
    assert_eq!(failed.errors[0].kind, ErrorKind::Undecodable);
    assert!(failed.errors[0].message.contains("another key has this name"), "{failed}");
}

async fn payloads_swapped_between_tasks_are_refused(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    // Large enough to be read from the task, and not from what the assigner has seen of it.
    let one = client.publish::<Act>("one".repeat(2000)).await.unwrap();
    let two = client.publish::<Act>("two".repeat(2000)).await.unwrap();
    let (path_of_one, mut record_of_one) = stored(&world, one.to_ref().raw()).await;
    let (path_of_two, mut record_of_two) = stored(&world, two.to_ref().raw()).await;
    // Both are whole, under the right key, and in the wrong place.
    std::mem::swap(&mut record_of_one.payload, &mut record_of_two.payload);
    store(&world, path_of_one, &record_of_one).await;
    store(&world, path_of_two, &record_of_two).await;
    let _worker = world.worker(&client, 2, echo).await;
    for task in [one, two] {
        let failed = failed(task).await;
        assert!(failed.errors[0].message.contains("or it is not this task's"), "{failed}");
    }
}

async fn a_decompression_bomb_is_given_up_at_the_limit(world: World) {
    world.define(LONG).await;
    let trusting = world.client_with(Codecs::new().with(Zstd::new()).max_decoded(64 << 20));
    let bomb = trusting.publish::<Act>("x".repeat(32 << 20)).await.unwrap();
    let careful = world.client_with(Codecs::new().reads(Zstd::new()).max_decoded(1 << 20));
    let _worker = world.worker(&careful, 1, echo).await;
    let failed = failed(bomb).await;
    let said = "the payload cannot be opened: decoded, it has more than 1048576 bytes";
    assert_eq!(failed.errors[0].message, said);
    let fine = careful.publish::<Act>("fine".into()).await.unwrap();
    assert_eq!(within(SOON, fine).await.unwrap(), "fine");
}

async fn sizes_are_checked_encoded_and_as_they_are_before_anything_is_written(world: World) {
    world.define(LONG).await;
    let client = world.client_with(Codecs::new().with(Zstd::new()).max_decoded(1 << 20));
    let noise = |bytes: usize| -> String {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (state >> 33) as u8 % 90)
        };
        (0..bytes).map(|_| next()).collect()
    };
    let refused = client.publish::<Act>("x".repeat(1 << 20)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the payload has 1048578 bytes; the limit is 1048576", "as it is");
    let refused = client.publish::<Act>(noise(200_000)).await.unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { limit: 65_536, .. }), "encoded: {refused}");
    let tasks = KeyRange::prefix(format!("{}q/default/act/t/", world.space().prefix()));
    assert_eq!(world.store.range(RangeRequest::new(tasks)).await.unwrap().entries, []);
}

async fn a_waiter_that_lacks_the_key_is_told_which(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let _worker = world.worker(&client, 1, echo).await;
    let task = client.publish::<Act>(CANARY.into()).await.unwrap();
    within(SOON, task.outcome()).await.unwrap();
    let error = within(SOON, world.bellows.task(task.to_ref())).await.unwrap_err();
    assert!(matches!(error, WaitError::Codec { .. }), "{error}");
    assert!(
        error.to_string().ends_with("cannot be opened: codec \"aes256gcm\" is not known to this program")
    );
}

async fn a_worker_reads_what_it_does_not_write_yet(world: World) {
    world.define(LONG).await;
    // The first half of a roll-out: the worker knows the codec, and writes results plainly.
    let worker = world.client_with(Codecs::new().reads(Encryption::new(key("2026", 1))));
    let _worker = world.worker(&worker, 1, echo).await;
    let plain = world.bellows.publish::<Act>("plain".into()).await.unwrap();
    assert_eq!(within(SOON, plain).await.unwrap(), "plain");
    let client = world.client_with(encrypted(key("2026", 1)));
    let sealed = client.publish::<Act>("sealed".into()).await.unwrap();
    assert_eq!(within(SOON, sealed.outcome()).await.unwrap().codecs, []);
    assert_eq!(within(SOON, sealed).await.unwrap(), "sealed");
}

async fn the_payload_of_a_parked_task_is_opened_for_who_has_the_key(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let _worker = world.worker(&client, 1, parks).await;
    failed(client.publish::<Act>(CANARY.into()).await.unwrap()).await;
    let page = client.parked::<Act>().next_page().await.unwrap();
    assert_eq!(page[0].payload().await.unwrap(), CANARY);
    let keyless = world.client_with(encrypted(key("2025", 1)));
    let page = keyless.parked::<Act>().next_page().await.unwrap();
    let error = page[0].payload().await.unwrap_err().to_string();
    assert!(error.contains("2026") && !error.contains("canary"), "{error}");
}

async fn an_encrypted_payload_takes_a_pending_tasks_place(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let first = client.publish::<Act>("first".into()).replace_pending("k").await.unwrap();
    let second = client.publish::<Act>("second".into()).replace_pending("k").await.unwrap();
    assert_eq!(second.id(), first.id());
    let _worker = world.worker(&client, 1, echo).await;
    assert_eq!(within(SOON, second).await.unwrap(), "second");
}

async fn a_follow_up_task_is_encrypted_too(world: World) {
    world.define(LONG).await;
    let client = world.client_with(encrypted(key("2026", 1)));
    let (seen, mut sees) = tokio::sync::mpsc::channel(1);
    let act = move |_: TaskContext, text: String| {
        let seen = seen.clone();
        async move {
            if text == "first" {
                return Ok(TaskSuccess::done(text).and_publish::<Act>(CANARY.into()));
            }
            seen.send(text.clone()).await?;
            Ok(text.into())
        }
    };
    let _worker = world.worker(&client, 1, act).await;
    let task = client.publish::<Act>("first".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "first");
    assert_eq!(within(SOON, sees.recv()).await.unwrap(), CANARY);
    assert!(!everything(&world).await.contains("canary"), "the follow-up task is readable");
}
