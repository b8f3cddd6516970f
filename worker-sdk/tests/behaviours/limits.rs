//! How many run at once, and how many begin in a time: of all, and of each fairness key.

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::key::Key;
use bellows_registry::spec::{ConcurrencyLimit, Execution, RateLimit, Span};
use bellows_sdk::prelude::*;
use tokio::sync::watch;

use super::running::{A_WHILE, Log, QUICK, all_end, define, publish, sorted};
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    no_more_than_the_total_limit_run_at_once,
    no_more_than_the_limit_of_a_key_run_at_once,
    a_key_at_its_limit_holds_up_no_other_key,
    a_task_that_waits_for_its_next_attempt_takes_no_place_of_a_limit,
    a_raised_limit_applies_at_once,
    a_lowered_limit_stops_nothing_that_runs,
    a_limit_holds_over_a_change_of_leaders,
    no_more_than_the_rate_are_given_out_in_any_time_of_its_length,
    every_attempt_counts_for_the_rate,
    a_rate_per_key_holds_up_no_other_key,
    a_rate_holds_over_a_change_of_leaders,
}

fn limit(total: Option<u32>, per_key: Option<u32>) -> impl FnOnce(&mut Execution) {
    move |execution| execution.concurrency_limit = Some(ConcurrencyLimit { total, per_key })
}

fn rate(tasks: Option<u32>, per_key: Option<u32>) -> impl FnOnce(&mut Execution) {
    move |execution| execution.rate_limit = Some(RateLimit { tasks, per_key, per: Span::secs(1) })
}

async fn no_more_than_the_total_limit_run_at_once(world: World) {
    define(&world, limit(Some(2), None)).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let _one = world.worker(&world.bellows, 4, log.held(&go)).await;
    let _two = world.worker(&world.bellows, 4, log.held(&go)).await;
    let tasks = publish(&world, &["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"]).await;
    log.until_began(2).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(log.most(""), 2, "while the first two run");
    go.send_replace(true);
    all_end(tasks).await;
    assert_eq!(log.most(""), 2, "as one after the other ends");
}

async fn no_more_than_the_limit_of_a_key_run_at_once(world: World) {
    define(&world, limit(None, Some(1))).await;
    let tasks = publish(&world, &["a1", "a2", "a3", "b1", "b2", "b3"]).await;
    let log = Log::default();
    let _one = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    let _two = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!((log.most("a"), log.most("b")), (1, 1));
}

async fn a_key_at_its_limit_holds_up_no_other_key(world: World) {
    define(&world, limit(None, Some(1))).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let tasks = publish(&world, &["a1", "a2", "a3", "b1"]).await;
    let _worker = world.worker(&world.bellows, 4, log.held(&go)).await;
    log.until_began(2).await;
    assert_eq!(log.most("b"), 1, "b runs beside the blocked a");
    go.send_replace(true);
    all_end(tasks).await;
}

async fn a_task_that_waits_for_its_next_attempt_takes_no_place_of_a_limit(world: World) {
    define(&world, |execution| {
        execution.concurrency_limit = Some(ConcurrencyLimit { total: Some(1), per_key: None });
        execution.retry.backoff.initial = Span::secs(60);
        execution.retry.backoff.max = Span::secs(60);
    })
    .await;
    let act = |context: TaskContext, name: String| async move {
        if name == "fails" && context.attempt() == 1 {
            return Err(TaskFailure::retry("later"));
        }
        Ok(name.into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let _fails = world.bellows.publish::<Act>("fails".into()).await.unwrap();
    let other = world.bellows.publish::<Act>("other".into()).await.unwrap();
    within(SOON, other).await.unwrap();
}

async fn a_raised_limit_applies_at_once(world: World) {
    define(&world, limit(Some(1), None)).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let tasks = publish(&world, &["a1", "b1", "c1"]).await;
    let _worker = world.worker(&world.bellows, 4, log.held(&go)).await;
    log.until_began(1).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(log.most(""), 1);
    define(&world, limit(Some(3), None)).await;
    log.until_began(3).await;
    go.send_replace(true);
    all_end(tasks).await;
}

async fn a_lowered_limit_stops_nothing_that_runs(world: World) {
    world.define(LONG).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let _worker = world.worker(&world.bellows, 4, log.held(&go)).await;
    let mut tasks = publish(&world, &["a1", "b1", "c1"]).await;
    log.until_began(3).await;
    define(&world, limit(Some(1), None)).await;
    tasks.extend(publish(&world, &["d1"]).await);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(log.names().len(), 3, "the fourth waits until fewer run than the limit");
    go.send_replace(true);
    all_end(tasks).await;
    assert_eq!(log.most(""), 3);
}

/// The leader is deposed; it, or another one, begins to lead knowing only what a list tells.
async fn change_leaders(world: &World) {
    let key = world.space().path(&Key::Leader(0));
    let before = world.some(bellows_registry::key::KeyRange::one(key.clone())).await[0].mod_revision;
    world.delete(key.clone()).await;
    let led = async {
        while world.some(bellows_registry::key::KeyRange::one(key.clone())).await[0].mod_revision == before {
            tokio::time::sleep(QUICK).await;
        }
    };
    within(SOON, led).await;
}

async fn a_limit_holds_over_a_change_of_leaders(world: World) {
    define(&world, limit(Some(2), Some(1))).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let tasks = publish(&world, &["a1", "a2", "b1", "b2", "c1"]).await;
    let _worker = world.worker(&world.bellows, 8, log.held(&go)).await;
    log.until_began(2).await;
    change_leaders(&world).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((log.most(""), log.most("a"), log.most("b")), (2, 1, 1));
    go.send_replace(true);
    all_end(tasks).await;
    assert_eq!((log.most(""), log.most("a")), (2, 1));
}

/// A second, less what a message may be late while the clock is wound forward.
const NEARLY_A_SECOND: Duration = Duration::from_millis(800);

/// So many began in nearly a second at most, and no fewer than that. `before` is when nothing
/// had been given out yet.
///
/// On a busy machine what was given out in time may begin together, late: there is no more to
/// see than that the last one did not come before its time.
fn assert_rate(world: &World, before: Instant, times: &[Instant], limit: usize) {
    if !world.has_paused_time() {
        let least = Duration::from_secs(1) * u32::try_from((times.len() - 1) / limit).unwrap();
        let took = times[times.len() - 1] - before;
        assert!(took >= least, "{} of {limit} a second within {took:?}", times.len());
        return;
    }
    let together = |from: &Instant| {
        let until = *from + NEARLY_A_SECOND;
        times.iter().filter(|at| *at >= from && **at < until).count()
    };
    let fullest = times.iter().map(together).max();
    assert_eq!(fullest, Some(limit), "the most that began in {NEARLY_A_SECOND:?}: {times:?}");
}

async fn no_more_than_the_rate_are_given_out_in_any_time_of_its_length(world: World) {
    define(&world, rate(Some(3), None)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 16, log.taking(QUICK)).await;
    let before = clock::instant();
    all_end(publish(&world, &["a1", "b1", "c1", "a2", "b2", "c2", "a3"]).await).await;
    assert_rate(&world, before, &log.times(), 3);
}

async fn every_attempt_counts_for_the_rate(world: World) {
    define(&world, |execution| {
        rate(Some(1), None)(execution);
        execution.retry.backoff.initial = Span::millis(1);
    })
    .await;
    let log = Log::default();
    let began = Arc::clone(&log.began);
    let act = move |context: TaskContext, name: String| {
        began.lock().unwrap().push((name.clone(), clock::instant()));
        async move {
            if context.attempt() == 1 {
                return Err(TaskFailure::retry_immediately("once more"));
            }
            Ok(name.into())
        }
    };
    let _worker = world.worker(&world.bellows, 4, act).await;
    let before = clock::instant();
    all_end(publish(&world, &["a1"]).await).await;
    assert_rate(&world, before, &log.times(), 1);
}

async fn a_rate_per_key_holds_up_no_other_key(world: World) {
    define(&world, rate(None, Some(1))).await;
    let log = Log::default();
    let tasks = publish(&world, &["a1", "a2", "b1"]).await;
    let before = clock::instant();
    let _worker = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    all_end(tasks).await;
    // The first two are on their way at once.
    let names = log.names();
    assert_eq!(
        (sorted(names[..2].to_vec()), names[2].as_str()),
        (vec!["a1".to_owned(), "b1".to_owned()], "a2")
    );
    let mut times = log.times();
    times.remove(names.iter().position(|name| name == "b1").unwrap());
    assert_rate(&world, before, &times, 1);
}

async fn a_rate_holds_over_a_change_of_leaders(world: World) {
    define(&world, rate(Some(2), None)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 16, log.taking(QUICK)).await;
    let before = clock::instant();
    let tasks = publish(&world, &["a1", "b1", "c1", "a2"]).await;
    log.until_began(2).await;
    change_leaders(&world).await;
    all_end(tasks).await;
    assert_rate(&world, before, &log.times(), 2);
}
