//! What is planned about requests.

use super::*;
use crate::record::{Ask, RequestRecord};

fn task() -> TaskId {
    TaskId::from_bits(1)
}

fn ask(scene: &mut Scene, id: TaskId, ask: Ask) {
    let record = RequestRecord { ask, asked: clock::WallMillis(0) };
    scene.put(&Key::Request(def(), id), record.encode());
}

fn steps(scene: &mut Scene) -> Vec<Step> {
    scene.plan().steps.into_iter().map(|(_, step)| step).collect()
}

#[test]
fn a_waiting_task_is_cancelled_and_not_given_out() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=2);
    ask(&mut scene, task(), Ask::Cancel);
    scene.worker(1, 4, WorkerState::Active);
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::Cancel { .. }), (_, Step::Assign { .. })]), "{plan:?}");
    scene.carry_out(&plan);
    assert_eq!(steps(&mut scene), []);
    let definition = &scene.view.definitions()[&def()];
    assert!(definition.task(task()).is_none() && definition.request(task()).is_none());
}

#[test]
fn a_running_task_is_flagged_once_and_cancelled_when_it_waits_again() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    scene.worker(1, 1, WorkerState::Active);
    let given = scene.plan();
    scene.carry_out(&given);
    ask(&mut scene, task(), Ask::Cancel);
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::FlagCancel { .. })]), "{plan:?}");
    scene.carry_out(&plan);
    assert_eq!(steps(&mut scene), [], "it was told: now it is its worker's turn");
    scene.delete(&Key::Worker(def(), worker(1)));
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::Lost { .. })]), "{plan:?}");
    scene.carry_out(&plan);
    assert!(matches!(steps(&mut scene)[..], [Step::Cancel { .. }]));
}

#[test]
fn a_hopeless_task_that_somebody_cancels_is_not_parked() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    let tally = Tally { losses: 4, losses_alone: 2, ..Tally::default() };
    scene.put(&Key::Tally(def(), task()), tally.encode());
    scene.worker(1, 2, WorkerState::Active);
    let given = scene.plan();
    scene.carry_out(&given);
    ask(&mut scene, task(), Ask::Cancel);
    scene.delete(&Key::Worker(def(), worker(1)));
    assert!(matches!(steps(&mut scene)[..], [Step::Lost { .. }]));
}

#[test]
fn a_request_about_nothing_or_about_a_singleton_is_dropped() {
    let mut scene = Scene::new(Mode::Hold);
    scene.tasks(1..=1);
    let id = TaskId::from_bits(9);
    ask(&mut scene, id, Ask::Cancel);
    assert!(matches!(steps(&mut scene)[..], [Step::DropRequest { task, .. }] if task == id));
    let plan = scene.plan();
    scene.carry_out(&plan);
    ask(&mut scene, TaskId::SINGLETON, Ask::Cancel);
    assert!(matches!(steps(&mut scene)[..], [Step::DropRequest { .. }]));
}

#[test]
fn a_flood_of_requests_leaves_room_for_work() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=5);
    scene.worker(1, 4, WorkerState::Active);
    for bits in 1000..1500 {
        ask(&mut scene, TaskId::from_bits(bits), Ask::Cancel);
    }
    let plan = scene.plan();
    assert_eq!(given(&plan).len(), 4);
    assert!(plan.steps.len() < MAX_STEPS);
}

#[test]
fn nothing_asked_is_done_while_a_request_about_the_task_is_under_way() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    scene.worker(1, 1, WorkerState::Active);
    let mut assumed = Assumed::default();
    assumed.sent(&def(), &scene.plan().steps[0].1);
    ask(&mut scene, task(), Ask::Cancel);
    assert_eq!(assign(&scene.view, &assumed, &scene.now).steps, []);
}
