//! Handlers that do not stop when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Record, WorkerRecord, WorkerState};
use bellows_registry::txn;
use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, ErrorKind, Health};
use tokio::time::sleep;

use super::blocking::{blocking_worker, real_time};
use super::world::{Act, SOON, World, policy, within};

behaviours! {
    a_stuck_slot_is_not_offered_until_its_handler_ends,
    a_worker_whose_slots_are_all_stuck_is_not_alive,
    a_task_whose_handler_is_stuck_runs_elsewhere_and_the_late_result_is_refused,
    a_cordon_is_not_lost_when_the_slots_change,
    a_task_given_to_a_stuck_slot_is_handed_back_and_no_attempt_is_charged,
}

const SECOND: Duration = Duration::from_secs(1);

/// A worker of so many slots whose handlers do not stop before they are let go, but for
/// those that are told to be quick.
async fn stubborn(world: &World, slots: u32) -> (DispatcherHandle, Arc<LetGo>) {
    real_time(world);
    let mut policy = policy(SECOND);
    if slots > 1 {
        // Another attempt would take the slot that is left.
        policy.execution.retry.max_attempts = 1;
    }
    world.bellows.define::<Act>(policy).await.unwrap();
    let let_go = Arc::new(LetGo::default());
    let waits = Arc::clone(&let_go);
    let act = move |_: TaskContext, text: String| {
        if text != "quick" {
            waits.stuck_here();
        }
        Ok(format!("{text}, at last").into())
    };
    (blocking_worker(world, slots, act).await, let_go)
}

/// Lets stuck handlers go; all that wait, and for good.
#[derive(Default)]
struct LetGo(AtomicBool);

impl LetGo {
    fn stuck_here(&self) {
        while !self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn all(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A test that fails lets the threads go too.
struct AtTheEnd(Arc<LetGo>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.all();
    }
}

fn act() -> DefinitionId {
    DefinitionId::new("default", Act::NAME).unwrap()
}

/// What the one living worker says of itself.
async fn said(world: &World) -> (WorkerId, WorkerRecord) {
    let workers = KeyRange::prefix(format!("{}q/{}/w/", world.space().prefix(), act()));
    let entry = within(SOON, world.some(workers)).await.remove(0);
    match world.space().parse(&entry.key) {
        Ok(Key::Worker(_, worker)) => (worker, WorkerRecord::decode(&entry.value).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Waits until the one worker says that it has so many slots.
async fn has_slots(world: &World, slots: u32) -> WorkerRecord {
    within(SOON, async {
        loop {
            let (_, record) = said(world).await;
            if record.slots == slots {
                return record;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn a_stuck_slot_is_not_offered_until_its_handler_ends(world: World) {
    let (worker, let_go) = stubborn(&world, 2).await;
    let _end = AtTheEnd(Arc::clone(&let_go));
    has_slots(&world, 2).await;
    world.bellows.publish::<Act>("hang".into()).await.unwrap();
    has_slots(&world, 1).await;
    assert!(worker.is_alive(), "one slot is left");
    let quick = world.bellows.publish::<Act>("quick".into()).await.unwrap();
    assert_eq!(within(SOON, quick).await.unwrap(), "quick, at last");
    let_go.all();
    has_slots(&world, 2).await;
    world.assert_lawful().await;
}

async fn a_worker_whose_slots_are_all_stuck_is_not_alive(world: World) {
    let (worker, let_go) = stubborn(&world, 1).await;
    let _end = AtTheEnd(Arc::clone(&let_go));
    world.bellows.publish::<Act>("hang".into()).await.unwrap();
    has_slots(&world, 0).await;
    assert!(!worker.is_alive(), "the kubelet is to restart it");
    let waiting = world.bellows.publish::<Act>("quick".into()).await.unwrap();
    let_go.all();
    has_slots(&world, 1).await;
    assert!(worker.is_alive(), "it came round");
    assert_eq!(within(SOON, waiting).await.unwrap(), "quick, at last");
}

async fn a_task_whose_handler_is_stuck_runs_elsewhere_and_the_late_result_is_refused(world: World) {
    let (_worker, let_go) = stubborn(&world, 1).await;
    let _end = AtTheEnd(Arc::clone(&let_go));
    let task = world.bellows.publish::<Act>("hang".into()).await.unwrap();
    has_slots(&world, 0).await;
    let elsewhere = |_: TaskContext, _: String| async move { Ok("elsewhere".to_owned().into()) };
    let _other = world.worker(&world.other_client(), 1, elsewhere).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    let_go.all();
    assert_eq!((outcome.attempt, outcome.tally.losses), (2, 0));
    assert_eq!(outcome.tally.errors[0].kind, ErrorKind::TimedOut);
    assert_eq!(within(SOON, task).await.unwrap(), "elsewhere");
    world.assert_lawful().await;
}

async fn a_cordon_is_not_lost_when_the_slots_change(world: World) {
    let (worker, let_go) = stubborn(&world, 2).await;
    let _end = AtTheEnd(Arc::clone(&let_go));
    world.bellows.publish::<Act>("hang".into()).await.unwrap();
    has_slots(&world, 1).await;
    // The operator wrote from what it knew: with the slots of before.
    let (id, record) = said(&world).await;
    let cordoned = WorkerRecord { slots: 2, state: WorkerState::Cordoned, ..record };
    world.write(txn::put_worker(&world.space(), &act(), &id, &cordoned)).await;
    let record = has_slots(&world, 1).await;
    assert_eq!(record.state, WorkerState::Cordoned, "the worker put its slots right, and nothing else");
    assert_eq!(worker.health(), Health::Cordoned);
    let_go.all();
    assert_eq!(has_slots(&world, 2).await.state, WorkerState::Cordoned);
}

async fn a_task_given_to_a_stuck_slot_is_handed_back_and_no_attempt_is_charged(world: World) {
    let (_worker, let_go) = stubborn(&world, 1).await;
    let _end = AtTheEnd(Arc::clone(&let_go));
    world.bellows.publish::<Act>("hang".into()).await.unwrap();
    has_slots(&world, 0).await;
    // As if the assigner had not heard of it.
    let (id, record) = said(&world).await;
    let quick = world.bellows.publish::<Act>("quick".into()).await.unwrap();
    world.write(txn::put_worker(&world.space(), &act(), &id, &WorkerRecord { slots: 1, ..record })).await;
    has_slots(&world, 0).await;
    let_go.all();
    let outcome = within(SOON, quick.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.losses), (1, 0, 0));
}
