//! The assigner against faults at the waist, one after the other and all at once.

mod world;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::assigner::{Assigner, AssignerConfig};
use bellows_registry::clock;
use bellows_registry::key::Key;
use bellows_registry::record::{Delay, TaskRecord};
use bellows_registry::testkit::{Fault, puts, records};
use bellows_registry::txn;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use world::slow::{SlowLists, polled_at_most};
use world::{Behaviour, TTL, World};

const STEADY: Behaviour = Behaviour { takes: Duration::from_millis(50), fail: 0, hand_back: 0 };

fn assignments(world: &World) -> String {
    format!("{}q/{}/a/", world.space.prefix(), world.def)
}

#[tokio::test(start_paused = true)]
async fn published_tasks_are_run_and_nothing_is_left() {
    let mut world = World::new(1).await;
    world.assigner("a");
    for _ in 0..3 {
        world.worker(4, STEADY);
    }
    for _ in 0..50 {
        world.publish().await;
    }
    world.until_settled(50).await;
    let count = world.count().await;
    assert_eq!(count, [('r', 50), ('w', 3)].into());
    world.assert_lawful().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_tasks_run_elsewhere_within_its_ttl_and_a_second() {
    let mut world = World::new(2).await;
    world.assigner("a");
    let long = Behaviour::steady(Duration::from_secs(5));
    let kill = world.worker(8, long);
    for _ in 0..8 {
        world.publish().await;
    }
    while world.count().await.get(&'a') != Some(&8) {
        sleep(Duration::from_millis(10)).await;
    }
    world.worker(8, STEADY);
    kill.cancel();
    timeout(TTL + Duration::from_secs(2), world.until_settled(8)).await.expect("within TTL + 2 s");
    let history = world.assert_lawful().await;
    assert_eq!(history.settled().len(), 8);
}

/// Law 19. After a pause of the whole process, whoever reads the report may run before the
/// keeper of the lease, and another process may lead by then.
#[tokio::test(start_paused = true)]
async fn a_report_is_not_fresh_once_the_leaders_lease_may_be_over() {
    let mut world = World::new(3).await;
    let (stop, mut demand) = world.assigner("a");
    let report = demand.wait_for(|report| report.fresh).await.unwrap().clone();
    let after = |millis| clock::instant() + Duration::from_millis(millis);
    assert!(report.is_fresh(clock::instant()) && !report.is_fresh(after(5_000)));
    sleep(Duration::from_secs(60)).await;
    assert!(report.is_fresh(clock::instant()), "the lease was renewed");
    stop.cancel();
    let left = demand.wait_for(|report| !report.leading).await.unwrap().clone();
    assert!(!left.is_fresh(clock::instant()));
}

/// Law 5. The write that gives a task away is answered with a timeout and applied only
/// later. An assigner that plans again in the same term gives the task to two workers.
#[tokio::test(start_paused = true)]
async fn an_assignment_applied_after_its_timeout_does_not_become_a_second_one() {
    for late in [1, 20, 200, 2000] {
        let mut world = World::new(late).await;
        let late = Duration::from_millis(late);
        world.assigner("a");
        world.worker(1, Behaviour::steady(Duration::from_secs(3)));
        world.worker(1, Behaviour::steady(Duration::from_secs(3)));
        sleep(Duration::from_secs(1)).await;
        world.assigner_link.next_txn(puts(assignments(&world)), Fault::ApplyLate(late));
        world.publish().await;
        world.until_settled(1).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.assigner_link.pending(), 0, "the fault met its request");
        world.assert_lawful().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_assignment_whose_answer_is_lost_is_not_planned_twice() {
    for fault in [Fault::LoseAnswer, Fault::Drop, Fault::Refuse] {
        let mut world = World::new(4).await;
        world.assigner("a");
        world.worker(2, STEADY);
        sleep(Duration::from_secs(1)).await;
        world.assigner_link.next_txn(puts(assignments(&world)), fault);
        world.publish().await;
        world.until_settled(1).await;
        let history = world.assert_lawful().await;
        assert_eq!(history.settled().values().sum::<u32>(), 1);
    }
}

/// Law 4. A leader is cut off long enough to lose its lease; what it had under way, and
/// what it still believes, must not reach the registry in the next leader's term.
#[tokio::test(start_paused = true)]
async fn a_deposed_assigner_writes_nothing() {
    let mut world = World::new(5).await;
    let (_, mut old) = world.assigner("old");
    old.wait_for(|report| report.leading).await.unwrap();
    // The old leader's next assignment arrives only after it was deposed.
    world.assigner_link.next_txn(puts(assignments(&world)), Fault::ApplyLate(Duration::from_secs(60)));
    world.worker(1, Behaviour::steady(Duration::from_secs(120)));
    world.publish().await;
    while world.assigner_link.pending() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    world.assigner_link.set_reachable(false);
    let healthy = bellows_registry::testkit::Faulty::new(world.store.clone(), 9);
    world.assigner_link = healthy;
    let (_, mut new) = world.assigner("new");
    timeout(Duration::from_secs(30), new.wait_for(|report| report.leading))
        .await
        .expect("a new leader")
        .unwrap();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.count().await.get(&'a'), Some(&1), "one assignment, the new leader's");
    world.assert_lawful().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_registry_is_not_written_to() {
    let mut world = World::new(6).await;
    let (_, mut demand) = world.assigner("a");
    world.worker(2, STEADY);
    world.publish().await;
    world.until_settled(1).await;
    demand.wait_for(|report| report.leading && report.fresh).await.unwrap();
    let before = world.store.revision();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.revision(), before);
}

#[tokio::test(start_paused = true)]
async fn the_next_candidate_leads_at_once_when_the_leader_stops() {
    let mut world = World::new(7).await;
    let (stop, mut first) = world.assigner("first");
    first.wait_for(|report| report.leading).await.unwrap();
    let (_, mut second) = world.assigner("second");
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    timeout(Duration::from_millis(200), second.wait_for(|report| report.leading))
        .await
        .expect("within the deference of nobody")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn demand_counts_what_is_due_assigned_and_delayed() {
    let mut world = World::new(8).await;
    let (_, mut demand) = world.assigner("a");
    for _ in 0..5 {
        world.publish().await;
    }
    let def = world.def.clone();
    let report =
        demand.wait_for(|r| r.definitions.get(&def).is_some_and(|d| d.due == 5)).await.unwrap().clone();
    assert_eq!((report.fresh, report.definitions[&def].assigned), (true, 0));
    world.worker(2, Behaviour::steady(Duration::from_secs(60)));
    let report =
        demand.wait_for(|r| r.definitions.get(&def).is_some_and(|d| d.assigned == 2)).await.unwrap().clone();
    assert_eq!(report.definitions[&def].due, 3);
    world.assigner_link.set_reachable(false);
    demand.wait_for(|r| !r.fresh).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn demand_is_fresh_again_after_an_interruption_in_which_nothing_happened() {
    let mut world = World::new(9).await;
    let (_, mut demand) = world.assigner("a");
    demand.wait_for(|r| r.fresh).await.unwrap();
    world.assigner_link.cut_watches();
    demand.wait_for(|r| !r.fresh).await.unwrap();
    let again = timeout(Duration::from_secs(5), demand.wait_for(|r| r.fresh));
    again.await.expect("nothing needs to be written for it").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_campaign_that_vanished_is_held_again() {
    for fault in [Fault::Drop, Fault::LoseAnswer, Fault::ApplyLate(Duration::from_millis(700))] {
        let mut world = World::new(10).await;
        let leader = format!("{}leader/", world.space.prefix());
        world.assigner_link.next_txn(puts(leader), fault);
        let (_, mut demand) = world.assigner("a");
        let leads = timeout(Duration::from_secs(5), demand.wait_for(|r| r.leading && r.fresh));
        leads.await.expect("somebody leads").unwrap();
    }
}

/// A task becomes due while the leader may not plan, since it waits for a list.
#[tokio::test(start_paused = true)]
async fn a_leader_that_waits_for_a_list_does_not_spin_when_a_task_becomes_due() {
    let mut world = World::new(12).await;
    let slow = Arc::new(SlowLists { link: world.assigner_link.clone(), by: Mutex::default() });
    let (config, entropy) = (AssignerConfig::default(), Arc::clone(&world.entropy));
    let assigner = Assigner::new(slow.clone(), world.space.clone(), config, entropy);
    world.tasks.spawn(polled_at_most(2000, assigner.run(CancellationToken::new())));
    world.worker(2, STEADY);
    sleep(Duration::from_secs(1)).await;
    let delay = Some(Delay::from_now(Duration::from_secs(1), clock::wall()));
    let later = TaskRecord { delay, ..records::task() };
    let publish = txn::publish(&world.space, &world.def, world.entropy.task_id(), &later);
    world.send(&world.store, publish).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    *slow.by.lock().unwrap() = Duration::from_secs(3);
    world.assigner_link.next_txn(puts(assignments(&world)), Fault::LoseAnswer);
    world.publish().await;
    world.until_settled(2).await;
    assert_eq!(world.assigner_link.pending(), 0, "the fault met its request");
    world.assert_lawful().await;
}

/// A registry whose disk is full is read, and refuses what is written.
#[tokio::test(start_paused = true)]
async fn a_leader_key_that_cannot_be_put_is_tried_again_with_waits() {
    let mut world = World::new(11).await;
    let leader = format!("{}leader/", world.space.prefix());
    let full = Arc::new(AtomicBool::new(true));
    for _ in 0..1000 {
        let (puts, full) = (puts(leader.clone()), Arc::clone(&full));
        world.assigner_link.next_txn(move |txn| full.load(Relaxed) && puts(txn), Fault::Refuse);
    }
    let (_, mut demand) = world.assigner("a");
    sleep(Duration::from_secs(60)).await;
    let refused = 1000 - world.assigner_link.pending();
    assert!((10..100).contains(&refused), "{refused} tries in a minute");
    full.store(false, Relaxed);
    let leads = timeout(Duration::from_secs(5), demand.wait_for(|r| r.leading && r.fresh));
    leads.await.expect("it leads once it may").unwrap();
}

/// Everything at once, by seed.
#[tokio::test(start_paused = true)]
async fn under_random_faults_nothing_is_lost_and_nothing_is_settled_twice() {
    const SEEDS: u64 = 200;
    let mut faults = 0;
    for seed in 0..SEEDS {
        faults += storm(100 + seed).await;
    }
    println!("{SEEDS} seeds, {faults} faults");
    assert!(faults > SEEDS * 20, "only {faults} faults in {SEEDS} seeds");
}

async fn storm(seed: u64) -> u64 {
    const TASKS: usize = 120;
    let mut world = World::new(seed).await;
    world.make_links_bad();
    let mut assigners = vec![world.assigner("a").0, world.assigner("b").0];
    let behaviour = Behaviour { takes: Duration::from_millis(300), fail: 100, hand_back: 100 };
    let mut kills: Vec<_> = (0..3).map(|_| world.worker(4, behaviour)).collect();
    for n in 0..TASKS {
        world.publish().await;
        match world.entropy.bits64() % 20 {
            0 => {
                // A worker dies without a word; another comes.
                kills.swap_remove(n % kills.len()).cancel();
                kills.push(world.worker(4, behaviour));
            }
            1 => {
                assigners.swap_remove(n % assigners.len()).cancel();
                assigners.push(world.assigner("next").0);
            }
            2 => world.assigner_link.cut_watches(),
            3 => world.compact().await,
            _ => sleep(Duration::from_millis(world.entropy.bits64() % 200)).await,
        }
    }
    world.until_settled(TASKS).await;
    world.assert_lawful().await;
    let injected: u64 = [world.assigner_link.injected(), world.worker_link.injected()]
        .iter()
        .flat_map(|kinds| kinds.values().copied())
        .sum();
    let leftover = world
        .entries()
        .await
        .iter()
        .filter(|e| {
            matches!(world.space.parse(&e.key), Ok(Key::Task(..) | Key::Assignment(..) | Key::Tally(..)))
        })
        .count();
    assert_eq!(leftover, 0, "seed {seed}: something is left of a settled task");
    injected
}
