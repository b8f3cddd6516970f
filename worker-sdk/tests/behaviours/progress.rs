//! What a handler reports while it runs.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_registry::backend::{Change, WatchRequest};
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange};
use bellows_sdk::prelude::*;
use bellows_sdk::{ReportError, TaskStatus, WaitError};
use futures::StreamExt;
use tokio::time::sleep;

use super::gate::{Acting, Gate};
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    progress_is_seen_while_the_handler_runs_and_gone_with_it,
    a_watch_follows_progress_through_all_attempts_until_the_end,
    a_watch_of_an_unknown_task_ends_with_an_error,
    progress_is_written_once_a_second_however_often_it_is_reported,
    progress_never_waits_though_the_registry_does_not_answer,
    a_report_over_its_limit_is_refused_and_nothing_is_written,
    progress_that_no_reader_of_records_could_parse_does_no_harm,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pages {
    pub(super) done: u32,
    of: u32,
}

pub(super) fn pages(done: u32) -> Pages {
    Pages { done, of: 10 }
}

/// A handler that reports, and then waits to be let go.
fn reports_and_waits(gate: &Gate) -> impl Fn(TaskContext, String) -> Acting + Clone + use<> {
    let gate = gate.clone();
    move |context: TaskContext, text: String| {
        let gate = gate.clone();
        Box::pin(async move {
            context.progress(&pages(3))?;
            gate.pass().await;
            Ok(text.into())
        })
    }
}

/// Waits until the task shows some progress.
async fn shown(task: &TaskHandle<Act>) -> Pages {
    within(SOON, async {
        loop {
            if let Some(pages) = task.progress::<Pages>().await.unwrap() {
                return pages;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn progress_is_seen_while_the_handler_runs_and_gone_with_it(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, reports_and_waits(&gate)).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let elsewhere = world.other_client().task(task.to_ref());
    assert_eq!(shown(&elsewhere).await, pages(3));
    let TaskStatus::Running { tally, .. } = elsewhere.status().await.unwrap() else { panic!("it runs") };
    assert_eq!(tally.progress.unwrap().attempt, 1);
    gate.open();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!(outcome.tally.progress, None);
    assert_eq!(task.progress::<Pages>().await.unwrap(), None);
    world.assert_lawful().await;
}

async fn a_watch_follows_progress_through_all_attempts_until_the_end(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        for done in 1..=2 {
            context.progress(&pages(10 * context.attempt() + done))?;
            sleep(Duration::from_millis(1200)).await;
        }
        if context.attempt() == 1 {
            return Err("once more".into());
        }
        Ok(text.into())
    };
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let mut watch = task.watch_progress::<Pages>();
    let _worker = world.worker(&world.bellows, 1, act).await;
    let mut seen = Vec::new();
    while let Some(pages) = within(SOON, watch.next()).await {
        seen.push(pages.unwrap().done);
    }
    let reported = [11, 12, 21, 22];
    if world.has_paused_time() {
        assert_eq!(seen, reported, "every report of a second, and then the end");
    } else {
        // What a busy machine writes or tells late may be left out for what follows it.
        let in_order = seen.is_sorted_by(|one, next| one < next);
        let known = seen.iter().all(|done| reported.contains(done));
        assert!(!seen.is_empty() && in_order && known, "{seen:?}");
    }
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x"));
}

async fn a_watch_of_an_unknown_task_ends_with_an_error(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    gate.open();
    let _worker = world.worker(&world.bellows, 1, reports_and_waits(&gate)).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let mut raw = task.to_ref().raw().clone();
    raw.id = bellows_sdk::TaskId::from_bits(7);
    let nobody = world.bellows.task::<Act>(TaskRef::from_raw(raw));
    let mut watch = nobody.watch_progress::<Pages>();
    assert!(matches!(within(SOON, watch.next()).await, Some(Err(WaitError::NotFound(_)))));
    assert!(within(SOON, watch.next()).await.is_none());
}

/// Changes of one key, counted from now on.
async fn count_puts(world: &World, key: Key) -> Arc<AtomicU32> {
    let range = KeyRange::one(world.space().path(&key));
    let now = world.store.range(bellows_registry::backend::RangeRequest::new(range.clone())).await.unwrap();
    let mut watch = world.store.watch(WatchRequest { range, from: now.revision + 1 }).await.unwrap();
    let puts = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&puts);
    let counting = async move {
        while let Some(Ok(changes)) = watch.next().await {
            let put = changes.changes.iter().filter(|change| matches!(change, Change::Put(_))).count();
            counts.fetch_add(u32::try_from(put).unwrap(), Ordering::SeqCst);
        }
    };
    // Ends with the test's runtime.
    drop(tokio::runtime::Handle::current().spawn(counting));
    puts
}

async fn progress_is_written_once_a_second_however_often_it_is_reported(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        let until = tokio::time::Instant::now() + Duration::from_millis(2500);
        let mut done = 0;
        while tokio::time::Instant::now() < until {
            done += 1;
            context.progress(&pages(done))?;
            sleep(Duration::from_millis(1)).await;
        }
        Ok(format!("{text} {}", done > 100).into())
    };
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let tally = Key::Tally(DefinitionId::new("default", Act::NAME).unwrap(), task.id());
    let puts = count_puts(&world, tally).await;
    let before = tokio::time::Instant::now();
    let _worker = world.worker(&world.bellows, 1, act).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x true");
    let (puts, took) = (u64::from(puts.load(Ordering::SeqCst)), before.elapsed());
    let right = if world.has_paused_time() { 2..=3 } else { 1..=took.as_secs() + 1 };
    assert!(right.contains(&puts), "in {took:?}: {puts}");
}

async fn progress_never_waits_though_the_registry_does_not_answer(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let gate = Gate::default();
    let took = Arc::new(Mutex::new(None));
    let (here, tells) = (gate.clone(), Arc::clone(&took));
    let act = move |context: TaskContext, text: String| {
        let (here, tells) = (here.clone(), Arc::clone(&tells));
        async move {
            here.pass().await;
            let before = tokio::time::Instant::now();
            for done in 0..1000 {
                context.progress(&pages(done))?;
            }
            *tells.lock().unwrap() = Some(before.elapsed());
            Ok(text.into())
        }
    };
    let worker = world.worker(&client, 1, act).await;
    world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    link.set_reachable(false);
    gate.open();
    let took = within(SOON, async {
        loop {
            if let Some(took) = *took.lock().unwrap() {
                return took;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let took = took.await;
    assert!(took < Duration::from_secs(3), "a thousand reports took {took:?}");
    link.set_reachable(true);
    within(SOON, worker.drain(Duration::from_secs(1))).await.unwrap();
}

async fn a_report_over_its_limit_is_refused_and_nothing_is_written(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| async move {
        let progress = context.progress(&"x".repeat(1023)).unwrap_err();
        let checkpoint = context.checkpoint(&"x".repeat(16 * 1024 - 1)).await.unwrap_err();
        assert!(matches!(progress, ReportError::TooLarge { bytes: 1025, limit: 1024, .. }), "{progress}");
        assert!(
            matches!(checkpoint, ReportError::TooLarge { bytes: 16_385, limit: 16_384, .. }),
            "{checkpoint}"
        );
        context.progress(&"x".repeat(1022))?;
        context.checkpoint(&"x".repeat(16 * 1024 - 2)).await?;
        Ok(format!("{progress}; {checkpoint}").into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let said = within(SOON, world.bellows.publish::<Act>("x".into()).await.unwrap()).await.unwrap();
    assert!(said.starts_with("the progress has 1025 bytes; the limit is 1024"), "{said}");
}

async fn progress_that_no_reader_of_records_could_parse_does_no_harm(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, text: String| {
        let here = here.clone();
        async move {
            // Nested more deeply than a parser follows.
            let mut nested = serde_json::json!(1);
            for _ in 0..200 {
                nested = serde_json::Value::Array(vec![nested]);
            }
            context.progress(&nested)?;
            here.pass().await;
            Ok(text.into())
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let wrong = within(SOON, async {
        loop {
            match task.progress::<Pages>().await {
                Ok(None) => sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    });
    assert!(matches!(wrong.await, Err(WaitError::Progress { .. })), "it is not of the type asked for");
    gate.open();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}
