//! Waiting: snoozes, delays, times, and the pauses of singletons.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellows_registry::clock;
use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, TaskStatus};
use tokio::time::{Instant, sleep};

use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_snooze_waits_as_long_as_it_says_and_is_counted_apart,
    a_handler_that_snoozes_for_nothing_does_not_spin,
    a_wait_of_absurd_length_is_cut_to_a_year,
    a_task_published_for_a_time_runs_then,
    a_task_published_for_a_time_that_has_passed_runs_at_once,
    a_task_published_for_a_time_beyond_a_year_is_refused,
    a_retry_at_a_time_waits_for_it_and_counts,
    a_singleton_runs_again_when_it_said,
    a_singleton_that_asks_for_no_pause_rests_for_a_second,
    a_singleton_that_fails_rests_and_is_never_given_up,
}

/// When the handler ran.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Instant>>>);

impl Runs {
    /// Notes a run; answers how many there were before.
    fn note(&self) -> usize {
        let mut runs = self.0.lock().unwrap();
        runs.push(Instant::now());
        runs.len() - 1
    }

    async fn reach(&self, wanted: usize) {
        within(SOON, async {
            while self.0.lock().unwrap().len() < wanted {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// The pause between two runs that follow each other.
    fn pause(&self, after: usize) -> Duration {
        let runs = self.0.lock().unwrap();
        runs[after + 1] - runs[after]
    }
}

fn in_time(wait: Duration) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock::wall().0) + wait
}

const SECOND: Duration = Duration::from_secs(1);

/// What signals and a busy machine may add.
fn slack(world: &World) -> Duration {
    world.paused_or_real(Duration::from_millis(1500), 10 * SECOND)
}

fn about(world: &World, pause: Duration, wanted: Duration) {
    // A wall clock counts in milliseconds.
    let least = wanted - Duration::from_millis(5);
    assert!(pause >= least && pause < wanted + slack(world), "{pause:?} is not about {wanted:?}");
}

async fn a_snooze_waits_as_long_as_it_says_and_is_counted_apart(world: World) {
    world.define(LONG).await;
    let runs = Runs::default();
    let notes = runs.clone();
    let act = move |context: TaskContext, _: String| {
        let run = notes.note();
        async move {
            match run {
                0 => Err(TaskError::snooze(SECOND)),
                1 => Err(TaskError::snooze_until(in_time(SECOND))),
                _ => Ok(context.attempt().to_string().into()),
            }
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.snoozes), (1, 0, 2));
    assert!(outcome.tally.errors.is_empty(), "a snooze is no error");
    about(&world, runs.pause(0), SECOND);
    about(&world, runs.pause(1), SECOND);
}

async fn a_handler_that_snoozes_for_nothing_does_not_spin(world: World) {
    world.define(LONG).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&runs);
    let act = move |_: TaskContext, _: String| {
        counts.fetch_add(1, Ordering::SeqCst);
        async move { Err(TaskError::snooze(Duration::ZERO)) }
    };
    let worker = world.worker(&world.bellows, 1, act).await;
    let began = Instant::now();
    world.bellows.publish::<Act>("x".into()).await.unwrap();
    sleep(3 * SECOND).await; // what it may do in this time is what is measured
    let so_far = || u64::from(runs.load(Ordering::SeqCst));
    let again_and_again = async {
        while so_far() < 4 {
            sleep(SECOND / 20).await;
        }
    };
    within(SOON, again_and_again).await;
    let runs = so_far();
    // The first eight within 10 + 20 + 40 + 80 + 160 + 320 + 640 ms, and then one a second.
    let took = began.elapsed();
    let most = 8 + (took - Duration::from_millis(1270)).as_secs();
    assert!((4..=most).contains(&runs), "{runs} runs in {took:?}");
    within(SOON, worker.drain(Duration::ZERO)).await.unwrap();
}

async fn a_wait_of_absurd_length_is_cut_to_a_year(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, text: String| async move {
        match text.as_str() {
            "snooze" => Err(TaskError::snooze(Duration::MAX)),
            _ => Err(TaskError::retry_after(Duration::MAX, "no luck")),
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    for order in ["snooze", "retry"] {
        let task = world.bellows.publish::<Act>(order.into()).await.unwrap();
        let delay = within(SOON, async {
            loop {
                if let TaskStatus::Waiting { tally } = task.status().await.unwrap()
                    && let Some(delay) = tally.delay
                {
                    return delay;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(delay.await.millis, 366 * 24 * 3600 * 1000, "{order}");
    }
}

async fn quick(world: &World, runs: &Runs) -> DispatcherHandle {
    let notes = runs.clone();
    let act = move |_: TaskContext, text: String| {
        notes.note();
        async move { Ok(text.into()) }
    };
    world.worker(&world.bellows, 1, act).await
}

async fn a_task_published_for_a_time_runs_then(world: World) {
    world.define(LONG).await;
    let runs = Runs::default();
    let _worker = quick(&world, &runs).await;
    runs.note();
    let task = world.bellows.publish::<Act>("x".into()).at(in_time(SECOND)).await.unwrap();
    within(SOON, task).await.unwrap();
    about(&world, runs.pause(0), SECOND);
}

async fn a_task_published_for_a_time_that_has_passed_runs_at_once(world: World) {
    world.define(LONG).await;
    let runs = Runs::default();
    let _worker = quick(&world, &runs).await;
    runs.note();
    let task = world.bellows.publish::<Act>("x".into()).delay(LONG).at(UNIX_EPOCH).await.unwrap();
    within(SOON, task).await.unwrap();
    assert!(runs.pause(0) < slack(&world), "{:?}", runs.pause(0));
}

async fn a_task_published_for_a_time_beyond_a_year_is_refused(world: World) {
    world.define(LONG).await;
    let time = in_time(Duration::from_secs(400 * 24 * 3600));
    let error = world.bellows.publish::<Act>("x".into()).at(time).await.unwrap_err();
    assert!(error.to_string().ends_with("the limit is 31622400s"), "{error}");
}

async fn a_retry_at_a_time_waits_for_it_and_counts(world: World) {
    world.define(LONG).await;
    let runs = Runs::default();
    let notes = runs.clone();
    let act = move |_: TaskContext, text: String| {
        let run = notes.note();
        async move {
            match run {
                0 => Err(TaskError::retry_at(in_time(SECOND), "not now")),
                _ => Ok(text.into()),
            }
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts), (2, 1));
    about(&world, runs.pause(0), SECOND);
}

struct Sweep;

impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

/// A singleton that ends each run as told, until it has run so often.
async fn sweeps(world: &World, runs: &Runs, wanted: usize, how: fn() -> TaskResult<()>) {
    world.bellows.define::<Sweep>(policy(LONG)).await.unwrap();
    let notes = runs.clone();
    let sweep = move |_: TaskContext, (): ()| {
        notes.note();
        async move { how() }
    };
    let tasks = Tasks::new().with_fn::<Sweep, _, _>(sweep);
    let worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    runs.reach(wanted).await;
    within(SOON, worker.drain(SECOND)).await.unwrap();
    world.assert_lawful().await;
}

async fn a_singleton_runs_again_when_it_said(world: World) {
    let runs = Runs::default();
    sweeps(&world, &runs, 2, || Ok(TaskSuccess::run_again_at((), in_time(2 * SECOND)))).await;
    about(&world, runs.pause(0), 2 * SECOND);
}

async fn a_singleton_that_asks_for_no_pause_rests_for_a_second(world: World) {
    let runs = Runs::default();
    sweeps(&world, &runs, 3, || Ok(TaskSuccess::run_again_after((), Duration::ZERO))).await;
    about(&world, runs.pause(0), SECOND);
    about(&world, runs.pause(1), SECOND);
}

async fn a_singleton_that_fails_rests_and_is_never_given_up(world: World) {
    let runs = Runs::default();
    // Its policy allows three attempts.
    sweeps(&world, &runs, 5, || Err(TaskError::retry_immediately("no luck"))).await;
    for run in 0..4 {
        about(&world, runs.pause(run), SECOND);
    }
}
