//! Attempts that do not succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, ErrorKind, TaskFailed, WaitError};

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_failed_attempt_is_tried_again_and_counted,
    a_task_is_parked_after_its_last_attempt_with_the_errors,
    a_parked_verdict_is_final,
    a_cancelled_verdict_is_final,
    snoozing_costs_no_attempt,
    a_panic_is_a_failed_attempt_and_harms_nobody_else,
    a_handler_that_takes_too_long_is_cancelled_and_its_attempt_fails,
    a_payload_that_does_not_decode_is_parked_and_blocks_nobody,
    a_result_over_the_limit_is_a_typed_failure,
    a_worker_may_allow_larger_results,
}

async fn failed(task: TaskHandle<Act>) -> TaskFailed {
    match within(SOON, task).await {
        Err(WaitError::Failed(failed)) => failed,
        other => panic!("expected a failure, found {other:?}"),
    }
}

async fn a_failed_attempt_is_tried_again_and_counted(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| async move {
        if context.attempt() < 3 {
            "x".parse::<u32>()?; // any error means: retry
        }
        Ok(format!("{} of {}", context.attempt(), context.max_attempts()).into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.errors.len()), (3, 2, 2));
    assert_eq!(within(SOON, task).await.unwrap(), "3 of 3");
}

async fn a_task_is_parked_after_its_last_attempt_with_the_errors(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| async move {
        Err(TaskFailure::retry(format!("no luck {}", context.attempt())))
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let failed = failed(world.bellows.publish::<Act>("x".into()).await.unwrap()).await;
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 3));
    let texts: Vec<&str> = failed.errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(texts, ["no luck 1", "no luck 2", "no luck 3"]);
    assert!(failed.to_string().ends_with("was parked after 3 attempts: no luck 3"), "{failed}");
    world.assert_lawful().await;
}

async fn a_parked_verdict_is_final(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async move { Err(TaskFailure::park("hopeless")) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let failed = failed(world.bellows.publish::<Act>("x".into()).await.unwrap()).await;
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
}

async fn a_cancelled_verdict_is_final(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async move { Err(TaskFailure::cancel("nobody wants it")) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let failed = failed(world.bellows.publish::<Act>("x".into()).await.unwrap()).await;
    assert_eq!((failed.ended, failed.attempts), (Ended::Cancelled, 1));
}

async fn snoozing_costs_no_attempt(world: World) {
    world.define(LONG).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let act = move |context: TaskContext, _: String| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if run < 5 {
                return Err(TaskFailure::snooze(Duration::from_millis(20)));
            }
            Ok(context.attempt().to_string().into())
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "1");
    assert_eq!(runs.load(Ordering::SeqCst), 6);
}

async fn a_panic_is_a_failed_attempt_and_harms_nobody_else(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, text: String| async move {
        assert!(text != "boom", "it went boom");
        Ok(text.into())
    };
    let _worker = world.worker(&world.bellows, 2, act).await;
    let boom = world.bellows.publish::<Act>("boom".into()).await.unwrap();
    let fine = world.bellows.publish::<Act>("fine".into()).await.unwrap();
    let failed = failed(boom).await;
    assert_eq!((failed.attempts, failed.errors[0].kind), (3, ErrorKind::Panicked));
    assert!(failed.errors[0].message.contains("it went boom"), "{failed}");
    assert_eq!(within(SOON, fine).await.unwrap(), "fine");
}

async fn a_handler_that_takes_too_long_is_cancelled_and_its_attempt_fails(world: World) {
    world.define(Duration::from_secs(1)).await;
    let cancelled = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&cancelled);
    let act = move |context: TaskContext, _: String| {
        let counted = Arc::clone(&counted);
        async move {
            if context.attempt() == 1 {
                context.cancelled().cancelled().await;
                counted.fetch_add(1, Ordering::SeqCst);
                return Err("gave up".into());
            }
            Ok("in time".to_owned().into())
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.errors[0].kind), (2, ErrorKind::TimedOut));
    assert_eq!(outcome.tally.errors[0].message, "timed out after 1s");
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
}

/// The same name, but another payload: what a roll-out in the wrong order looks like.
struct Misunderstood;

impl TaskDefinition for Misunderstood {
    const NAME: &'static str = Act::NAME;
    type Callback = String;
    type Trigger = PublishTrigger<u64>;
}

async fn a_payload_that_does_not_decode_is_parked_and_blocks_nobody(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, text: String| async move { Ok(text.into()) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let wrong = world.bellows.publish::<Misunderstood>(7).await.unwrap();
    let right = world.bellows.publish::<Act>("right".into()).await.unwrap();
    assert_eq!(within(SOON, right).await.unwrap(), "right");
    let Err(WaitError::Failed(failed)) = within(SOON, wrong).await else { panic!("it cannot succeed") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 3));
    assert_eq!(failed.errors[0].kind, ErrorKind::Undecodable);
}

async fn a_result_over_the_limit_is_a_typed_failure(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async move { Ok("x".repeat(70_000).into()) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let failed = failed(world.bellows.publish::<Act>("x".into()).await.unwrap()).await;
    assert_eq!((failed.ended, failed.errors[0].kind), (Ended::Parked, ErrorKind::ResultRefused));
    assert!(failed.errors[0].message.contains("70002 bytes; the limit is 65536"), "{failed}");
}

async fn a_worker_may_allow_larger_results(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, text: String| async move { Ok(text.repeat(700).into()) };
    let tasks = Tasks::new().with_fn::<Act, _, _>(act).max_body(100_000);
    let _worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    let task = world.bellows.publish::<Act>("x".repeat(100)).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap().len(), 70_000);
    let task = world.bellows.publish::<Act>("x".repeat(150)).await.unwrap();
    let failed = failed(task).await;
    assert!(failed.errors[0].message.contains("105002 bytes; the limit is 100000"), "{failed}");
}
