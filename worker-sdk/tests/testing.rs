//! The test kit for users: what it shows of a cluster is so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Backoff, Execution, Mode, Percent, Retry, Span};
use bellows_sdk::testing::{Cluster, Faults};
use bellows_sdk::{Ended, Options, Policy, WaitError};
use tokio::time::{Instant, sleep};

struct Act;

impl TaskDefinition for Act {
    const NAME: &'static str = "act";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

fn work<F, R>(act: F) -> Tasks
where
    F: Fn(TaskContext, String) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = TaskResult<String>> + Send + 'static,
{
    Tasks::new().with_fn::<Act, _, _>(act)
}

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(format!("{text}!").into())
}

/// With leases as of a real cluster.
fn with_short_leases() -> Cluster {
    Cluster::with_options(1, Options::default())
}

/// Works for twenty seconds.
async fn slow(_: TaskContext, text: String) -> TaskResult<String> {
    sleep(Duration::from_secs(20)).await;
    Ok(text.into())
}

#[tokio::test]
async fn a_cluster_in_a_test_runs_what_is_published_and_is_idle_then() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    let mut tasks = Vec::new();
    for n in 0..50 {
        tasks.push(cluster.bellows().publish::<Act>(n.to_string()).await.unwrap());
    }
    cluster.run_until_idle().await;
    for (n, task) in tasks.iter().enumerate() {
        assert_eq!(task.try_result().await.unwrap(), Some(format!("{n}!")));
    }
    cluster.assert_lawful().await;
}

#[tokio::test]
async fn a_week_of_retries_takes_moments() {
    let cluster = Cluster::new(1);
    let hours = |hours: u64| Span::secs(hours * 3600);
    let backoff = Backoff { initial: hours(1), factor: 2, max: hours(12), jitter: Percent::new(0).unwrap() };
    let retry = Retry { max_attempts: 18, backoff };
    let policy = Policy { execution: Execution { retry, ..Execution::default() }, ..Policy::default() };
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let act = move |_: TaskContext, _: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err("the other side is down".into()) }
    };
    let _worker = cluster.worker(work(act).policy(policy)).await;
    let began = Instant::now();
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    // 1 + 2 + 4 + 8 hours, then 13 waits of 12.
    let Err(WaitError::Failed(failed)) = task.await else { panic!("it cannot succeed") };
    assert_eq!((failed.ended, failed.attempts, attempts.load(Ordering::SeqCst)), (Ended::Parked, 18, 18));
    let waited = began.elapsed();
    let week = Duration::from_secs(171 * 3600);
    assert!(waited >= week && waited < week + Duration::from_secs(60), "{waited:?}");
}

#[tokio::test]
async fn delayed_tasks_wait_until_time_is_advanced() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    let hour = Duration::from_secs(3600);
    let task = cluster.bellows().publish::<Act>("x".into()).delay(hour).await.unwrap();
    cluster.run_until_idle().await;
    assert_eq!(task.try_result().await.unwrap(), None);
    cluster.advance(hour - Duration::from_secs(1)).await;
    assert_eq!(task.try_result().await.unwrap(), None);
    cluster.advance(Duration::from_secs(2)).await;
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x!"));
}

#[tokio::test]
async fn run_until_empty_lets_delayed_tasks_come_due() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    let day = Duration::from_secs(24 * 3600);
    let task = cluster.bellows().publish::<Act>("x".into()).delay(day).await.unwrap();
    let began = Instant::now();
    cluster.run_until_empty().await;
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x!"));
    assert!(began.elapsed() >= day && began.elapsed() < day + Duration::from_secs(5));
}

#[tokio::test]
async fn results_expire_in_the_clusters_time() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.run_until_idle().await;
    assert!(task.try_result().await.unwrap().is_some());
    cluster.advance(Duration::from_secs(3600)).await;
    assert!(matches!(task.try_result().await.unwrap_err(), WaitError::NotFound(_)));
}

#[tokio::test]
async fn a_killed_worker_of_the_kit_loses_its_tasks_after_its_lease() {
    let cluster = Cluster::new(1); // whose leases live for ten minutes while they are renewed
    let first = cluster.worker(work(slow)).await;
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.advance(Duration::from_secs(1)).await;
    let _second = cluster.worker(work(echo)).await;
    first.kill();
    let began = Instant::now();
    let outcome = task.outcome().await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.losses, outcome.tally.attempts), (1, 1, 0));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    cluster.assert_lawful().await;
}

#[tokio::test]
async fn a_paused_worker_of_the_kit_cannot_settle_what_others_settled_since() {
    let cluster = with_short_leases();
    let first = cluster.worker(work(slow)).await;
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.advance(Duration::from_secs(1)).await;
    first.pause();
    let _second = cluster.worker(work(echo)).await;
    assert_eq!(task.wait_timeout(Duration::from_secs(60)).await.unwrap(), "x!");
    cluster.advance(Duration::from_secs(60)).await; // the first one's outcome is in its hands
    first.resume();
    cluster.advance(Duration::from_secs(60)).await;
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x!"));
    cluster.assert_lawful().await;
}

#[tokio::test]
async fn a_worker_of_the_kit_that_is_cut_off_serves_again_once_healed() {
    let cluster = with_short_leases();
    let mut worker = cluster.worker(work(echo)).await;
    worker.partition();
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.advance(Duration::from_secs(120)).await;
    assert_eq!(task.try_result().await.unwrap(), None);
    worker.heal();
    worker.ready().await;
    assert_eq!(task.wait_timeout(Duration::from_secs(60)).await.unwrap(), "x!");
}

#[tokio::test]
async fn a_lease_that_is_ended_costs_a_loss_and_no_attempt() {
    let cluster = with_short_leases();
    let worker = cluster.worker(work(slow)).await;
    let task = cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.advance(Duration::from_secs(1)).await;
    worker.expire_lease().await;
    let outcome = task.outcome().await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.losses, outcome.tally.attempts), (1, 1, 0));
}

#[tokio::test]
async fn faults_of_a_seed_lose_nothing_and_settle_nothing_twice() {
    for seed in 0..5 {
        let cluster = Cluster::new(seed);
        let settled = Arc::new(AtomicU32::new(0));
        let tasks =
            work(
                |context: TaskContext, _: String| async move { Ok(context.attempt_id().to_string().into()) },
            );
        let _first = cluster.worker(tasks.clone()).await;
        let _second = cluster.worker(tasks).await;
        cluster.set_faults(Faults {
            lose_answer: 50,
            drop: 50,
            apply_late: 50,
            late_by: Duration::from_secs(2),
            refuse: 50,
            fail_read: 20,
            cut_watch: 50,
        });
        let publishes = (0..40).map(|n: u32| cluster.bellows().publish::<Act>(n.to_string()).into_future());
        let published = futures::future::join_all(publishes).await;
        cluster.set_faults(Faults::default());
        for task in published.into_iter().flatten() {
            let first = task.wait_timeout(Duration::from_secs(600)).await.unwrap();
            cluster.advance(Duration::from_secs(5)).await;
            assert_eq!(task.try_result().await.unwrap(), Some(first), "seed {seed}");
            settled.fetch_add(1, Ordering::SeqCst);
        }
        assert!(settled.load(Ordering::SeqCst) > 30, "seed {seed}");
        cluster.assert_lawful().await;
    }
}

#[tokio::test]
async fn published_tasks_are_told_also_after_they_have_ended() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    cluster.bellows().publish::<Act>("one".into()).await.unwrap();
    cluster.run_until_idle().await;
    cluster.bellows().publish::<Act>("two".into()).delay(Duration::from_secs(60)).await.unwrap();
    assert_eq!(cluster.published::<Act>(), ["one", "two"]);
    cluster.assert_published::<Act>(|text| text == "one");
}

#[tokio::test]
#[should_panic(expected = "no such task of act was published, but these 1: [\n    \"\\\"one\\\"\",\n]")]
async fn assert_published_tells_what_was_published_instead() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    cluster.bellows().publish::<Act>("one".into()).await.unwrap();
    cluster.assert_published::<Act>(|text| text == "two");
}

#[tokio::test]
#[should_panic(expected = "nothing happens any more")]
async fn a_cluster_that_cannot_become_idle_says_so() {
    let cluster = Cluster::new(1);
    let policy = Policy { mode: Mode::Hold, ..Policy::default() };
    let _worker = cluster.worker(work(echo).policy(policy)).await;
    cluster.bellows().publish::<Act>("x".into()).await.unwrap();
    cluster.run_until_idle().await;
}

struct Sweep;

impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

#[tokio::test]
async fn a_singleton_does_not_keep_a_cluster_from_being_idle() {
    let cluster = Cluster::new(1);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let sweep = move |_: TaskContext, (): ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(TaskSuccess::run_again_after((), Duration::from_secs(3600))) }
    };
    let _worker = cluster.worker(Tasks::new().with_fn::<Sweep, _, _>(sweep)).await;
    cluster.run_until_idle().await;
    cluster.advance(Duration::from_secs(24 * 3600 + 60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 25);
}

#[tokio::test]
async fn two_clients_of_a_cluster_share_nothing_but_the_registry() {
    let cluster = Cluster::new(1);
    let _worker = cluster.worker(work(echo)).await;
    let saved = cluster.bellows().publish::<Act>("x".into()).await.unwrap().to_ref();
    let other = cluster.another_client();
    assert_eq!(other.task(saved).await.unwrap(), "x!");
}
