//! Tasks that may wait only so long, and definitions on hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::spec::Mode;
use bellows_sdk::{Cancelled, Ended, OutcomeRecord, Policy, PublishError, Replayed, TaskStatus};

use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_task_that_waits_longer_than_its_ttl_expires,
    an_expired_task_is_not_run_by_a_worker_that_comes_later,
    a_running_task_does_not_expire,
    a_task_that_waits_for_its_next_attempt_past_its_ttl_expires,
    a_ttl_that_makes_no_sense_is_refused_before_it_is_sent,
    an_expired_task_frees_its_unique_key,
    a_replayed_task_has_its_whole_ttl_again,
    a_definition_on_hold_accepts_tasks_and_starts_them_once_released,
    what_runs_when_a_hold_begins_ends,
    a_retry_waits_while_its_definition_is_on_hold,
    hold_and_drain_runs_what_waits_and_takes_nothing_new,
    a_task_of_a_definition_on_hold_can_be_cancelled,
}

const SHORT: Duration = Duration::from_millis(400);

/// A time-to-live within which a task begins, also on a busy machine.
fn ample(world: &World) -> Duration {
    world.paused_or_real(2 * SHORT, Duration::from_secs(5))
}

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.into())
}

async fn ended(task: &TaskHandle<Act>) -> OutcomeRecord {
    within(SOON, task.outcome()).await.unwrap()
}

async fn a_task_that_waits_longer_than_its_ttl_expires(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).ttl(SHORT).await.unwrap();
    let outcome = ended(&task).await;
    assert_eq!((outcome.ended, outcome.attempt, outcome.cancellation), (Ended::Expired, 0, None));
    let error = within(SOON, task).await.unwrap_err().to_string();
    assert!(error.ends_with("expired after 0 attempts"), "{error}");
    world.assert_lawful().await;
}

async fn an_expired_task_is_not_run_by_a_worker_that_comes_later(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).ttl(SHORT).await.unwrap();
    ended(&task).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let _worker = world
        .worker(&world.bellows, 1, move |context, text| {
            counted.fetch_add(1, Ordering::SeqCst);
            echo(context, text)
        })
        .await;
    let next = world.bellows.publish::<Act>("next".into()).ttl(LONG).await.unwrap();
    assert_eq!(within(SOON, next).await.unwrap(), "next");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn a_running_task_does_not_expire(world: World) {
    world.define(LONG).await;
    let ttl = ample(&world);
    let slow = move |_: TaskContext, text: String| async move {
        tokio::time::sleep(ttl + 2 * SHORT).await;
        Ok(text.into())
    };
    let _worker = world.worker(&world.bellows, 1, slow).await;
    let task = world.bellows.publish::<Act>("x".into()).ttl(ttl).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

async fn a_task_that_waits_for_its_next_attempt_past_its_ttl_expires(world: World) {
    world.define(LONG).await;
    let fails = |_: TaskContext, _: String| async move { Err(TaskFailure::retry_after(LONG, "not yet")) };
    let _worker = world.worker(&world.bellows, 1, fails).await;
    let task = world.bellows.publish::<Act>("x".into()).ttl(ample(&world)).await.unwrap();
    let outcome = ended(&task).await;
    assert_eq!((outcome.ended, outcome.attempt), (Ended::Expired, 1));
    assert_eq!(outcome.tally.errors[0].message, "not yet");
    world.assert_lawful().await;
}

async fn a_ttl_that_makes_no_sense_is_refused_before_it_is_sent(world: World) {
    world.define(LONG).await;
    for (delay, ttl) in [(0, 0), (5, 5), (5, 4), (0, 400 * 24 * 3600)] {
        let (delay, ttl) = (Duration::from_secs(delay), Duration::from_secs(ttl));
        let refused = world.bellows.publish::<Act>("x".into()).delay(delay).ttl(ttl).await.unwrap_err();
        let PublishError::Invalid(text) = &refused else { panic!("{refused:?}") };
        assert!(text.starts_with(&format!("ttl is {ttl:?}; it must be longer than the delay")), "{text}");
    }
    let fine = world.bellows.publish::<Act>("x".into()).delay(SHORT).ttl(2 * SHORT).await.unwrap();
    assert_eq!(ended(&fine).await.ended, Ended::Expired);
}

async fn an_expired_task_frees_its_unique_key(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("one").ttl(SHORT).await.unwrap();
    ended(&task).await;
    let next = world.bellows.publish::<Act>("x".into()).unique("one").await.unwrap();
    assert_ne!(next.id(), task.id());
    world.assert_lawful().await;
}

async fn a_replayed_task_has_its_whole_ttl_again(world: World) {
    world.define(LONG).await;
    let parks = |_: TaskContext, _: String| async move { Err(TaskFailure::park("no")) };
    let worker = world.worker(&world.bellows, 1, parks).await;
    let ttl = ample(&world);
    let task = world.bellows.publish::<Act>("x".into()).ttl(ttl).await.unwrap();
    assert_eq!(ended(&task).await.ended, Ended::Parked);
    within(SOON, worker.drain(Duration::ZERO)).await.unwrap();
    tokio::time::sleep(ttl).await; // its first ttl is over: a parked task does not expire by it
    assert_eq!(within(SOON, task.replay()).await.unwrap(), Replayed::Again { life: 1 });
    assert!(matches!(task.status().await.unwrap(), TaskStatus::Waiting { .. }), "it has time again");
    assert_eq!(ended(&task).await.ended, Ended::Expired, "but not for ever");
    world.assert_lawful().await;
}

async fn set(world: &World, mode: Mode) {
    world.bellows.define::<Act>(Policy { mode, ..policy(LONG) }).await.unwrap();
}

/// Another kind of work, never on hold: once its task is done, whatever was planned before
/// has been begun.
struct Beside;

impl TaskDefinition for Beside {
    const NAME: &'static str = "beside";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

async fn a_task_beside_it_has_run(world: &World) {
    let tasks = Tasks::new().with_fn::<Beside, _, _>(echo);
    let worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    let task = world.bellows.publish::<Beside>("x".into()).await.unwrap();
    within(SOON, task).await.unwrap();
    within(SOON, worker.drain(Duration::ZERO)).await.unwrap();
}

async fn a_definition_on_hold_accepts_tasks_and_starts_them_once_released(world: World) {
    set(&world, Mode::Hold).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    a_task_beside_it_has_run(&world).await;
    assert!(matches!(task.status().await.unwrap(), TaskStatus::Waiting { .. }));
    set(&world, Mode::Active).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

async fn what_runs_when_a_hold_begins_ends(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, gate.then_echo()).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    set(&world, Mode::Hold).await;
    a_task_beside_it_has_run(&world).await;
    gate.open();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

async fn a_retry_waits_while_its_definition_is_on_hold(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, text: String| {
        let here = here.clone();
        async move {
            if context.attempt() == 1 {
                here.pass().await;
                return Err(TaskFailure::retry_immediately("once more"));
            }
            Ok(text.into())
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    set(&world, Mode::Hold).await;
    gate.open();
    let failed_once =
        |status: &TaskStatus| matches!(status, TaskStatus::Waiting { tally } if tally.attempts == 1);
    within(SOON, async {
        while !failed_once(&task.status().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    a_task_beside_it_has_run(&world).await;
    assert!(failed_once(&task.status().await.unwrap()), "it waits");
    set(&world, Mode::Active).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

async fn hold_and_drain_runs_what_waits_and_takes_nothing_new(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    set(&world, Mode::HoldAndDrain).await;
    let refused = world.bellows.publish::<Act>("y".into()).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotAccepting(_)), "{refused}");
    let _worker = world.worker(&world.bellows, 1, echo).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
    set(&world, Mode::Active).await;
    let next = world.bellows.publish::<Act>("z".into()).await.unwrap();
    assert_eq!(within(SOON, next).await.unwrap(), "z");
}

async fn a_task_of_a_definition_on_hold_can_be_cancelled(world: World) {
    set(&world, Mode::Hold).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task.cancel()).await.unwrap(), Cancelled::WasWaiting);
    world.assert_lawful().await;
}
