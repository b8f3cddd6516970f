//! Handlers that block their thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bellows_sdk::middleware::{self, AttemptEnd};
use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, ErrorKind};
use tokio::runtime::Handle;

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_blocking_handler_gives_its_typed_result,
    a_panic_of_a_blocking_handler_is_a_failed_attempt,
    no_more_blocking_handlers_run_than_there_are_slots,
    a_blocking_handler_sees_that_it_is_to_stop,
    blocking_handlers_cost_no_lease_however_many_block,
    what_a_blocking_handler_publishes_belongs_to_its_trace,
    a_thread_that_a_layer_left_behind_is_told_to_stop_and_has_its_slot_until_then,
}

/// Lets time pass by itself: the clock that tests wind forward stands still while a thread
/// blocks.
pub(crate) fn real_time(world: &World) {
    if world.has_paused_time() {
        tokio::time::resume();
    }
}

pub(crate) async fn blocking_worker<F>(world: &World, slots: u32, act: F) -> DispatcherHandle
where
    F: Fn(TaskContext, String) -> TaskResult<String> + Clone + Send + Sync + 'static,
{
    blocking_worker_of(&world.bellows, slots, act).await
}

async fn blocking_worker_of<F>(client: &Bellows, slots: u32, act: F) -> DispatcherHandle
where
    F: Fn(TaskContext, String) -> TaskResult<String> + Clone + Send + Sync + 'static,
{
    let tasks = Tasks::new().with_blocking_fn::<Act, _>(act);
    let mut worker = WorkerDispatcher::of(client, tasks).concurrency(slots).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    worker
}

async fn a_blocking_handler_gives_its_typed_result(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| {
        if context.attempt() == 1 {
            "x".parse::<u32>()?; // any error means: retry
        }
        Ok(format!("{text} on {}", context.attempt()).into())
    };
    let _worker = blocking_worker(&world, 1, act).await;
    let task = world.bellows.publish::<Act>("done".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "done on 2");
}

async fn a_panic_of_a_blocking_handler_is_a_failed_attempt(world: World) {
    world.define(LONG).await;
    let act = |context: TaskContext, text: String| {
        assert!(context.attempt() > 1, "it went boom");
        Ok(text.into())
    };
    let _worker = blocking_worker(&world, 1, act).await;
    let task = world.bellows.publish::<Act>("done".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.errors[0].kind), (2, ErrorKind::Panicked));
    assert!(outcome.tally.errors[0].message.contains("it went boom"));
}

async fn no_more_blocking_handlers_run_than_there_are_slots(world: World) {
    world.define(LONG).await;
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (r, m) = (Arc::clone(&running), Arc::clone(&most));
    let act = move |_: TaskContext, text: String| {
        m.fetch_max(r.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Until as many run as there are slots, and a moment for one too many.
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(5));
            if m.load(Ordering::SeqCst) >= 3 {
                break;
            }
        }
        r.fetch_sub(1, Ordering::SeqCst);
        Ok(text.into())
    };
    let _worker = blocking_worker(&world, 3, act).await;
    let mut tasks = Vec::new();
    for n in 0..15 {
        tasks.push(world.bellows.publish::<Act>(n.to_string()).await.unwrap());
    }
    for task in tasks {
        within(SOON, task).await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

async fn a_blocking_handler_sees_that_it_is_to_stop(world: World) {
    real_time(&world);
    world.define(Duration::from_secs(3)).await; // the second attempt must not time out
    let act = |context: TaskContext, text: String| {
        if context.attempt() > 1 {
            return Ok(text.into());
        }
        while context.is_held() {
            thread::sleep(Duration::from_millis(5));
        }
        Err("stopped in time".into())
    };
    let worker = blocking_worker(&world, 1, act).await;
    let task = world.bellows.publish::<Act>("done".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.errors[0].kind), (2, ErrorKind::TimedOut));
    assert!(worker.is_alive(), "it stopped in time: its slot was never stuck");
}

/// More of them than the runtime has threads, for longer than a lease lives without a
/// renewal: and that though the worker's own loops share the runtime here.
async fn blocking_handlers_cost_no_lease_however_many_block(world: World) {
    real_time(&world);
    world.define(LONG).await;
    let ttl = Duration::from_secs(5); // a busy machine costs no lease either
    let act = move |_: TaskContext, text: String| {
        thread::sleep(ttl + Duration::from_secs(1));
        Ok(text.into())
    };
    let _worker = blocking_worker_of(&world.client_with_leases_of(ttl), 8, act).await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        tasks.push(world.bellows.publish::<Act>(n.to_string()).await.unwrap());
    }
    for task in tasks {
        let outcome = within(SOON, task.outcome()).await.unwrap();
        assert_eq!((outcome.attempt, outcome.tally.losses, outcome.tally.hand_backs), (1, 0, 0));
    }
}

async fn what_a_blocking_handler_publishes_belongs_to_its_trace(world: World) {
    real_time(&world);
    world.define(LONG).await;
    let client = world.bellows.clone();
    let act = move |context: TaskContext, text: String| {
        if text == "child" {
            return Ok(context.headers()["traceparent"].clone().into());
        }
        let child = async { Ok::<_, TaskError>(client.publish::<Act>("child".into()).await?.await?) };
        let childs_parent = Handle::current().block_on(child)?;
        Ok(format!("{} {childs_parent}", context.traceparent()).into())
    };
    let _worker = blocking_worker(&world, 2, act).await;
    let parent = world.bellows.publish::<Act>("parent".into()).await.unwrap();
    let told = within(SOON, parent).await.unwrap();
    let (own, childs_parent) = told.split_once(' ').unwrap();
    assert_eq!(own, childs_parent, "the attempt is the parent of what it publishes");
}

/// A layer's time-out drops the attempt, but nobody can drop a thread.
async fn a_thread_that_a_layer_left_behind_is_told_to_stop_and_has_its_slot_until_then(world: World) {
    real_time(&world);
    world.define(LONG).await;
    let may_end = Arc::new(AtomicU32::new(0));
    let held = Arc::clone(&may_end);
    let act = move |context: TaskContext, text: String| {
        if context.attempt() == 1 {
            let told = || !context.is_held() && held.load(Ordering::SeqCst) > 0;
            for _ in (0..6_000).take_while(|_| !told()) {
                thread::sleep(Duration::from_millis(5)); // not for ever, where nobody tells it
            }
        }
        Ok(text.into())
    };
    let hasty = middleware::from_fn(|request, next| async move {
        let first = request.context().attempt() == 1;
        let bound = if first { Duration::from_millis(200) } else { LONG };
        let late = |_| AttemptEnd::failed(TaskError::retry_immediately("the layer has no patience"));
        tokio::time::timeout(bound, next.run(request)).await.unwrap_or_else(late)
    });
    let tasks = Tasks::new().with_blocking_fn::<Act, _>(act).layer(hasty);
    let mut worker = WorkerDispatcher::of(&world.bellows, tasks).concurrency(2).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    let task = world.bellows.publish::<Act>("done".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "done");
    let stuck = |many: u32| {
        worker.metrics_text().contains(&format!("bellows_worker_stuck{{definition=\"act\"}} {many}"))
    };
    assert!(stuck(1), "{}", worker.metrics_text());
    may_end.store(1, Ordering::SeqCst);
    let freed = async {
        while !stuck(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(SOON, freed).await; // it was told to stop, or it would not end
}
