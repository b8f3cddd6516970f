//! Tasks that a success publishes: with the result, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_registry::backend::{Entry, RangeRequest};
use bellows_registry::key::KeyRange;
use bellows_registry::record::{Record, TaskRecord};
use bellows_registry::testkit::{Fault, puts};
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, ErrorKind, NewTask, Policy, TaskFailed, TaskStatus, WaitError};

use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    a_success_publishes_its_follow_up_tasks_with_its_result,
    a_follow_up_task_runs_and_may_have_follow_ups_of_its_own,
    a_follow_up_is_awaited_by_the_reference_in_its_parents_result,
    a_failed_attempt_publishes_no_follow_ups,
    a_follow_up_that_nobody_takes_fails_the_attempt_and_loses_nothing,
    an_attempt_whose_follow_up_was_refused_succeeds_once_it_is_taken,
    a_follow_up_is_one_task_though_the_answer_is_lost,
    a_worker_that_lost_its_task_publishes_no_follow_ups,
    follow_ups_over_a_limit_park_the_task_with_the_reason,
    a_singleton_publishes_follow_up_tasks_at_each_run,
    a_task_whose_follow_up_is_refused_is_not_settled_meanwhile,
}

/// What comes next: nobody works at it here, so that it stays where it is.
struct Next;

impl TaskDefinition for Next {
    const NAME: &'static str = "next";
    type Callback = ();
    type Trigger = PublishTrigger<String>;
}

async fn there(world: &World, room: &str) -> Vec<Entry> {
    let range = KeyRange::prefix(format!("{}{room}", world.space().prefix()));
    world.store.range(RangeRequest::new(range)).await.unwrap().entries
}

async fn next_tasks(world: &World) -> Vec<Entry> {
    there(world, "q/default/next/t/").await
}

async fn both_defined(world: &World) {
    world.define(LONG).await;
    world.bellows.define::<Next>(Policy::default()).await.unwrap();
}

/// Publishes one task of `Next`.
async fn hands_on(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(TaskSuccess::done("done".to_owned()).and_publish::<Next>(text))
}

async fn parked(task: TaskHandle<Act>) -> TaskFailed {
    match within(SOON, task).await {
        Err(WaitError::Failed(failed)) if failed.ended == Ended::Parked => failed,
        other => panic!("it is parked: {other:?}"),
    }
}

async fn a_success_publishes_its_follow_up_tasks_with_its_result(world: World) {
    both_defined(&world).await;
    let act = |_: TaskContext, text: String| async move {
        let second = NewTask::<Next>::new("second".into()).header("from", text.clone()).delay(LONG);
        Ok(TaskSuccess::done("done".to_owned()).and_publish::<Next>("first".into()).and_publish_task(second))
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "done");
    let (next, results) = (next_tasks(&world).await, there(&world, "r/default/act/").await);
    assert_eq!((next.len(), results.len()), (2, 1));
    assert!(next.iter().all(|task| task.create_revision == results[0].create_revision), "one transaction");
    let mut records: Vec<_> = next.iter().map(|task| TaskRecord::decode(&task.value).unwrap()).collect();
    records.sort_by_key(|record| record.payload.clone());
    assert_eq!((&records[0].payload[..], &records[1].payload[..]), (&b"\"first\""[..], &b"\"second\""[..]));
    assert_eq!((records[1].headers["from"].as_str(), records[1].delay.is_some()), ("x", true));
    world.assert_lawful().await;
}

async fn a_follow_up_task_runs_and_may_have_follow_ups_of_its_own(world: World) {
    world.define(LONG).await;
    let runs = Arc::new(AtomicU32::new(0));
    let gate = Gate::default();
    let (count, end) = (Arc::clone(&runs), gate.clone());
    let act = move |_: TaskContext, left: String| {
        count.fetch_add(1, Ordering::SeqCst);
        let end = end.clone();
        async move {
            let left: u32 = left.parse()?;
            if left == 0 {
                end.arrive();
                return Ok("end".to_owned().into());
            }
            Ok(TaskSuccess::done("on".to_owned()).and_publish::<Act>((left - 1).to_string()))
        }
    };
    let _worker = world.worker(&world.bellows, 2, act).await;
    world.bellows.publish::<Act>("4".into()).await.unwrap();
    gate.reached().await;
    assert_eq!(runs.load(Ordering::SeqCst), 5);
}

async fn a_follow_up_is_awaited_by_the_reference_in_its_parents_result(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        if text == "child" {
            return Ok("the child's result".to_owned().into());
        }
        let child = serde_json::to_string(&context.follow_up::<Act>(0)?)?;
        Ok(TaskSuccess::done(child).and_publish::<Act>("child".into()))
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let parent = world.bellows.publish::<Act>("parent".into()).await.unwrap();
    let child: TaskRef<Act> = serde_json::from_str(&within(SOON, parent).await.unwrap()).unwrap();
    let elsewhere = world.other_client();
    assert_eq!(within(SOON, elsewhere.task(child)).await.unwrap(), "the child's result");
}

async fn a_failed_attempt_publishes_no_follow_ups(world: World) {
    both_defined(&world).await;
    let act = |context: TaskContext, text: String| async move {
        let success = hands_on(context.clone(), text).await?;
        if context.attempt() < 3 {
            return Err("after all not".into());
        }
        Ok(success)
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().attempt, 3);
    assert_eq!(next_tasks(&world).await.len(), 1, "only the attempt that succeeded published");
}

async fn a_follow_up_that_nobody_takes_fails_the_attempt_and_loses_nothing(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, hands_on).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let failed = parked(task).await;
    assert_eq!((failed.attempts, failed.errors[0].kind), (3, ErrorKind::Failed));
    let text = &failed.errors[0].message;
    assert!(text.contains("default/next does not exist or takes no tasks now"), "{text}");
    assert_eq!(next_tasks(&world).await, []);
    world.assert_lawful().await;
}

async fn an_attempt_whose_follow_up_was_refused_succeeds_once_it_is_taken(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, text: String| {
        let here = here.clone();
        async move {
            if context.attempt() == 2 {
                here.pass().await;
            }
            hands_on(context, text).await
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    world.bellows.define::<Next>(Policy::default()).await.unwrap();
    gate.open();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().attempt, 2);
    assert_eq!(next_tasks(&world).await.len(), 1);
}

async fn a_follow_up_is_one_task_though_the_answer_is_lost(world: World) {
    both_defined(&world).await;
    for fault in [Fault::LoseAnswer, Fault::Drop, Fault::ApplyLate(Duration::from_millis(300))] {
        let before = next_tasks(&world).await.len();
        let (client, link) = world.client_over_a_bad_link();
        let worker = world.worker(&client, 1, hands_on).await;
        link.next_txn(puts(format!("{}r/", world.space().prefix())), fault);
        let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
        assert_eq!(within(SOON, task).await.unwrap(), "done");
        within(SOON, worker.drain(Duration::from_secs(5))).await.unwrap();
        assert_eq!(link.pending(), 0, "the fault met its request");
        assert_eq!(next_tasks(&world).await.len(), before + 1);
    }
    world.assert_lawful().await;
}

async fn a_worker_that_lost_its_task_publishes_no_follow_ups(world: World) {
    both_defined(&world).await;
    let (client, link) = world.client_over_a_bad_link();
    let gate = Gate::default();
    let act = |context: TaskContext, _: String| async move { hands_on(context, "late".into()).await };
    let cut_off = world.worker(&client, 1, gate.then(act)).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    link.set_reachable(false);
    gate.open();
    let _healthy =
        world.worker(&world.bellows, 1, |_: TaskContext, text: String| async { Ok(text.into()) }).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
    link.set_reachable(true);
    within(SOON, cut_off.drain(Duration::from_secs(5))).await.unwrap(); // the late outcome is sent, in vain
    assert_eq!(next_tasks(&world).await, []);
    world.assert_lawful().await;
}

async fn follow_ups_over_a_limit_park_the_task_with_the_reason(world: World) {
    both_defined(&world).await;
    let act = |_: TaskContext, what: String| async move {
        let success = TaskSuccess::done(String::new());
        let task = |payload: usize| NewTask::<Next>::new("x".repeat(payload));
        Ok(match what.as_str() {
            "too many" => (0..17).fold(success, |success, _| success.and_publish_task(task(1))),
            "too large" => success.and_publish_task(task(70_000)),
            "too large together" => (0..6).fold(success, |success, _| success.and_publish_task(task(60_000))),
            "with a key" => success.and_publish_task(task(1).unique("k")),
            _ => (0..16).fold(success, |success, _| success.and_publish_task(task(1000))),
        })
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    for (what, why) in [
        ("too many", "17 follow-up tasks; the limit is 16"),
        (
            "too large",
            "follow-up task 1 (next) cannot be published: the payload has 70002 bytes; the limit is 65536",
        ),
        ("too large together", "bytes; the limit is 262144"),
        ("with a key", "follow-up task 1 (next) cannot be published: it has a key or an id of its own"),
    ] {
        let failed = parked(world.bellows.publish::<Act>(what.into()).await.unwrap()).await;
        assert_eq!((failed.attempts, failed.errors[0].kind), (1, ErrorKind::ResultRefused));
        assert!(failed.errors[0].message.ends_with(why), "{failed}");
    }
    assert_eq!(next_tasks(&world).await, []);
    let most = world.bellows.publish::<Act>("as many as may be".into()).await.unwrap();
    within(SOON, most).await.unwrap();
    assert_eq!(next_tasks(&world).await.len(), 16);
}

struct Sweep;

impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

async fn a_singleton_publishes_follow_up_tasks_at_each_run(world: World) {
    both_defined(&world).await;
    world.bellows.define::<Sweep>(policy(LONG)).await.unwrap();
    let sweep =
        |_: TaskContext, (): ()| async { Ok(TaskSuccess::done(()).and_publish::<Next>("swept".into())) };
    let tasks = Tasks::new().with_fn::<Sweep, _, _>(sweep);
    let _worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    let two = async {
        while next_tasks(&world).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(SOON, two).await;
    world.assert_lawful().await;
}

async fn a_task_whose_follow_up_is_refused_is_not_settled_meanwhile(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        if context.attempt() == 2 {
            return Err(TaskFailure::snooze(Duration::from_secs(3600)));
        }
        hands_on(context, text).await
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let snoozed = async {
        loop {
            match task.status().await.unwrap() {
                TaskStatus::Ended(record) => panic!("it must not have ended: {record:?}"),
                TaskStatus::Waiting { tally } if tally.snoozes == 1 => return tally,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert_eq!(within(SOON, snoozed).await.attempts, 1, "the refused success counts as a failed attempt");
}
