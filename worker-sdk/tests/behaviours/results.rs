//! Results of many tasks, and where a task is.

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_registry::key::KeyRange;
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, NewTask, TaskStatus, WaitError};
use futures::StreamExt;

use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    many_tasks_of_another_process_are_awaited_by_one_watch,
    tasks_of_very_many_slots_are_awaited_by_one_watch,
    results_come_as_tasks_end_not_in_the_order_of_the_list,
    one_failed_or_unknown_task_of_many_does_not_hide_the_others,
    waiting_for_no_task_ends_at_once,
    waiting_running_ended_and_unknown_are_four_answers,
    a_task_that_waits_for_its_next_attempt_is_waiting_and_tells_why,
}

/// Does what it is told.
async fn obey(_: TaskContext, text: String) -> TaskResult<String> {
    match text.as_str() {
        "park" => Err(TaskFailure::park("hopeless")),
        _ => Ok(text.into()),
    }
}

/// Publishes these, and forgets all but their references.
async fn saved(client: &Bellows, tasks: Vec<NewTask<Act>>) -> Vec<TaskRef<Act>> {
    let verdicts = within(SOON, client.publish_many(tasks)).await;
    verdicts.into_iter().map(|verdict| verdict.unwrap().to_ref()).collect()
}

fn numbered(n: usize) -> NewTask<Act> {
    NewTask::new(n.to_string())
}

async fn many_tasks_of_another_process_are_awaited_by_one_watch(world: World) {
    world.define(LONG).await;
    let refs = saved(&world.other_client(), (0..60).map(numbered).collect()).await;
    let (client, link) = world.client_over_a_bad_link();
    let waiting = async {
        let all: BTreeMap<_, _> = client.wait_many(refs).collect().await;
        all
    };
    let (results, _worker) = tokio::join!(within(SOON, waiting), world.worker(&world.bellows, 8, obey));
    assert_eq!(results.len(), 60);
    for (place, result) in results {
        assert_eq!(result.unwrap(), place.to_string());
    }
    assert_eq!(link.inner().result_watches(), 1);
}

async fn tasks_of_very_many_slots_are_awaited_by_one_watch(world: World) {
    world.define(LONG).await;
    let tasks = (0..40).map(|n| numbered(n).idempotency_key(n)).collect(); // each has its own slot
    let refs = saved(&world.bellows, tasks).await;
    let _worker = world.worker(&world.bellows, 8, obey).await;
    let (client, link) = world.client_over_a_bad_link();
    let results: Vec<_> = within(SOON, client.wait_many(refs).collect()).await;
    assert!(results.len() == 40 && results.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(link.inner().result_watches(), 1);
}

async fn results_come_as_tasks_end_not_in_the_order_of_the_list(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 2, gate.holding("late")).await;
    let tasks = ["late", "early"].map(|text| NewTask::new(text.to_owned())).into_iter().collect();
    let refs = saved(&world.bellows, tasks).await;
    let mut results = world.bellows.wait_many(refs);
    let (first, result) = within(SOON, results.next()).await.unwrap();
    assert_eq!((first, result.unwrap().as_str()), (1, "early"));
    gate.open();
    let (second, result) = within(SOON, results.next()).await.unwrap();
    assert_eq!((second, result.unwrap().as_str()), (0, "late"));
    assert!(within(SOON, results.next()).await.is_none());
}

async fn one_failed_or_unknown_task_of_many_does_not_hide_the_others(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 2, obey).await;
    let tasks = ["fine", "park"].map(|text| NewTask::new(text.to_owned())).into_iter().collect();
    let mut refs = saved(&world.bellows, tasks).await;
    let mut unknown = refs[0].raw().clone();
    unknown.id = bellows_sdk::TaskId::from_bits(9);
    refs.push(TaskRef::from_raw(unknown));
    let mut results: Vec<_> = within(SOON, world.bellows.wait_many(refs).collect()).await;
    results.sort_by_key(|(place, _)| *place);
    assert_eq!(results[0].1.as_deref().unwrap(), "fine");
    assert!(matches!(&results[1].1, Err(WaitError::Failed(failed)) if failed.ended == Ended::Parked));
    assert!(matches!(&results[2].1, Err(WaitError::NotFound(_))));
}

async fn waiting_for_no_task_ends_at_once(world: World) {
    let none: Vec<TaskRef<Act>> = Vec::new();
    assert!(within(SOON, world.bellows.wait_many(none).next()).await.is_none());
}

async fn waiting_running_ended_and_unknown_are_four_answers(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, _: String| {
        let here = here.clone();
        async move {
            here.pass().await;
            Ok(format!("{} {}", context.worker_id(), context.attempt_id()).into())
        }
    };
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert!(matches!(task.status().await.unwrap(), TaskStatus::Waiting { .. }));
    let _worker = world.worker(&world.bellows, 1, act).await;
    let other = world.bellows.publish::<Act>("y".into()).await.unwrap();
    gate.reached().await;
    let status = task.status().await.unwrap();
    let TaskStatus::Running { worker, attempt, .. } = status else { panic!("it runs: {status:?}") };
    assert!(matches!(other.status().await.unwrap(), TaskStatus::Waiting { .. }), "there is one slot");
    gate.open();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!(task.try_result().await.unwrap(), Some(format!("{worker} {attempt}")));
    assert_eq!(task.status().await.unwrap(), TaskStatus::Ended(Box::new(outcome)));
    let mut unknown = task.to_ref().raw().clone();
    unknown.id = bellows_sdk::TaskId::from_bits(9);
    let unknown = world.bellows.task::<Act>(TaskRef::from_raw(unknown));
    assert_eq!(unknown.status().await.unwrap(), TaskStatus::NotFound);
}

async fn a_task_that_waits_for_its_next_attempt_is_waiting_and_tells_why(world: World) {
    world.define(LONG).await;
    let hour = Duration::from_secs(3600);
    let act = move |_: TaskContext, _: String| async move {
        Err(TaskFailure::retry_after(hour, "the line is busy"))
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let tally = KeyRange::prefix(format!("{}q/default/act/p/", world.space().prefix()));
    within(SOON, world.some(tally)).await;
    let status = task.status().await.unwrap();
    let TaskStatus::Waiting { tally } = &status else { panic!("it waits: {status:?}") };
    assert_eq!((tally.attempts, tally.errors[0].message.as_str()), (1, "the line is busy"));
    assert_eq!(status.tally(), Some(tally));
}
