//! Payloads that some versions of the worker cannot read.

use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, Ended, ErrorKind, TaskStatus};

use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_payload_that_one_version_cannot_read_is_read_by_another_and_no_attempt_is_charged,
    a_payload_that_three_versions_cannot_read_is_parked,
    a_payload_that_waits_for_another_version_blocks_nobody,
}

mod patience {
    use super::*;

    behaviours! {
        paused_only:
        a_payload_that_no_other_version_comes_for_is_parked_in_the_end,
        a_task_that_another_version_handed_back_waits_for_one_again,
    }

    async fn a_payload_that_no_other_version_comes_for_is_parked_in_the_end(world: World) {
        world.define(LONG).await;
        let _old = misreads(&world, "1").await;
        let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
        let before = tokio::time::Instant::now();
        let outcome = within(Duration::from_secs(900), task.outcome()).await.unwrap();
        assert_eq!((outcome.ended, outcome.tally.undecodable_by.len()), (Ended::Parked, 1));
        let waited = before.elapsed().as_secs();
        assert!((600..660).contains(&waited), "{waited} s");
    }

    async fn a_task_that_another_version_handed_back_waits_for_one_again(world: World) {
        world.define(LONG).await;
        let _old = misreads(&world, "1").await;
        let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
        tried(&task, 1).await;
        tokio::time::sleep(Duration::from_secs(500)).await;
        let gate = Gate::default();
        let new = launched(&world, Tasks::new().with_fn::<Act, _, _>(gate.until_told()), "2").await;
        gate.reached().await;
        within(SOON, new.drain(Duration::from_secs(1))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(500)).await;
        let TaskStatus::Waiting { tally } = task.status().await.unwrap() else { panic!("it waits") };
        assert_eq!((tally.hand_backs, tally.attempts), (1, 0));
    }
}

/// The same name, but another payload: the worker of before, or after, a roll-out.
struct Misunderstood;

impl TaskDefinition for Misunderstood {
    const NAME: &'static str = Act::NAME;
    type Callback = String;
    type Trigger = PublishTrigger<u64>;
}

async fn launched(world: &World, tasks: Tasks, version: &str) -> DispatcherHandle {
    let client = world.other_client();
    let worker = WorkerDispatcher::of(&client, tasks).concurrency(1).version(version);
    let mut worker = worker.launch().await.unwrap();
    within(SOON, worker.ready()).await;
    worker
}

async fn misreads(world: &World, version: &str) -> DispatcherHandle {
    let tasks =
        Tasks::new().with_fn::<Misunderstood, _, _>(|_, n: u64| async move { Ok(n.to_string().into()) });
    launched(world, tasks, version).await
}

async fn reads(world: &World, version: &str) -> DispatcherHandle {
    let tasks = Tasks::new().with_fn::<Act, _, _>(|_, text: String| async move { Ok(text.into()) });
    launched(world, tasks, version).await
}

/// Waits until so many versions have tried in vain.
async fn tried(task: &TaskHandle<Act>, versions: usize) {
    within(SOON, async {
        loop {
            if let TaskStatus::Waiting { tally } = task.status().await.unwrap()
                && tally.undecodable_by.len() == versions
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn a_payload_that_one_version_cannot_read_is_read_by_another_and_no_attempt_is_charged(world: World) {
    world.define(LONG).await;
    let _old = misreads(&world, "1").await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    tried(&task, 1).await;
    let _other_pod_of_the_old = misreads(&world, "1").await;
    let _new = reads(&world, "2").await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.attempt, outcome.tally.attempts), (Ended::Succeeded, 1, 0));
    assert_eq!(outcome.tally.undecodable_by, ["1"]);
    assert_eq!(outcome.tally.errors[0].kind, ErrorKind::Undecodable);
    world.assert_lawful().await;
}

async fn a_payload_that_three_versions_cannot_read_is_parked(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let mut workers = Vec::new();
    for (n, version) in ["1", "2", "3"].into_iter().enumerate() {
        workers.push(misreads(&world, version).await);
        if n < 2 {
            tried(&task, n + 1).await;
        }
    }
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.tally.errors.len()), (Ended::Parked, 3));
    assert_eq!(outcome.tally.undecodable_by, ["1", "2"], "and by the one that parked it");
    world.assert_lawful().await;
}

async fn a_payload_that_waits_for_another_version_blocks_nobody(world: World) {
    world.define(LONG).await;
    let _old = misreads(&world, "1").await;
    let waits = world.bellows.publish::<Act>("x".into()).await.unwrap();
    tried(&waits, 1).await;
    for n in 0..3 {
        let task = world.bellows.publish::<Misunderstood>(n).await.unwrap();
        assert_eq!(within(SOON, task).await.unwrap(), n.to_string());
    }
    assert_eq!(waits.try_result().await.unwrap(), None, "it still waits");
}
