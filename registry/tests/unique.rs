//! Unique keys under faults at the waist: rivals for few keys, lost and late answers,
//! workers that die, assigners that take over. The history of every change is judged.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_registry::key::Key;
use bellows_registry::record::{HeldUntil, TaskOptions, TaskRecord, Unique, UniqueKey};
use bellows_registry::testkit::records;
use bellows_registry::txn::{self, Holder, Published, Replaced};
use futures::future::join_all;
use tokio::time::{sleep, timeout};
use world::{Behaviour, World};

/// What became of publishes, by a word.
type Count = BTreeMap<&'static str, u32>;

/// Publishes one task under one of few keys, as the SDK does: until an answer says what
/// became of it.
async fn publish(world: &World) -> &'static str {
    let bits = world.entropy.bits64();
    let until = if bits.is_multiple_of(2) { HeldUntil::Ended } else { HeldUntil::Begun };
    let unique = Unique { key: UniqueKey::of(until, &[(bits >> 8) as u8 % 3]), until };
    let options = TaskOptions { unique: Some(unique), ..TaskOptions::default() };
    let record = TaskRecord { options, ..records::task() };
    let (id, mut pending) = (world.entropy.task_id(), None::<Holder>);
    loop {
        let row = match &pending {
            None => txn::publish(&world.space, &world.def, id, &record),
            Some(holder) => txn::replace(&world.space, &world.def, holder, &record),
        };
        let Ok(answer) = world.send(&world.worker_link, row).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        if let Some(holder) = pending {
            match Replaced::of(&answer, &holder) {
                Replaced::Done => return "replaced",
                Replaced::Changed => pending = None,
                Replaced::Closed => panic!("the definition is open"),
            }
            continue;
        }
        match Published::of(&answer) {
            Published::Created => return "created",
            Published::Already => return "already",
            Published::Held(holder) if until == HeldUntil::Begun => pending = Some(holder),
            Published::Held(_) => return "held",
            other => panic!("the definition is open: {other:?}"),
        }
    }
}

/// How many tasks have not ended.
async fn unfinished(world: &World) -> usize {
    let entries = world.entries().await;
    entries.iter().filter(|entry| matches!(world.space.parse(&entry.key), Ok(Key::Task(..)))).count()
}

async fn storm(seed: u64) -> Count {
    let mut world = World::new(seed).await;
    world.make_links_bad();
    let mut assigners = vec![world.assigner("a").0, world.assigner("b").0];
    let behaviour = Behaviour { takes: Duration::from_millis(300), fail: 100, hand_back: 100 };
    let mut kills: Vec<_> = (0..2).map(|_| world.worker(1, behaviour)).collect();
    let mut count = Count::new();
    for n in 0..40 {
        for what in join_all((0..3).map(|_| publish(&world))).await {
            *count.entry(what).or_default() += 1;
        }
        match world.entropy.bits64() % 10 {
            0 => {
                kills.swap_remove(n % kills.len()).cancel();
                kills.push(world.worker(1, behaviour));
            }
            1 => {
                assigners.swap_remove(n % assigners.len()).cancel();
                assigners.push(world.assigner("next").0);
            }
            2 => world.assigner_link.cut_watches(),
            _ => sleep(Duration::from_millis(world.entropy.bits64() % 400)).await,
        }
    }
    // What was sent may arrive late, and be one more task.
    let calm = async {
        loop {
            sleep(Duration::from_secs(5)).await;
            if unfinished(&world).await == 0 {
                sleep(Duration::from_secs(5)).await;
                if unfinished(&world).await == 0 {
                    return;
                }
            }
        }
    };
    timeout(Duration::from_secs(3600), calm).await.unwrap_or_else(|_| panic!("seed {seed}: never at rest"));
    let history = world.assert_lawful().await;
    assert_eq!(history.created().len(), history.settled().len(), "seed {seed}");
    let kept = world.entries().await;
    let keys = kept.iter().filter(|entry| matches!(world.space.parse(&entry.key), Ok(Key::Unique(..))));
    assert_eq!(keys.count(), 0, "seed {seed}: every task has ended, and every key is free");
    count
}

#[tokio::test(start_paused = true)]
async fn under_random_faults_a_unique_key_has_one_holder_and_is_free_in_the_end() {
    let mut count = Count::new();
    for seed in 0..30 {
        for (what, many) in storm(500 + seed).await {
            *count.entry(what).or_default() += many;
        }
    }
    println!("30 seeds: {count:?}");
    for what in ["created", "already", "held", "replaced"] {
        assert!(count.get(what).is_some_and(|many| *many > 30), "hardly anything was {what}: {count:?}");
    }
}
