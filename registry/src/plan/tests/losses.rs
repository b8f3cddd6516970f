//! What is written about tasks that lost their workers.

use super::*;
use crate::backend::{Op, OpAnswer, TxnAnswer};
use crate::record::{Ended, OutcomeRecord};
use crate::txn::Settled;

fn task() -> TaskId {
    TaskId::from_bits(1)
}

/// A task that a worker has, and what happened to it before.
fn running(tally: &Tally) -> Scene {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    scene.put(&Key::Tally(def(), task()), tally.encode());
    of_version(&mut scene, 1, "2");
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene
}

fn of_version(scene: &mut Scene, n: u64, version: &str) {
    let version = Some(version.to_owned());
    let record = WorkerRecord { slots: 1, state: WorkerState::Active, sdk: "0".into(), version };
    scene.put(&Key::Worker(def(), worker(n)), record.encode());
}

fn attempt(scene: &Scene) -> AttemptId {
    scene.view.definitions()[&def()].task(task()).unwrap().assignment().unwrap().attempt
}

#[test]
fn the_late_worker_of_a_task_parked_for_its_losses_does_not_find_itself_in_the_record() {
    let mut scene = running(&Tally { losses: 4, losses_alone: 2, ..Tally::default() });
    let lost = attempt(&scene);
    scene.delete(&Key::Worker(def(), worker(1)));
    let plan = scene.plan();
    let space = Keyspace::default();
    let step = &plan.steps[0].1;
    let Some(Written::Fetch(fetch)) =
        write(&space, &scene.view, &def(), step, &Entropy::seeded(1), &scene.now)
    else {
        panic!("{step:?}");
    };
    let entry =
        |key: Bytes, value: Bytes| Entry { key, value, create_revision: 1, mod_revision: 1, lease: None };
    let found = entry(space.path(&fetch.key()), crate::testkit::records::task().encode());
    let row = fetch.with(&space, &found).unwrap();
    let written = row.then.into_iter().find_map(|op| match op {
        Op::Put { key, value, .. } if matches!(space.parse(&key), Ok(Key::Outcome(..))) => {
            Some(entry(key, value))
        }
        _ => None,
    });
    let written = written.unwrap();
    let record = OutcomeRecord::decode(&written.value).unwrap();
    assert_eq!((record.ended, record.worker), (Ended::Parked, Some(worker(1))));
    let answers = vec![OpAnswer::Get(vec![written])];
    let late = TxnAnswer { revision: 2, succeeded: false, answers };
    assert_eq!(Settled::of(&late, lost), Settled::Fenced);
}

#[test]
fn a_task_lost_while_it_waits_for_another_version_begins_to_wait_anew() {
    let mut scene = running(&Tally { undecodable_by: vec!["1".into()], ..Tally::default() });
    scene.now.instant += 2 * versions::PATIENCE;
    scene.delete(&Key::Worker(def(), worker(1)));
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::Lost { .. })]), "{plan:?}");
    scene.carry_out(&plan);
    of_version(&mut scene, 2, "1");
    let plan = scene.plan();
    assert_eq!((given(&plan), plan.waiting[&def()]), (vec![], Waiting::NoOtherVersion));
    scene.now.instant += versions::PATIENCE;
    assert_eq!(given(&scene.plan()), [(task(), worker(2))]);
}
