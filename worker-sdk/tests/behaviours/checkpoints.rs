//! What an attempt keeps for the task's next one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::key::{Key, KeyRange};
use bellows_registry::testkit;
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, ReportError};
use tokio::time::sleep;

use super::gate::Gate;
use super::progress::{Pages, pages};
use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
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
    world.define(world.paused_or_real(Duration::from_secs(1), Duration::from_secs(3))).await;
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
    let gate = Gate::default();
    let here = gate.clone();
    let dies = move |context: TaskContext, _: String| {
        let here = here.clone();
        async move {
            context.checkpoint(&pages(5)).await?;
            here.arrive();
            std::future::pending().await
        }
    };
    let first = world.worker(&world.other_client(), 1, dies).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
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
    let gate = Gate::default();
    let here = gate.clone();
    let stops = move |context: TaskContext, _: String| {
        here.arrive();
        async move {
            context.cancelled().cancelled().await;
            context.checkpoint(&pages(9)).await?;
            Err("was told to stop".into())
        }
    };
    let first = world.worker(&world.bellows, 1, stops).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
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
    let gate = Gate::default();
    let said = Arc::new(Mutex::new(None));
    let (here, tells) = (gate.clone(), Arc::clone(&said));
    let late = move |context: TaskContext, text: String| {
        let (here, tells) = (here.clone(), Arc::clone(&tells));
        async move {
            if context.last_checkpoint::<Pages>()?.is_some() {
                return Ok(text.into());
            }
            context.checkpoint(&pages(1)).await?;
            here.pass().await; // it does not know yet that it is to stop
            let late = context.checkpoint(&pages(2)).await;
            *tells.lock().unwrap() = Some(late);
            Ok("late".to_owned().into())
        }
    };
    let _cut_off = world.worker(&client, 1, late).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
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
    gate.open();
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
    let seconds: u64 = within(SOON, task).await.unwrap().parse().unwrap();
    // A busy machine takes its own time besides.
    let right = if world.has_paused_time() { 2..=2 } else { 2..=u64::MAX };
    assert!(right.contains(&seconds), "ten at once, and then two more: {seconds}");
}

async fn a_checkpoint_whose_answer_is_lost_is_kept_once_the_registry_answers(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, _: String| {
        let here = here.clone();
        async move {
            if context.attempt() == 1 {
                here.pass().await;
                context.checkpoint(&pages(4)).await?;
                return Err(TaskError::retry_immediately("once more"));
            }
            Ok(format!("{:?}", context.last_checkpoint::<Pages>()?.map(|pages| pages.done)).into())
        }
    };
    let _worker = world.worker(&client, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    let kept = format!("{}q/default/act/k/", world.space().prefix());
    link.next_txn(testkit::puts(kept), testkit::Fault::LoseAnswer);
    gate.open();
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
