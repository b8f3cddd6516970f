//! Several workers, and what happens when one ends, well or badly.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::backend::Entry;
use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Record, Tally, WorkerRecord, WorkerState};
use bellows_registry::testkit::Rates;
use bellows_registry::txn::{self, AttemptRef};
use bellows_sdk::prelude::*;
use bellows_sdk::{DispatcherHandle, Ended, ErrorKind, Health, WaitError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::gate::Gate;
use super::running::{A_WHILE, Log, all_end};
use super::world::{Act, LONG, SOON, World, policy, within};

behaviours! {
    no_more_handlers_run_than_there_are_slots,
    a_cordoned_worker_says_so_and_takes_nothing,
    a_worker_whose_live_key_is_gone_begins_anew,
    a_draining_worker_hands_back_what_it_has_not_seen_yet,
    what_is_taken_back_from_a_draining_worker_is_let_go,
    a_verdict_on_the_way_out_counts,
    a_drain_ends_in_time_though_nobody_answers,
    a_drained_worker_hands_back_and_no_attempt_is_charged,
    a_drained_worker_finishes_what_it_can,
    a_killed_workers_tasks_run_elsewhere_and_no_attempt_is_charged,
    a_worker_cut_off_from_the_registry_cannot_settle_late,
    a_singleton_runs_on_one_worker_at_a_time_and_is_taken_over,
}

behaviours! {
    paused_only: a_result_in_hand_is_sent_for_as_long_as_its_assignment_stands,
    a_worker_that_stood_still_begins_nothing_on_its_old_lease,
}

async fn quick(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.into())
}

async fn no_more_handlers_run_than_there_are_slots(world: World) {
    world.define(LONG).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let _worker = world.worker(&world.bellows, 3, log.held(&go)).await;
    let mut tasks = Vec::new();
    for n in 0..30 {
        tasks.push(world.bellows.publish::<Act>(n.to_string()).await.unwrap());
    }
    log.until_began(3).await;
    sleep(A_WHILE).await;
    assert_eq!(log.most(""), 3, "while the first three run");
    go.send_replace(true);
    all_end(tasks).await;
    assert_eq!(log.most(""), 3, "as one after the other ends");
}

fn act() -> DefinitionId {
    DefinitionId::new("default", Act::NAME).unwrap()
}

/// The keys of `Act` in one room, once there are any.
async fn keys(world: &World, room: &str) -> Vec<Entry> {
    let range = KeyRange::prefix(format!("{}q/{}/{room}/", world.space().prefix(), act()));
    within(SOON, world.some(range)).await
}

/// The one worker that is alive, and its record.
async fn only_worker(world: &World) -> (WorkerId, WorkerRecord) {
    let entries = keys(world, "w").await;
    assert_eq!(entries.len(), 1);
    match world.space().parse(&entries[0].key) {
        Ok(Key::Worker(_, worker)) => (worker, WorkerRecord::decode(&entries[0].value).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Waits until the worker's health is this.
async fn health_is(worker: &DispatcherHandle, wanted: Health) {
    within(SOON, async {
        while worker.health() != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn a_cordoned_worker_says_so_and_takes_nothing(world: World) {
    world.define(LONG).await;
    let worker = world.worker(&world.bellows, 1, quick).await;
    let (id, record) = only_worker(&world).await;
    let say = |state| txn::put_worker(&world.space(), &act(), &id, &WorkerRecord { state, ..record.clone() });
    world.write(say(WorkerState::Cordoned)).await;
    health_is(&worker, Health::Cordoned).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert!(task.wait_timeout(Duration::from_millis(300)).await.is_err(), "it takes nothing");
    world.write(say(WorkerState::Active)).await;
    health_is(&worker, Health::Ready).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
}

/// Some servers go on renewing a lease that was revoked: the key says what is true.
async fn a_worker_whose_live_key_is_gone_begins_anew(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let worker = world.worker(&world.bellows, 1, gate.until_told()).await;
    world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    let (first, _) = only_worker(&world).await;
    world.delete(world.space().path(&Key::Worker(act(), first.clone()))).await;
    // The task was lost with the worker that was, and comes to the one that is.
    gate.reached().await;
    let (second, _) = only_worker(&world).await;
    assert_ne!(first, second, "a worker id is never used again (law 20)");
    // While it drains it does not: it lets go of what it runs, and ends.
    let gone = async {
        world.until_a_worker_drains().await;
        world.delete(world.space().path(&Key::Worker(act(), second))).await;
    };
    let (drained, ()) = tokio::join!(within(SOON, worker.drain(LONG)), gone);
    drained.unwrap();
    world.assert_lawful().await;
}

async fn a_draining_worker_hands_back_what_it_has_not_seen_yet(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let worker = world.worker(&client, 1, quick).await;
    link.stall_watches(true);
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    keys(&world, "a").await;
    within(SOON, worker.drain(Duration::from_secs(5))).await.unwrap();
    is_done_elsewhere_after_a_hand_back(&world, &task).await;
}

/// Another worker does it, and nothing was charged to the task.
async fn is_done_elsewhere_after_a_hand_back(world: &World, task: &TaskHandle<Act>) {
    let _second = world.worker(&world.bellows, 1, quick).await;
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.hand_backs), (1, 0, 1));
    assert_eq!(outcome.tally.losses, 0, "a hand-back is not a loss");
    world.assert_lawful().await;
}

async fn what_is_taken_back_from_a_draining_worker_is_let_go(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let worker = world.worker(&world.bellows, 1, gate.until_told()).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    let assigned = keys(&world, "a").await.remove(0);
    let at = match world.space().parse(&assigned.key) {
        Ok(Key::Assignment(definition, worker, task, attempt)) => {
            AttemptRef { definition, worker, task, attempt }
        }
        other => panic!("{other:?}"),
    };
    let take_back = async {
        world.until_a_worker_drains().await;
        world.write(txn::take_back(&world.space(), &at, &Tally::default())).await;
    };
    // Long before its deadline: there is nothing left to wait for.
    let (drained, ()) = tokio::join!(within(SOON, worker.drain(LONG)), take_back);
    drained.unwrap();
    let _second = world.worker(&world.bellows, 1, quick).await;
    assert_eq!(within(SOON, task).await.unwrap(), "x");
    world.assert_lawful().await;
}

/// A handler that is told to stop and says what is to become of its task is heard.
async fn a_verdict_on_the_way_out_counts(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |context: TaskContext, _: String| {
        here.arrive();
        async move {
            context.cancelled().cancelled().await;
            Err(TaskFailure::park("half done, and cannot be done again"))
        }
    };
    let worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    within(SOON, worker.drain(Duration::ZERO)).await.unwrap();
    let Err(WaitError::Failed(failed)) = within(SOON, task).await else { panic!("it is parked") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
}

async fn a_drain_ends_in_time_though_nobody_answers(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let gate = Gate::default();
    let worker = world.worker(&client, 1, gate.then_echo()).await;
    world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    link.set_reachable(false);
    gate.open(); // an outcome in hand, and nobody to take it
    health_is(&worker, Health::NotReady("the registry does not answer")).await;
    let bound = world.paused_or_real(Duration::from_secs(8), SOON); // the drain takes six
    within(bound, worker.drain(Duration::from_secs(1))).await.unwrap();
}

async fn a_drained_worker_hands_back_and_no_attempt_is_charged(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let first = world.worker(&world.bellows, 1, gate.until_told()).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    within(SOON, first.drain(Duration::from_millis(100))).await.unwrap();
    is_done_elsewhere_after_a_hand_back(&world, &task).await;
}

async fn a_drained_worker_finishes_what_it_can(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let worker = world.worker(&world.bellows, 1, gate.holding("running")).await;
    let running = world.bellows.publish::<Act>("running".into()).await.unwrap();
    let waiting = world.bellows.publish::<Act>("waiting".into()).await.unwrap();
    gate.reached().await;
    let let_go = async {
        world.until_a_worker_drains().await;
        gate.open();
    };
    let (drained, ()) = tokio::join!(within(SOON, worker.drain(LONG)), let_go);
    drained.unwrap();
    assert_eq!(running.try_result().await.unwrap().as_deref(), Some("running"));
    assert_eq!(waiting.try_result().await.unwrap(), None, "a draining worker takes nothing");
}

async fn a_killed_workers_tasks_run_elsewhere_and_no_attempt_is_charged(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let first = world.worker(&world.bellows, 1, gate.until_told()).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    let _second = world.worker(&world.bellows, 1, quick).await;
    drop(first); // a crash: no word to anybody
    let bound = world.paused_or_real(Duration::from_secs(2 + 4), SOON); // its lease, and to notice
    let outcome = within(bound, task.outcome()).await.unwrap();
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.losses), (1, 0, 1));
    assert_eq!(outcome.tally.errors[0].kind, ErrorKind::WorkerLost);
    world.assert_lawful().await;
}

async fn a_worker_cut_off_from_the_registry_cannot_settle_late(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let gate = Gate::default();
    let act = |_: TaskContext, _: String| async { Ok("late".to_owned().into()) };
    let _cut_off = world.worker(&client, 1, gate.then(act)).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    gate.reached().await;
    link.set_reachable(false);
    // It ends its work just as it loses its lease: the outcome in hand is sent, in vain.
    gate.open();
    let _healthy = world.worker(&world.bellows, 1, quick).await;
    assert_eq!(within(SOON, task.wait_timeout(SOON)).await.unwrap(), "x");
    link.set_reachable(true);
    sleep(Duration::from_secs(3)).await; // time for the late outcome to arrive
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x"));
    world.assert_lawful().await;
}

/// As of an etcd that is full: leases live, and nothing is written.
async fn a_result_in_hand_is_sent_for_as_long_as_its_assignment_stands(world: World) {
    world.define(Duration::from_secs(3600)).await;
    let (client, link) = world.client_over_a_bad_link();
    let runs = Arc::new(AtomicU32::new(0));
    let (counted, full) = (Arc::clone(&runs), link.clone());
    let act = move |_: TaskContext, text: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        full.set_rates(Rates { refuse: 1000, ..Rates::default() });
        async { Ok(text.into()) }
    };
    let _worker = world.worker(&client, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    sleep(Duration::from_secs(700)).await;
    assert_eq!((runs.load(Ordering::SeqCst), task.try_result().await.unwrap()), (1, None));
    link.set_rates(Rates::default());
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.attempt, outcome.tally.losses), (Ended::Succeeded, 1, 0));
    assert_eq!(runs.load(Ordering::SeqCst), 1, "it was done once");
}

/// As after SIGSTOP and SIGCONT: what waited in the socket and the time that has passed are
/// there at once.
async fn a_worker_that_stood_still_begins_nothing_on_its_old_lease(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let says = Arc::clone(&begun);
    let tell = move |context: TaskContext, text: String| {
        says.lock().unwrap().push(context.worker_id().clone());
        quick(context, text)
    };
    let _worker = world.worker(&client, 1, tell).await;
    let (first, _) = only_worker(&world).await;
    link.stall_watches(true);
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    keys(&world, "a").await;
    // That its live key is gone may be told later than what waited.
    link.hide_next_change(world.space().path(&Key::Worker(act(), first.clone())));
    link.stall_watches(false);
    tokio::time::advance(Duration::from_secs(3)).await; // nobody has had a turn in between
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.tally.losses), (Ended::Succeeded, 1));
    assert!(!begun.lock().unwrap().contains(&first), "its lease was over");
}

struct Sweep;

impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

async fn a_singleton_runs_on_one_worker_at_a_time_and_is_taken_over(world: World) {
    world.bellows.define::<Sweep>(policy(LONG)).await.unwrap();
    let (running, runs) = (Arc::new(AtomicU32::new(0)), Arc::new([AtomicU32::new(0), AtomicU32::new(0)]));
    let mut workers = Vec::new();
    for n in 0..2 {
        let (running, runs) = (Arc::clone(&running), Arc::clone(&runs));
        let sweep = move |_: TaskContext, (): ()| {
            let (running, runs) = (Arc::clone(&running), Arc::clone(&runs));
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                sleep(Duration::from_millis(200)).await;
                runs[n].fetch_add(1, Ordering::SeqCst);
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(().into())
            }
        };
        let tasks = Tasks::new().with_fn::<Sweep, _, _>(sweep);
        let client = world.other_client();
        let mut worker = WorkerDispatcher::of(&client, tasks).launch().await.unwrap();
        within(SOON, worker.ready()).await;
        workers.push(worker);
    }
    let total = |runs: &[AtomicU32; 2]| runs.iter().map(|n| n.load(Ordering::SeqCst)).sum::<u32>();
    let ran = |least: u32| {
        let runs = Arc::clone(&runs);
        async move {
            while total(&runs) < least {
                sleep(Duration::from_millis(50)).await;
            }
        }
    };
    within(SOON, ran(2)).await;
    let first = workers.remove(0);
    within(SOON, first.drain(Duration::from_secs(2))).await.unwrap();
    let before = runs[1].load(Ordering::SeqCst);
    within(SOON, ran(total(&runs) + 2)).await;
    assert!(runs[1].load(Ordering::SeqCst) >= before + 2, "the other one took over");
    world.assert_lawful().await;
}
