//! Results of many tasks, and where a task is.

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, NewTask, WaitError};
use futures::StreamExt;

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    many_tasks_of_another_process_are_awaited_by_one_watch,
    tasks_of_very_many_slots_are_awaited_by_one_watch,
    results_come_as_tasks_end_not_in_the_order_of_the_list,
    one_failed_or_unknown_task_of_many_does_not_hide_the_others,
    waiting_for_no_task_ends_at_once,
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
    let _worker = world.worker(&world.bellows, 2, obey).await;
    let late = NewTask::new("late".to_owned()).delay(Duration::from_millis(600));
    let refs = saved(&world.bellows, vec![late, NewTask::new("early".to_owned())]).await;
    let mut results = world.bellows.wait_many(refs);
    let (first, result) = within(SOON, results.next()).await.unwrap();
    assert_eq!((first, result.unwrap().as_str()), (1, "early"));
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
