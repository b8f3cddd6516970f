//! Whose turn it is: priority, fairness keys, limits, rates and weight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::key::Key;
use bellows_registry::record::{FairnessKey, Priority, Record, TaskRecord, Weight};
use bellows_registry::spec::{ConcurrencyLimit, Execution, Policy, RateLimit, Span};
use bellows_sdk::prelude::*;
use bellows_sdk::{ChoiceError, NewTask, PublishError, TaskHandle};
use tokio::sync::watch;

use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    the_more_urgent_task_is_given_out_first,
    tasks_of_one_priority_go_in_the_order_in_which_they_became_due,
    priority_orders_the_tasks_of_a_key_and_not_the_keys,
    a_priority_out_of_range_is_refused_before_anything_is_sent,
    a_fairness_key_that_is_empty_or_too_long_is_refused_before_anything_is_sent,
    a_weight_out_of_range_is_refused_before_anything_is_sent,
    what_is_chosen_for_one_of_many_tasks_is_kept_with_it,
    fairness_keys_take_turns,
    tasks_without_a_fairness_key_are_one_key_together,
    a_fairness_key_with_a_larger_share_has_more_in_its_turn,
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
    a_heavy_task_takes_its_slots_of_one_worker,
    lighter_tasks_do_not_starve_a_heavy_one,
    a_task_heavier_than_any_worker_waits_for_a_larger_one_and_holds_up_nobody,
}

behaviours! {
    paused_only: who_waits_long_enough_goes_before_the_more_urgent,
}

/// What began, and what runs.
#[derive(Clone, Default)]
struct Log {
    began: Arc<Mutex<Vec<(String, Instant)>>>,
    running: Arc<Mutex<HashMap<String, usize>>>,
    most: Arc<Mutex<HashMap<String, usize>>>,
}

impl Log {
    fn names(&self) -> Vec<String> {
        self.began.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.began.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// How many of these (of all: "") ran at once at most.
    fn most(&self, key: &str) -> usize {
        self.most.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn change(&self, name: &str, by: isize) {
        for key in ["", &name[..1]] {
            let mut running = self.running.lock().unwrap();
            let count = running.entry(key.to_owned()).or_default();
            *count = count.saturating_add_signed(by);
            let mut most = self.most.lock().unwrap();
            let most = most.entry(key.to_owned()).or_default();
            *most = (*most).max(*count);
        }
    }

    /// A handler that takes so long.
    fn taking(&self, time: Duration) -> impl Fn(TaskContext, String) -> Run + Clone + Send + Sync + 'static {
        let log = self.clone();
        move |_, name| {
            let log = log.clone();
            Box::pin(async move {
                log.began.lock().unwrap().push((name.clone(), clock::instant()));
                log.change(&name, 1);
                tokio::time::sleep(time).await;
                log.change(&name, -1);
                Ok(name.into())
            })
        }
    }

    /// A handler that runs until it is let go.
    fn held(
        &self,
        go: &watch::Sender<bool>,
    ) -> impl Fn(TaskContext, String) -> Run + Clone + Send + Sync + 'static {
        let (log, go) = (self.clone(), go.subscribe());
        move |_, name| {
            let (log, mut go) = (log.clone(), go.clone());
            Box::pin(async move {
                log.began.lock().unwrap().push((name.clone(), clock::instant()));
                log.change(&name, 1);
                let _ = go.wait_for(|go| *go).await;
                log.change(&name, -1);
                Ok(name.into())
            })
        }
    }

    async fn until_began(&self, count: usize) {
        let began = async {
            while self.began.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(SOON, began).await;
    }
}

type Run = std::pin::Pin<Box<dyn Future<Output = TaskResult<String>> + Send>>;

const QUICK: Duration = Duration::from_millis(5);

/// Long enough for a task to be given out that may be, with much to spare.
const A_WHILE: Duration = Duration::from_millis(300);

async fn define(world: &World, execution: impl FnOnce(&mut Execution)) {
    let mut policy: Policy = policy(LONG);
    execution(&mut policy.execution);
    world.bellows.define::<Act>(policy).await.unwrap();
}

fn limit(total: Option<u32>, per_key: Option<u32>) -> impl FnOnce(&mut Execution) {
    move |execution| execution.concurrency_limit = Some(ConcurrencyLimit { total, per_key })
}

fn rate(tasks: Option<u32>, per_key: Option<u32>) -> impl FnOnce(&mut Execution) {
    move |execution| execution.rate_limit = Some(RateLimit { tasks, per_key, per: Span::secs(1) })
}

/// Publishes tasks named by key and number, such as `a1`, in this order.
async fn publish(world: &World, names: &[&str]) -> Vec<TaskHandle<Act>> {
    let mut tasks = Vec::new();
    for name in names {
        let task = world.bellows.publish::<Act>((*name).to_owned()).key(&name[..1]);
        tasks.push(task.await.unwrap());
    }
    tasks
}

async fn all_end(tasks: Vec<TaskHandle<Act>>) {
    for task in tasks {
        within(SOON, task).await.unwrap();
    }
}

async fn urgent(world: &World, name: &str, level: u8) -> TaskHandle<Act> {
    world.bellows.publish::<Act>(name.to_owned()).priority(level).await.unwrap()
}

async fn the_more_urgent_task_is_given_out_first(world: World) {
    world.define(LONG).await;
    let mut tasks = Vec::new();
    for (name, level) in [("e", 5), ("i", 1), ("a", 9), ("f", 5), ("b", 8)] {
        tasks.push(urgent(&world, name, level).await);
    }
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a", "b", "e", "f", "i"]);
}

async fn tasks_of_one_priority_go_in_the_order_in_which_they_became_due(world: World) {
    world.define(LONG).await;
    let mut tasks = Vec::new();
    for (name, delay) in [("one", 0), ("late", 1000), ("two", 0), ("three", 0), ("four", 1400)] {
        let task = world.bellows.publish::<Act>(name.to_owned()).delay(Duration::from_millis(delay));
        tasks.push(task.await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(1700)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["one", "two", "three", "late", "four"]);
}

async fn priority_orders_the_tasks_of_a_key_and_not_the_keys(world: World) {
    world.define(LONG).await;
    let mut tasks = publish(&world, &["a1", "a2"]).await;
    for name in ["b1", "b2"] {
        let task = world.bellows.publish::<Act>(name.to_owned()).key("b").priority(9);
        tasks.push(task.await.unwrap());
    }
    let first = world.bellows.publish::<Act>("a0".to_owned()).key("a").priority(6);
    tasks.push(first.await.unwrap());
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a0", "b1", "a1", "b2", "a2"]);
}

/// The publish fails with this text, and nothing is there.
async fn assert_refused(world: &World, task: Result<TaskHandle<Act>, PublishError>, says: &str) {
    let error = task.unwrap_err();
    assert!(matches!(error, PublishError::Choice(ChoiceError::Range { .. } | ChoiceError::Length { .. })));
    assert_eq!(error.to_string(), says);
    let tasks = format!("{}q/default/act/t/", world.space().prefix());
    let range = bellows_registry::key::KeyRange::prefix(tasks);
    let request = bellows_registry::backend::RangeRequest::new(range);
    assert_eq!(world.store.range(request).await.unwrap().entries, []);
}

async fn a_priority_out_of_range_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (level, says) in
        [(0, "priority must be from 1 to 9, not 0"), (10, "priority must be from 1 to 9, not 10")]
    {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).priority(level).await, says).await;
    }
}

async fn a_fairness_key_that_is_empty_or_too_long_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (key, says) in [
        (String::new(), "key has 0 bytes; it must have 1 to 128"),
        ("k".repeat(129), "key has 129 bytes; it must have 1 to 128"),
    ] {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).key(key).await, says).await;
    }
}

async fn a_weight_out_of_range_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (weight, says) in
        [(0, "weight must be from 1 to 1000, not 0"), (1001, "weight must be from 1 to 1000, not 1001")]
    {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).weight(weight).await, says).await;
    }
}

async fn what_is_chosen_for_one_of_many_tasks_is_kept_with_it(world: World) {
    world.define(LONG).await;
    let chosen = NewTask::<Act>::new("chosen".into()).priority(7).key("tenant").weight(3);
    let verdicts = within(SOON, world.bellows.publish_many([chosen, NewTask::new("plain".into())])).await;
    let mut options = Vec::new();
    for verdict in verdicts {
        let task = verdict.unwrap().to_ref().raw().clone();
        let key = world.space().path(&Key::Task(task.definition, task.id));
        let entries = world.some(bellows_registry::key::KeyRange::one(key)).await;
        options.push(TaskRecord::decode(&entries[0].value).unwrap().options);
    }
    assert_eq!(options[0].priority, Priority::new(7).unwrap());
    assert_eq!(options[0].key, Some(FairnessKey::new("tenant").unwrap()));
    assert_eq!(options[0].weight, Weight::new(3).unwrap());
    assert!(options[1].is_default(), "what is not chosen is not stored");
}

async fn fairness_keys_take_turns(world: World) {
    world.define(LONG).await;
    let tasks = publish(&world, &["a1", "a2", "a3", "a4", "b1", "b2", "c1"]).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

async fn tasks_without_a_fairness_key_are_one_key_together(world: World) {
    world.define(LONG).await;
    let mut tasks = Vec::new();
    for name in ["1", "2", "3"] {
        tasks.push(world.bellows.publish::<Act>(name.to_owned()).await.unwrap());
    }
    tasks.extend(publish(&world, &["a1", "a2"]).await);
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["1", "a1", "2", "a2", "3"]);
}

async fn a_fairness_key_with_a_larger_share_has_more_in_its_turn(world: World) {
    define(&world, |execution| execution.key_shares = [("b".to_owned(), 2)].into()).await;
    let tasks = publish(&world, &["a1", "a2", "a3", "b1", "b2", "b3", "b4"]).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a1", "b1", "b2", "a2", "b3", "b4", "a3"]);
}

async fn no_more_than_the_total_limit_run_at_once(world: World) {
    define(&world, limit(Some(2), None)).await;
    let log = Log::default();
    let _one = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    let _two = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    all_end(publish(&world, &["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"]).await).await;
    assert_eq!(log.most(""), 2);
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

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

/// How many began in the fullest time of a second, less what a message may be late.
fn fullest(times: &[Instant]) -> usize {
    let per = Duration::from_millis(800);
    times
        .iter()
        .map(|from| times.iter().filter(|at| *at >= from && **at < *from + per).count())
        .max()
        .unwrap_or(0)
}

async fn no_more_than_the_rate_are_given_out_in_any_time_of_its_length(world: World) {
    define(&world, rate(Some(3), None)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 16, log.taking(QUICK)).await;
    all_end(publish(&world, &["a1", "b1", "c1", "a2", "b2", "c2", "a3"]).await).await;
    assert_eq!(fullest(&log.times()), 3, "and no fewer: {:?}", log.times());
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
    all_end(publish(&world, &["a1"]).await).await;
    let times = log.times();
    assert!(times[1] - times[0] >= Duration::from_millis(800), "{:?}", times[1] - times[0]);
}

async fn a_rate_per_key_holds_up_no_other_key(world: World) {
    define(&world, rate(None, Some(1))).await;
    let log = Log::default();
    let tasks = publish(&world, &["a1", "a2", "b1"]).await;
    let _worker = world.worker(&world.bellows, 4, log.taking(QUICK)).await;
    all_end(tasks).await;
    // The first two are on their way at once.
    let names = log.names();
    assert_eq!(
        (sorted(names[..2].to_vec()), names[2].as_str()),
        (vec!["a1".to_owned(), "b1".to_owned()], "a2")
    );
    let times = log.times();
    assert!(times[2] - times[0] >= Duration::from_millis(800));
    assert!(times[1] - times[0] < Duration::from_millis(800));
}

async fn a_rate_holds_over_a_change_of_leaders(world: World) {
    define(&world, rate(Some(2), None)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 16, log.taking(QUICK)).await;
    let tasks = publish(&world, &["a1", "b1", "c1", "a2"]).await;
    log.until_began(2).await;
    change_leaders(&world).await;
    all_end(tasks).await;
    assert_eq!(fullest(&log.times()), 2);
}

async fn weighing(world: &World, name: &str, slots: u32) -> TaskHandle<Act> {
    world.bellows.publish::<Act>(name.to_owned()).weight(slots).await.unwrap()
}

async fn a_heavy_task_takes_its_slots_of_one_worker(world: World) {
    world.define(LONG).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let mut tasks = Vec::new();
    for (name, slots) in [("h", 3), ("l", 1), ("m", 1)] {
        tasks.push(weighing(&world, name, slots).await);
    }
    let _worker = world.worker(&world.bellows, 4, log.held(&go)).await;
    log.until_began(2).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(sorted(log.names()), ["h", "l"], "three slots and one are four");
    go.send_replace(true);
    all_end(tasks).await;
}

async fn lighter_tasks_do_not_starve_a_heavy_one(world: World) {
    world.define(LONG).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 2, log.taking(Duration::from_millis(20))).await;
    let mut tasks = Vec::new();
    for n in 0..4 {
        tasks.push(weighing(&world, &format!("l{n}"), 1).await);
    }
    tasks.push(weighing(&world, "heavy", 2).await);
    for n in 4..12 {
        tasks.push(weighing(&world, &format!("l{n}"), 1).await);
    }
    all_end(tasks).await;
    let at = log.names().iter().position(|name| name == "heavy").unwrap();
    assert!(at <= 6, "it began as number {at}: {:?}", log.names());
}

async fn a_task_heavier_than_any_worker_waits_for_a_larger_one_and_holds_up_nobody(world: World) {
    world.define(LONG).await;
    let log = Log::default();
    let heavy = weighing(&world, "heavy", 5).await;
    let light = weighing(&world, "light", 1).await;
    let _small = world.worker(&world.bellows, 2, log.taking(QUICK)).await;
    within(SOON, light).await.unwrap();
    assert_eq!(log.names(), ["light"]);
    let _large = world.worker(&world.bellows, 5, log.taking(QUICK)).await;
    within(SOON, heavy).await.unwrap();
}

async fn who_waits_long_enough_goes_before_the_more_urgent(world: World) {
    world.define(LONG).await;
    let mut tasks = vec![urgent(&world, "patient", 1).await];
    tokio::time::sleep(Priority::AGEING * 8 + Duration::from_secs(1)).await;
    tasks.push(urgent(&world, "urgent", 9).await);
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["patient", "urgent"]);
}
