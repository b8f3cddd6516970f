//! Attempts that are tried again: when, how often, and what is kept of them.

use std::time::{Duration, SystemTime};

use bellows_registry::clock;
use bellows_sdk::prelude::*;
use bellows_sdk::spec::Retry;
use bellows_sdk::{Ended, ErrorKind};

use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_handler_says_at_what_time_it_is_tried_again,
    a_retry_at_a_time_that_is_over_is_tried_at_once,
    an_immediate_retry_counts_and_ends_with_the_last_attempt,
    the_last_five_errors_are_kept_with_attempt_and_time,
    an_error_text_is_cut_at_a_character,
}

async fn a_handler_says_at_what_time_it_is_tried_again(world: World) {
    world.define(LONG).await;
    let began = clock::instant();
    let act = |context: TaskContext, text: String| async move {
        if context.attempt() == 1 {
            let later = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::wall().0 + 600);
            return Err(TaskFailure::retry_at(later, "later"));
        }
        Ok(text.into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
    assert!(began.elapsed() >= Duration::from_millis(500), "after {:?}", began.elapsed());
}

async fn a_retry_at_a_time_that_is_over_is_tried_at_once(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        if context.attempt() == 1 {
            return Err(TaskFailure::retry_at(SystemTime::UNIX_EPOCH, "at once"));
        }
        Ok(text.into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

async fn with_attempts(world: &World, max_attempts: u32) {
    let mut policy = policy(LONG);
    policy.execution.retry = Retry { max_attempts, ..policy.execution.retry };
    world.bellows.define::<Act>(policy).await.unwrap();
}

async fn an_immediate_retry_counts_and_ends_with_the_last_attempt(world: World) {
    with_attempts(&world, 4).await;
    let act = |_: TaskContext, _: String| async move { Err(TaskFailure::retry_immediately("no")) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.attempt, outcome.tally.attempts), (Ended::Parked, 4, 4));
}

async fn the_last_five_errors_are_kept_with_attempt_and_time(world: World) {
    with_attempts(&world, 8).await;
    let act = |context: TaskContext, _: String| async move {
        Err(TaskFailure::retry_immediately(format!("no luck {}", context.attempt())))
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let before = clock::wall();
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let errors = within(SOON, task.outcome()).await.unwrap().tally.errors;
    let attempts: Vec<u32> = errors.iter().map(|error| error.attempt).collect();
    assert_eq!(attempts, [4, 5, 6, 7, 8]);
    assert!(errors.iter().all(|error| error.at >= before && error.kind == ErrorKind::Failed));
    assert!(errors.windows(2).all(|pair| pair[0].at <= pair[1].at), "oldest first");
    assert_eq!(errors[4].message, "no luck 8");
}

async fn an_error_text_is_cut_at_a_character(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async move { Err(TaskFailure::park("€".repeat(1000))) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let errors = within(SOON, task.outcome()).await.unwrap().tally.errors;
    assert_eq!(errors[0].message, "€".repeat(341), "1023 of at most 1024 bytes");
}
