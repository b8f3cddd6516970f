//! Layers around an attempt.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_sdk::middleware::{self, AttemptEnd};
use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, Ended, ErrorKind};
use tokio::time::sleep;
use tower::limit::GlobalConcurrencyLimitLayer;

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    layers_surround_an_attempt_in_the_order_in_which_they_were_added,
    a_layer_may_answer_in_place_of_the_handler,
    a_layer_sees_a_panic_of_the_handler_as_an_end,
    a_panic_of_a_layer_is_a_failed_attempt_and_harms_nobody_else,
    a_layer_knows_the_attempt_and_its_payload,
    a_layer_from_elsewhere_fits,
    layers_surround_handlers_that_block_too,
}

async fn launched(world: &World, tasks: Tasks, slots: u32) -> DispatcherHandle {
    world.define(LONG).await;
    let mut worker = WorkerDispatcher::of(&world.bellows, tasks).concurrency(slots).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    worker
}

async fn echo(context: TaskContext, text: String) -> TaskResult<String> {
    if text == "fail once" && context.attempt() == 1 {
        return Err("no luck".into());
    }
    assert!(text != "boom", "it went boom");
    Ok(text.into())
}

async fn layers_surround_an_attempt_in_the_order_in_which_they_were_added(world: World) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let says = |name: &'static str| {
        let said = Arc::clone(&said);
        middleware::from_fn(move |request, next| {
            let said = Arc::clone(&said);
            async move {
                said.lock().unwrap().push(format!("{name} in"));
                let end = next.run(request).await;
                said.lock().unwrap().push(format!("{name} out: {}", end.is_success()));
                end
            }
        })
    };
    // Kinds added before and after a layer have it alike.
    let tasks = Tasks::new().layer(says("first")).with_fn::<Act, _, _>(echo).layer(says("second"));
    let _worker = launched(&world, tasks, 1).await;
    let task = world.bellows.publish::<Act>("fail once".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "fail once");
    let attempt = |ok: bool| {
        ["first in".to_owned(), "second in".into(), format!("second out: {ok}"), format!("first out: {ok}")]
    };
    assert_eq!(*said.lock().unwrap(), [attempt(false), attempt(true)].concat());
}

async fn a_layer_may_answer_in_place_of_the_handler(world: World) {
    let refuses = middleware::from_fn(|request, next| async move {
        match request.payload() {
            b"\"forbidden\"" => AttemptEnd::failed(TaskError::park("not allowed here")),
            _ => next.run(request).await,
        }
    });
    let tasks = Tasks::new().with_fn::<Act, _, _>(echo).layer(refuses);
    let _worker = launched(&world, tasks, 1).await;
    let forbidden = world.bellows.publish::<Act>("forbidden".into()).await.unwrap();
    let allowed = world.bellows.publish::<Act>("allowed".into()).await.unwrap();
    let outcome = within(SOON, forbidden.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.attempt), (Ended::Parked, 1));
    assert_eq!(outcome.tally.errors[0].message, "not allowed here");
    assert_eq!(within(SOON, allowed).await.unwrap(), "allowed");
}

async fn a_layer_sees_a_panic_of_the_handler_as_an_end(world: World) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let watches = middleware::from_fn(move |request, next| {
        let notes = Arc::clone(&notes);
        async move {
            let end = next.run(request).await;
            notes.lock().unwrap().push(end.error().unwrap_or_default());
            end
        }
    });
    let tasks = Tasks::new().with_fn::<Act, _, _>(echo).layer(watches);
    let _worker = launched(&world, tasks, 1).await;
    let task = world.bellows.publish::<Act>("boom".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.errors[0].kind), (3, ErrorKind::Panicked));
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 3 && seen.iter().all(|text| text.contains("it went boom")), "{seen:?}");
}

async fn a_panic_of_a_layer_is_a_failed_attempt_and_harms_nobody_else(world: World) {
    let fragile = middleware::from_fn(|request, next| async move {
        assert!(request.payload() != b"\"odd\"", "the layer went boom");
        next.run(request).await
    });
    let tasks = Tasks::new().with_fn::<Act, _, _>(echo).layer(fragile);
    let _worker = launched(&world, tasks, 2).await;
    let odd = world.bellows.publish::<Act>("odd".into()).await.unwrap();
    let fine = world.bellows.publish::<Act>("fine".into()).await.unwrap();
    let outcome = within(SOON, odd.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.tally.errors[0].kind), (Ended::Parked, ErrorKind::Panicked));
    assert!(outcome.tally.errors[0].message.contains("the layer went boom"));
    assert_eq!(within(SOON, fine).await.unwrap(), "fine");
}

async fn a_layer_knows_the_attempt_and_its_payload(world: World) {
    let knows = middleware::from_fn(|request, next| async move {
        let context = request.context();
        let known = (request.definition(), context.attempt(), context.headers().get("who").cloned());
        assert_eq!(known, ("act", 1, Some("me".to_owned())));
        next.run(request).await
    });
    let tasks = Tasks::new().with_fn::<Act, _, _>(echo).layer(knows);
    let _worker = launched(&world, tasks, 1).await;
    let task = world.bellows.publish::<Act>("x".into()).header("who", "me").await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().attempt, 1);
}

async fn a_layer_from_elsewhere_fits(world: World) {
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (r, m) = (Arc::clone(&running), Arc::clone(&most));
    let act = move |_: TaskContext, text: String| {
        let (running, most) = (Arc::clone(&r), Arc::clone(&m));
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(text.into())
        }
    };
    let tasks = Tasks::new().with_fn::<Act, _, _>(act).layer(GlobalConcurrencyLimitLayer::new(1));
    let _worker = launched(&world, tasks, 4).await;
    let mut tasks = Vec::new();
    for n in 0..6 {
        tasks.push(world.bellows.publish::<Act>(n.to_string()).await.unwrap());
    }
    for task in tasks {
        within(SOON, task).await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 1, "though there are four slots");
}

async fn layers_surround_handlers_that_block_too(world: World) {
    let passes = middleware::from_fn(|request, next| async move {
        match next.run(request).await {
            end if end.is_success() => AttemptEnd::failed(TaskError::park("so I say")),
            end => end,
        }
    });
    let act = |_: TaskContext, text: String| Ok(text.into());
    let tasks = Tasks::new().with_blocking_fn::<Act, _>(act).layer(passes);
    let _worker = launched(&world, tasks, 1).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().tally.errors[0].message, "so I say");
}
