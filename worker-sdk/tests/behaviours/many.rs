//! Many tasks in one call, and what they cost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bellows_registry::backend::RangeRequest;
use bellows_registry::key::KeyRange;
use bellows_sdk::prelude::*;
use bellows_sdk::{NewTask, Publication, PublishError};
use futures::{StreamExt, stream};

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    many_tasks_are_published_in_few_requests_with_a_verdict_each,
    one_refused_task_of_many_does_not_disturb_the_others,
    verdicts_come_in_the_order_of_their_tasks,
    many_tasks_published_again_under_their_keys_are_the_same,
    a_stream_is_not_asked_for_more_than_may_be_on_the_way,
    a_stream_of_large_payloads_is_bounded_by_their_bytes,
    a_stream_is_published_as_it_comes,
}

fn numbered(n: usize) -> NewTask<Act> {
    NewTask::new(n.to_string())
}

async fn many_tasks_are_published_in_few_requests_with_a_verdict_each(world: World) {
    world.define(LONG).await;
    let verdicts = within(SOON, world.bellows.publish_many((0..2000).map(numbered))).await;
    let ids: BTreeSet<_> = verdicts.into_iter().map(|verdict| verdict.unwrap().id()).collect();
    assert_eq!(ids.len(), 2000);
    let range = KeyRange::prefix(format!("{}q/default/act/t/", world.space().prefix()));
    let tasks = world.store.range(RangeRequest::new(range)).await.unwrap().entries;
    assert_eq!(tasks.len(), 2000);
    // Each request is a revision.
    let requests: BTreeSet<_> = tasks.iter().map(|task| task.create_revision).collect();
    assert!(requests.len() <= 2000 / 50, "{} requests", requests.len());
}

async fn one_refused_task_of_many_does_not_disturb_the_others(world: World) {
    world.define(LONG).await;
    let tasks = vec![numbered(0), NewTask::new("x".repeat(70_000)), numbered(2)];
    let verdicts = within(SOON, world.bellows.publish_many(tasks)).await;
    assert!(verdicts[0].is_ok() && verdicts[2].is_ok());
    assert!(matches!(verdicts[1], Err(PublishError::TooLarge { bytes: 70_002, .. })));
}

async fn verdicts_come_in_the_order_of_their_tasks(world: World) {
    world.define(LONG).await;
    let echo = |_: TaskContext, text: String| async move { Ok(text.into()) };
    let _worker = world.worker(&world.bellows, 16, echo).await;
    let verdicts = within(SOON, world.bellows.publish_many((0..100).map(numbered))).await;
    for (n, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(within(SOON, verdict.unwrap()).await.unwrap(), n.to_string());
    }
}

async fn many_tasks_published_again_under_their_keys_are_the_same(world: World) {
    world.define(LONG).await;
    let tasks = || (0..150).map(|n| numbered(n).idempotency_key(n));
    let first = within(SOON, world.bellows.publish_many(tasks())).await;
    let second = within(SOON, world.other_client().publish_many(tasks())).await;
    for (first, second) in first.into_iter().zip(second) {
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.to_ref(), second.to_ref());
        assert_eq!(second.publication(), Some(Publication::Already));
    }
}

/// Publishes from an endless stream over a link that answers nothing; answers how many
/// tasks were asked of it.
async fn asked(world: &World, payload: usize) -> usize {
    let (client, link) = world.client_over_a_bad_link();
    link.set_reachable(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::SeqCst);
        NewTask::<Act>::new("x".repeat(payload))
    });
    let mut verdicts = Box::pin(client.publish_stream(source));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody has asked for a verdict");
    let verdict = tokio::time::timeout(Duration::from_millis(300), verdicts.next()).await;
    assert!(verdict.is_err(), "nobody answers");
    asked.load(Ordering::SeqCst)
}

async fn a_stream_is_not_asked_for_more_than_may_be_on_the_way(world: World) {
    world.define(LONG).await;
    assert_eq!(asked(&world, 10).await, 512);
}

async fn a_stream_of_large_payloads_is_bounded_by_their_bytes(world: World) {
    world.define(LONG).await;
    let payload = 64_000;
    assert_eq!(asked(&world, payload).await, (8 * 1024 * 1024_usize).div_ceil(payload + 2));
}

async fn a_stream_is_published_as_it_comes(world: World) {
    world.define(LONG).await;
    let echo = |_: TaskContext, text: String| async move { Ok(text.into()) };
    let _worker = world.worker(&world.bellows, 4, echo).await;
    let (tasks, source) = tokio::sync::mpsc::channel(4);
    let source =
        stream::unfold(source, |mut source| async { source.recv().await.map(|task| (task, source)) });
    let mut verdicts = Box::pin(world.bellows.publish_stream(source));
    for n in 0..3 {
        // The source pauses after each: the verdict does not wait for the next.
        tasks.send(numbered(n)).await.unwrap();
        let task = within(SOON, verdicts.next()).await.unwrap().unwrap();
        assert_eq!(within(SOON, task).await.unwrap(), n.to_string());
    }
    drop(tasks);
    assert!(within(SOON, verdicts.next()).await.is_none(), "it ends with its source");
}
