//! Cancelling a task, from whatever process, whatever it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_registry::backend::RangeRequest;
use bellows_registry::clock::{self, WallMillis};
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{Ask, Record, RequestRecord};
use bellows_registry::testkit::{Fault, puts};
use bellows_sdk::prelude::*;
use bellows_sdk::{
    Cancellation, Cancelled, Ended, Options, Policy, RawTaskRef, RequestError, TaskId, TaskStatus, WaitError,
};

use super::gate::{Acting, Gate};
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_waiting_task_is_cancelled_at_once_and_never_runs,
    a_running_task_is_told_by_its_token_and_stops,
    a_running_task_of_a_draining_worker_is_cancelled_all_the_same,
    a_task_is_cancelled_by_its_ref_from_another_process,
    whoever_waits_for_a_cancelled_task_is_told,
    cancelling_a_finished_task_is_too_late_and_changes_nothing,
    a_handler_that_succeeds_although_it_was_told_has_won,
    a_handler_that_parks_although_it_was_told_has_won,
    a_cancelled_task_does_not_come_back_by_a_snooze_or_a_panic,
    a_handler_that_does_not_stop_is_told_apart_from_one_that_does,
    a_task_that_waits_for_its_next_attempt_is_cancelled,
    a_cancelled_task_of_a_dead_worker_does_not_run_again,
    two_who_cancel_the_same_task_are_told_the_same,
    cancelling_what_never_existed_says_so_and_leaves_nothing,
    a_request_that_nobody_can_act_on_is_removed,
    the_task_of_a_singleton_cannot_be_cancelled,
    a_cancel_without_an_assigner_is_unanswered_and_acted_on_later,
    a_cancel_whose_answer_is_lost_is_one_cancel,
    a_race_of_cancel_and_finish_has_one_winner,
}

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.into())
}

/// A handler that says when it has begun, and waits for its token.
fn patient(gate: &Gate) -> impl Fn(TaskContext, String) -> Acting + Clone + use<> {
    let gate = gate.clone();
    move |context, text| {
        gate.arrive();
        Box::pin(async move {
            context.cancelled().cancelled().await;
            match text.as_str() {
                "succeed" => Ok("all the same".to_owned().into()),
                "park" => Err(TaskFailure::park("of its own")),
                "snooze" => Err(TaskFailure::snooze(Duration::from_millis(1))),
                "panic" => panic!("told to stop"),
                "hang" => std::future::pending().await,
                _ => Err("stopped".into()),
            }
        })
    }
}

/// A task whose handler has begun.
async fn running(world: &World, gate: &Gate, payload: &str) -> TaskHandle<Act> {
    let task = world.bellows.publish::<Act>(payload.to_owned()).await.unwrap();
    gate.reached().await;
    task
}

/// No request stands any more.
async fn no_request_is_left(world: &World) {
    let range = world.space().requests_range(&act());
    within(SOON, async {
        loop {
            let found = world.store.range(RangeRequest::new(range.clone())).await.unwrap();
            if found.entries.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    world.assert_lawful().await;
}

fn act() -> DefinitionId {
    DefinitionId::new("default", Act::NAME).unwrap()
}

fn id(bits: u128) -> TaskId {
    TaskId::from_bits(bits)
}

async fn a_waiting_task_is_cancelled_at_once_and_never_runs(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).delay(Duration::from_secs(1)).await.unwrap();
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::WasWaiting);
    no_request_is_left(&world).await;
    let ran = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ran);
    let _worker = world
        .worker(&world.bellows, 1, move |context, text| {
            counted.fetch_add(1, Ordering::SeqCst);
            echo(context, text)
        })
        .await;
    let Err(WaitError::Failed(failed)) = within(SOON, task).await else { panic!("it is cancelled") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Cancelled, 0));
    let next = world.bellows.publish::<Act>("next".into()).delay(Duration::from_secs(1)).await.unwrap();
    within(SOON, next).await.unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1, "only the next one ran");
}

async fn a_running_task_is_told_by_its_token_and_stops(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let task = running(&world, &gate, "x").await;
    let asked = clock::instant();
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::Stopped);
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    let outcome = task.outcome().await.unwrap();
    assert_eq!((outcome.ended, outcome.cancellation), (Ended::Cancelled, Some(Cancellation::Stopped)));
    assert_eq!((outcome.attempt, outcome.tally.attempts), (1, 0), "the attempt did not fail");
    no_request_is_left(&world).await;
}

async fn a_running_task_of_a_draining_worker_is_cancelled_all_the_same(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let task = running(&world, &gate, "x").await;
    let cancel = async {
        world.until_a_worker_drains().await;
        within(SOON, task.cancel()).await.unwrap()
    };
    let (drained, cancelled) = tokio::join!(worker.drain(LONG), cancel);
    drained.unwrap();
    assert_eq!(cancelled, Cancelled::Stopped);
    no_request_is_left(&world).await;
}

async fn a_task_is_cancelled_by_its_ref_from_another_process(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let saved = serde_json::to_string(&running(&world, &gate, "x").await.to_ref()).unwrap();
    let raw: RawTaskRef = serde_json::from_str(&saved).unwrap();
    assert_eq!(within(SOON, world.other_client().cancel(&raw)).await.unwrap(), Cancelled::Stopped);
}

async fn whoever_waits_for_a_cancelled_task_is_told(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let elsewhere = world.other_client().task(task.to_ref());
    let (waited, cancelled) = tokio::join!(within(SOON, elsewhere), within(SOON, task.cancel()));
    assert_eq!(cancelled.unwrap(), Cancelled::WasWaiting);
    let Err(WaitError::Failed(failed)) = waited else { panic!("{waited:?}") };
    assert_eq!(failed.ended, Ended::Cancelled);
    assert!(failed.to_string().ends_with("was cancelled after 0 attempts"), "{failed}");
}

async fn cancelling_a_finished_task_is_too_late_and_changes_nothing(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let task = world.bellows.publish::<Act>("kept".into()).await.unwrap();
    let before = within(SOON, task.outcome()).await.unwrap();
    let cancelled = within(SOON, task.cancel()).await.unwrap();
    assert_eq!(cancelled, Cancelled::TooLate(Box::new(before.clone())));
    assert_eq!(task.outcome().await.unwrap(), before);
    assert_eq!(task.await.unwrap(), "kept");
    no_request_is_left(&world).await;
}

async fn a_handler_that_succeeds_although_it_was_told_has_won(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let task = running(&world, &gate, "succeed").await;
    let Cancelled::TooLate(outcome) = within(SOON, task.cancel()).await.unwrap() else { panic!("it won") };
    assert_eq!(outcome.ended, Ended::Succeeded);
    assert_eq!(task.await.unwrap(), "all the same");
    no_request_is_left(&world).await;
}

async fn a_handler_that_parks_although_it_was_told_has_won(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let task = running(&world, &gate, "park").await;
    let Cancelled::TooLate(outcome) = within(SOON, task.cancel()).await.unwrap() else { panic!("it won") };
    assert_eq!(outcome.ended, Ended::Parked);
    no_request_is_left(&world).await;
}

async fn a_cancelled_task_does_not_come_back_by_a_snooze_or_a_panic(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    for payload in ["snooze", "panic"] {
        let task = running(&world, &gate, payload).await;
        assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::Stopped, "{payload}");
    }
    no_request_is_left(&world).await;
}

async fn a_handler_that_does_not_stop_is_told_apart_from_one_that_does(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, patient(&gate)).await;
    let task = running(&world, &gate, "hang").await;
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::NotStopped);
    // Its slot is free again: it is dropped at its next await.
    let next = running(&world, &gate, "x").await;
    assert_eq!(within(SOON, next.cancel()).await.unwrap(), Cancelled::Stopped);
}

async fn a_task_that_waits_for_its_next_attempt_is_cancelled(world: World) {
    world.define(LONG).await;
    let fail = |_: TaskContext, _: String| async move {
        Err(TaskFailure::retry_after(Duration::from_secs(600), "later"))
    };
    let _worker = world.worker(&world.bellows, 1, fail).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, async {
        while !matches!(task.status().await.unwrap(), TaskStatus::Waiting { tally } if tally.attempts == 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::WasWaiting);
    let Err(WaitError::Failed(failed)) = task.await else { panic!("it is cancelled") };
    assert_eq!((failed.ended, failed.attempts, failed.errors.len()), (Ended::Cancelled, 1, 1));
}

async fn a_cancelled_task_of_a_dead_worker_does_not_run_again(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let (cut_off, link) = world.client_over_a_bad_link();
    let _deaf = world.worker(&cut_off, 1, patient(&gate)).await;
    let task = running(&world, &gate, "x").await;
    link.set_reachable(false);
    let ran = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ran);
    let _other = world
        .worker(&world.bellows, 1, move |context, text| {
            counted.fetch_add(1, Ordering::SeqCst);
            echo(context, text)
        })
        .await;
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::WasWaiting);
    assert_eq!(task.outcome().await.unwrap().tally.losses, 1);
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    no_request_is_left(&world).await;
}

async fn two_who_cancel_the_same_task_are_told_the_same(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let other = world.other_client().task(task.to_ref());
    let (one, two) = tokio::join!(within(SOON, task.cancel()), within(SOON, other.cancel()));
    assert_eq!((one.unwrap(), two.unwrap()), (Cancelled::WasWaiting, Cancelled::WasWaiting));
    assert_eq!(
        within(SOON, task.cancel()).await.unwrap(),
        Cancelled::WasWaiting,
        "and for as long as it is known"
    );
}

async fn cancelling_what_never_existed_says_so_and_leaves_nothing(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let unknown = RawTaskRef { id: id(42), ..task.to_ref().raw().clone() };
    assert_eq!(within(SOON, world.bellows.cancel(&unknown)).await.unwrap(), Cancelled::NotFound);
    no_request_is_left(&world).await;
}

async fn a_request_that_nobody_can_act_on_is_removed(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    // As some other client would write it, which did not look.
    let record = RequestRecord { ask: Ask::Cancel, asked: WallMillis(0) };
    for bits in [42, 43] {
        let key = Key::Request(act(), id(bits));
        world.put(world.space().path(&key), record.encode()).await;
    }
    no_request_is_left(&world).await;
    assert!(matches!(task.status().await.unwrap(), TaskStatus::Waiting { .. }), "and nothing else");
}

async fn the_task_of_a_singleton_cannot_be_cancelled(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let raw = RawTaskRef { id: TaskId::SINGLETON, ..task.to_ref().raw().clone() };
    let error = world.bellows.cancel(&raw).await.unwrap_err();
    assert!(matches!(error, RequestError::Invalid(_)), "{error}");
    no_request_is_left(&world).await;
}

async fn a_cancel_without_an_assigner_is_unanswered_and_acted_on_later(world: World) {
    let options = Options { request_timeout: Duration::from_millis(300), ..world.beside() };
    let alone = Bellows::with_backend(world.store.clone(), options).unwrap();
    alone.define::<Act>(Policy::default()).await.unwrap();
    let task = alone.publish::<Act>("x".into()).await.unwrap();
    let error = within(SOON, task.cancel()).await.unwrap_err();
    assert!(matches!(error, RequestError::Unanswered(_)), "{error}");
    let standing = Keyspace::new(&world.beside().prefix).path(&Key::Request(act(), task.id()));
    within(SOON, world.some(KeyRange::one(standing))).await;
    // A client that is as patient as any.
    let host = Bellows::hosted(world.store.clone(), world.beside()).unwrap();
    let task = host.task(task.to_ref());
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Cancelled);
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::WasWaiting);
}

async fn a_cancel_whose_answer_is_lost_is_one_cancel(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    link.next_txn(puts(world.space().requests_range(&act()).start), Fault::LoseAnswer);
    let over_the_link = client.task(task.to_ref());
    assert_eq!(within(SOON, over_the_link.cancel()).await.unwrap(), Cancelled::WasWaiting);
    no_request_is_left(&world).await;
}

async fn a_race_of_cancel_and_finish_has_one_winner(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 4, echo).await;
    let mut won = [0, 0];
    for _ in 0..20 {
        let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
        let said = within(SOON, task.cancel()).await.unwrap();
        let outcome = task.outcome().await.unwrap();
        match said {
            Cancelled::TooLate(told) => {
                assert_eq!((told.ended, &*told), (Ended::Succeeded, &outcome));
                won[0] += 1;
            }
            Cancelled::WasWaiting | Cancelled::Stopped => {
                assert_eq!(outcome.ended, Ended::Cancelled);
                won[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won[0] + won[1], 20);
    no_request_is_left(&world).await;
}
