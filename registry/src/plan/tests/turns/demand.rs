//! How many tasks, and slots, more workers would help.

use super::*;
use crate::demand;

#[test]
fn demand_says_the_slots_of_what_runs_and_of_what_could() {
    let mut scene = Scene::new(Mode::Active);
    scene.worker(1, 4, WorkerState::Active);
    scene.task(1, heavy(3));
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.task(2, heavy(2));
    let plan = scene.plan();
    let report = demand::report(&scene.view, &Assumed::default(), &plan, scene.now.instant);
    let demand = &report[&def()];
    assert_eq!((demand.assigned, demand.assigned_slots, demand.wanted), (1, 3, 5));
}

#[test]
fn what_a_limit_holds_back_is_no_demand() {
    let startable = |scene: &mut Scene, assumed: &Assumed| {
        scene.view.pass(&scene.now);
        startable(&def(), &scene.view.definitions()[&def()], assumed, scene.now.instant)
    };
    let mut scene = Scene::new(Mode::Active);
    for id in 1..=50 {
        scene.task(id, keyed(if id <= 40 { "a" } else { "b" }));
    }
    let assumed = Assumed::default();
    assert_eq!(startable(&mut scene, &assumed), 50);
    scene.limited(Some(20), None);
    assert_eq!(startable(&mut scene, &assumed), 20);
    scene.limited(None, Some(5));
    assert_eq!(startable(&mut scene, &assumed), 10, "five of each key");
    scene.rated(Some(7), None, Span::secs(1));
    assert_eq!(startable(&mut scene, &assumed), 7);
    scene.rated(None, Some(15), Span::secs(1));
    assert_eq!(startable(&mut scene, &assumed), 25, "fifteen of a, all ten of b");
    let later = Assumed::of_a_new_leader(scene.now.instant);
    assert_eq!(startable(&mut scene, &later), 0);
}

/// Sets a limit.
type Limit = fn(&mut Scene);

#[test]
fn a_task_on_its_way_to_a_worker_is_demand_and_is_counted_once() {
    let demand = |scene: &mut Scene, assumed: &Assumed| {
        let plan = scene.plan_with(assumed);
        let mut all = demand::report(&scene.view, assumed, &plan, scene.now.instant);
        let demand = all.remove(&def()).unwrap();
        assert_eq!(demand.wanted, 2 * (demand.startable + demand.assigned), "{demand:?}");
        (demand.due, demand.startable, demand.assigned)
    };
    let limits: [(usize, Limit); 5] = [
        (3, |_| {}),
        (1, |scene| scene.limited(Some(1), None)),
        (1, |scene| scene.limited(None, Some(1))),
        (1, |scene| scene.rated(Some(1), None, Span::secs(1))),
        (1, |scene| scene.rated(None, Some(1), Span::secs(1))),
    ];
    for (at_once, limit) in limits {
        let (mut scene, mut assumed) = (Scene::new(Mode::Active), Assumed::default());
        limit(&mut scene);
        for id in 1..=3 {
            scene.task(id, TaskOptions { key: key("a"), ..heavy(2) });
        }
        scene.worker(1, 2, WorkerState::Active);
        assert_eq!(demand(&mut scene, &assumed), (3, at_once, 0));
        let plan = scene.plan_with(&assumed);
        assumed.sent(&def(), &plan.steps[0].1);
        assert_eq!(demand(&mut scene, &assumed), (2, at_once - 1, 1), "sent");
        scene.carry_out(&plan);
        assert_eq!(demand(&mut scene, &assumed), (2, at_once - 1, 1), "seen before the answer");
    }
}
