//! What a handler reports while it runs, and what its next attempt begins from.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_registry::backend::{Change, WatchRequest};
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::testkit;
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, ReportError, TaskStatus, WaitError};
use futures::StreamExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    progress_is_seen_while_the_handler_runs_and_gone_with_it,
    a_watch_follows_progress_through_all_attempts_until_the_end,
    a_watch_of_an_unknown_task_ends_with_an_error,
    progress_is_written_once_a_second_however_often_it_is_reported,
    progress_never_waits_though_the_registry_does_not_answer,
    a_report_over_its_limit_is_refused_and_nothing_is_written,
    progress_that_no_reader_of_records_could_parse_does_no_harm,
    a_checkpoint_survives_failures_and_snoozes,
    a_checkpoint_survives_a_panic_and_a_time_out,
    a_checkpoint_survives_the_death_of_its_worker,
    a_handler_that_is_told_to_stop_may_still_keep_a_checkpoint,
    a_checkpoint_of_an_attempt_that_lost_its_task_is_refused,
    a_checkpoint_of_another_type_is_told_apart_from_none,
    a_checkpoint_ends_with_its_task_however_it_ends,
    many_checkpoints_are_slowed_to_one_a_second,
    a_checkpoint_whose_answer_is_lost_is_kept_once_the_registry_answers,
    a_singletons_checkpoint_is_its_cursor_from_run_to_run,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pages {
    done: u32,
    of: u32,
}

fn pages(done: u32) -> Pages {
    Pages { done, of: 10 }
}

/// A handler that reports, says so, and then waits to be let go.
fn reports_and_waits(
    go: &Arc<Notify>,
) -> impl Fn(TaskContext, String) -> futures::future::BoxFuture<'static, TaskResult<String>>
+ Clone
+ Send
+ Sync
+ use<> {
    let go = Arc::clone(go);
    move |context: TaskContext, text: String| {
        let go = Arc::clone(&go);
        Box::pin(async move {
            context.progress(&pages(3))?;
            go.notified().await;
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
    let go = Arc::new(Notify::new());
    let _worker = world.worker(&world.bellows, 1, reports_and_waits(&go)).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let elsewhere = world.other_client().task(task.to_ref());
    assert_eq!(shown(&elsewhere).await, pages(3));
    let TaskStatus::Running { tally, .. } = elsewhere.status().await.unwrap() else { panic!("it runs") };
    assert_eq!(tally.progress.unwrap().attempt, 1);
    go.notify_one();
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
    assert_eq!(seen, [11, 12, 21, 22], "every report of a second, and then the end");
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x"));
}

async fn a_watch_of_an_unknown_task_ends_with_an_error(world: World) {
    world.define(LONG).await;
    let go = Arc::new(Notify::new());
    go.notify_one();
    let _worker = world.worker(&world.bellows, 1, reports_and_waits(&go)).await;
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
    let _worker = world.worker(&world.bellows, 1, act).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x true");
    let puts = puts.load(Ordering::SeqCst);
    assert!((2..=3).contains(&puts), "in two and a half seconds: {puts}");
}

async fn progress_never_waits_though_the_registry_does_not_answer(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let took = Arc::new(Mutex::new(None));
    let (says, waits, tells) = (Arc::clone(&began), Arc::clone(&go), Arc::clone(&took));
    let act = move |context: TaskContext, text: String| {
        let (says, waits, tells) = (Arc::clone(&says), Arc::clone(&waits), Arc::clone(&tells));
        async move {
            says.notify_one();
            waits.notified().await;
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
    within(SOON, began.notified()).await;
    link.set_reachable(false);
    go.notify_one();
    let took = within(SOON, async {
        loop {
            if let Some(took) = *took.lock().unwrap() {
                return took;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let took = took.await;
    assert!(took < Duration::from_secs(1), "a thousand reports took {took:?}");
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
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let act = move |context: TaskContext, text: String| {
        let waits = Arc::clone(&waits);
        async move {
            // Nested more deeply than a parser follows.
            let mut nested = serde_json::json!(1);
            for _ in 0..200 {
                nested = serde_json::Value::Array(vec![nested]);
            }
            context.progress(&nested)?;
            waits.notified().await;
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
    go.notify_one();
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

/// A handler that goes on where its last attempt was, and ends each attempt as told.
async fn goes_on(context: TaskContext, how: fn(&TaskContext) -> Option<TaskError>) -> TaskResult<String> {
    let from = context.last_checkpoint::<Pages>()?.map_or(0, |pages| pages.done);
    context.checkpoint(&pages(from + 1)).await?;
    match how(&context) {
        Some(error) if from < 3 => Err(error),
        _ => Ok(format!("from {from}").into()),
    }
}

async fn a_checkpoint_survives_failures_and_snoozes(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| {
        goes_on(context, |context| {
            Some(match context.attempt() {
                1 => TaskError::retry_immediately("no luck"),
                _ => TaskError::snooze(Duration::from_millis(10)),
            })
        })
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "from 3");
    world.assert_lawful().await;
}

async fn a_checkpoint_survives_a_panic_and_a_time_out(world: World) {
    world.define(Duration::from_secs(1)).await;
    let act = |context: TaskContext, _: String| async move {
        let last = context.last_checkpoint::<String>()?;
        context.checkpoint(&format!("attempt {}", context.attempt())).await?;
        match context.attempt() {
            1 => panic!("oh no"),
            2 => std::future::pending().await,
            _ => Ok(last.unwrap_or_default().into()),
        }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "attempt 2");
}

async fn a_checkpoint_survives_the_death_of_its_worker(world: World) {
    world.define(LONG).await;
    let kept = Arc::new(Notify::new());
    let says = Arc::clone(&kept);
    let dies = move |context: TaskContext, _: String| {
        let says = Arc::clone(&says);
        async move {
            context.checkpoint(&pages(5)).await?;
            says.notify_one();
            std::future::pending().await
        }
    };
    let first = world.worker(&world.other_client(), 1, dies).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, kept.notified()).await;
    drop(first); // a crash: no word to anybody
    let reads = |context: TaskContext, _: String| async move {
        Ok(format!("{:?}", context.last_checkpoint::<Pages>()?).into())
    };
    let _second = world.worker(&world.bellows, 1, reads).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.losses), (1, 1));
    assert_eq!(within(SOON, task).await.unwrap(), "Some(Pages { done: 5, of: 10 })");
    world.assert_lawful().await;
}

async fn a_handler_that_is_told_to_stop_may_still_keep_a_checkpoint(world: World) {
    world.define(LONG).await;
    let began = Arc::new(Notify::new());
    let says = Arc::clone(&began);
    let stops = move |context: TaskContext, _: String| {
        let says = Arc::clone(&says);
        async move {
            says.notify_one();
            context.cancelled().cancelled().await;
            context.checkpoint(&pages(9)).await?;
            Err("was told to stop".into())
        }
    };
    let first = world.worker(&world.bellows, 1, stops).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, began.notified()).await;
    within(SOON, first.drain(Duration::ZERO)).await.unwrap();
    let reads = |context: TaskContext, _: String| async move {
        Ok(format!("{:?}", context.last_checkpoint::<Pages>()?.map(|pages| pages.done)).into())
    };
    let _second = world.worker(&world.bellows, 1, reads).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.hand_backs, &outcome.result[..]), (1, 1, &b"\"Some(9)\""[..]));
}

async fn a_checkpoint_of_an_attempt_that_lost_its_task_is_refused(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let said = Arc::new(Mutex::new(None));
    let (says, waits, tells) = (Arc::clone(&began), Arc::clone(&go), Arc::clone(&said));
    let late = move |context: TaskContext, text: String| {
        let (says, waits, tells) = (Arc::clone(&says), Arc::clone(&waits), Arc::clone(&tells));
        async move {
            if context.last_checkpoint::<Pages>()?.is_some() {
                return Ok(text.into());
            }
            context.checkpoint(&pages(1)).await?;
            says.notify_one();
            waits.notified().await; // it does not know yet that it is to stop
            let late = context.checkpoint(&pages(2)).await;
            *tells.lock().unwrap() = Some(late);
            Ok("late".to_owned().into())
        }
    };
    let _cut_off = world.worker(&client, 1, late).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, began.notified()).await;
    link.stall_watches(true); // it does not hear that its task is taken away
    let reads = |context: TaskContext, _: String| async move {
        Ok(format!("{:?}", context.last_checkpoint::<Pages>()?.map(|pages| pages.done)).into())
    };
    let _healthy = world.worker(&world.bellows, 1, reads).await;
    let assigned = KeyRange::prefix(format!("{}q/default/act/a/", world.space().prefix()));
    let first = within(SOON, world.some(assigned)).await.remove(0);
    let Ok(Key::Assignment(definition, worker, id, attempt)) = world.space().parse(&first.key) else {
        panic!("{first:?}")
    };
    let at = bellows_registry::txn::AttemptRef { definition, worker, task: id, attempt };
    let back = bellows_registry::record::Tally { hand_backs: 1, ..Default::default() };
    world.write(bellows_registry::txn::take_back(&world.space(), &at, &back)).await;
    go.notify_one();
    within(SOON, async {
        while said.lock().unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(matches!(said.lock().unwrap().take(), Some(Err(ReportError::NotHeld))));
    link.stall_watches(false);
    let _ = within(SOON, task.outcome()).await.unwrap();
    world.assert_lawful().await;
}

async fn a_checkpoint_of_another_type_is_told_apart_from_none(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| async move {
        if context.attempt() == 1 {
            assert_eq!(context.last_checkpoint::<Pages>()?, None);
            context.checkpoint(&"of another version").await?;
            return Err(TaskError::retry_immediately("once more"));
        }
        let Err(error) = context.last_checkpoint::<Pages>() else { panic!("it is a text") };
        assert!(matches!(error, ReportError::Unreadable(_)), "{error}");
        Ok(context.last_checkpoint::<String>()?.unwrap_or_default().into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "of another version");
}

async fn a_checkpoint_ends_with_its_task_however_it_ends(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| async move {
        context.checkpoint(&pages(1)).await?;
        match text.as_str() {
            "park" => Err(TaskError::park("hopeless")),
            "cancel" => Err(TaskError::cancel("nobody wants it")),
            _ => Ok(text.into()),
        }
    };
    let _worker = world.worker(&world.bellows, 3, act).await;
    for (order, ended) in
        [("park", Ended::Parked), ("cancel", Ended::Cancelled), ("succeed", Ended::Succeeded)]
    {
        let task = world.bellows.publish::<Act>(order.into()).await.unwrap();
        assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, ended);
    }
    world.assert_lawful().await; // a checkpoint without its task would break one
}

async fn many_checkpoints_are_slowed_to_one_a_second(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, _: String| async move {
        let began = tokio::time::Instant::now();
        for done in 0..12 {
            context.checkpoint(&pages(done)).await?;
        }
        Ok(began.elapsed().as_secs().to_string().into())
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "2", "ten at once, and then two more");
}

async fn a_checkpoint_whose_answer_is_lost_is_kept_once_the_registry_answers(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (Arc::clone(&began), Arc::clone(&go));
    let act = move |context: TaskContext, _: String| {
        let (says, waits) = (Arc::clone(&says), Arc::clone(&waits));
        async move {
            if context.attempt() == 1 {
                says.notify_one();
                waits.notified().await;
                context.checkpoint(&pages(4)).await?;
                return Err(TaskError::retry_immediately("once more"));
            }
            Ok(format!("{:?}", context.last_checkpoint::<Pages>()?.map(|pages| pages.done)).into())
        }
    };
    let _worker = world.worker(&client, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, began.notified()).await;
    let kept = format!("{}q/default/act/k/", world.space().prefix());
    link.next_txn(testkit::puts(kept), testkit::Fault::LoseAnswer);
    go.notify_one();
    assert_eq!(within(SOON, task).await.unwrap(), "Some(4)");
    world.assert_lawful().await;
}

struct Sweep;

impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

async fn a_singletons_checkpoint_is_its_cursor_from_run_to_run(world: World) {
    world.bellows.define::<Sweep>(policy(LONG)).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let sweep = move |context: TaskContext, (): ()| {
        let notes = Arc::clone(&notes);
        async move {
            let from = context.last_checkpoint::<u32>()?.unwrap_or_default();
            notes.lock().unwrap().push(from);
            context.checkpoint(&(from + 10)).await?;
            Ok(().into())
        }
    };
    let tasks = Tasks::new().with_fn::<Sweep, _, _>(sweep);
    let _worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    within(SOON, async {
        while seen.lock().unwrap().len() < 3 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(seen.lock().unwrap()[..3], [0, 10, 20]);
    world.assert_lawful().await;
}
