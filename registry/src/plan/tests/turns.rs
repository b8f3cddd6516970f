//! Tables for priority, turns, limits, rates and weight.

mod demand;

use std::time::Duration;

use super::*;
use crate::record::{FairnessKey, Priority, TaskOptions, Weight};
use crate::spec::{ConcurrencyLimit, Execution, Pace, RateLimit, Span};

fn key(text: &str) -> Option<FairnessKey> {
    Some(FairnessKey::new(text).unwrap())
}

fn keyed(text: &str) -> TaskOptions {
    TaskOptions { key: key(text), ..TaskOptions::default() }
}

fn heavy(slots: u32) -> TaskOptions {
    TaskOptions { weight: Weight::new(slots).unwrap(), ..TaskOptions::default() }
}

impl Scene {
    fn task(&mut self, id: u128, options: TaskOptions) {
        let record = TaskRecord { options, ..crate::testkit::records::task() };
        self.put(&Key::Task(def(), TaskId::from_bits(id)), record.encode());
    }

    fn execution(&mut self, execution: Execution) {
        let policy = Policy { execution, ..Policy::default() };
        policy.check().unwrap();
        let record = PolicyRecord { uid: "u".into(), generation: 2, state: PolicyState::Active, policy };
        self.put(&Key::Policy(def()), record.encode());
    }

    fn limited(&mut self, total: Option<u32>, per_key: Option<u32>) {
        let concurrency_limit = Some(ConcurrencyLimit { total, per_key });
        self.execution(Execution { concurrency_limit, ..Execution::default() });
    }

    fn rated(&mut self, tasks: Option<u32>, per_key: Option<u32>, per: Span) {
        let rate_limit = Some(RateLimit { tasks, per_key, per });
        self.execution(Execution { rate_limit, ..Execution::default() });
    }

    fn plan_with(&mut self, assumed: &Assumed) -> Plan {
        self.view.pass(&self.now);
        assign(&self.view, assumed, &self.now)
    }

    /// Plans and counts the plan as sent and applied now, unseen.
    fn send(&mut self, assumed: &mut Assumed) -> Vec<u128> {
        let plan = self.plan_with(assumed);
        for (def, step) in &plan.steps {
            assumed.sent(def, step);
            if let Some(lane) = step.turn_of() {
                self.view.gave(def, lane);
            }
            assumed.applied(def, step.task(), Revision::MAX, self.now.instant);
        }
        ids(&plan)
    }

    fn end(&mut self, id: u128) {
        let task = TaskId::from_bits(id);
        let held = self.view.definitions()[&def()].task(task).unwrap().assignment().unwrap().clone();
        self.delete(&Key::Assignment(def(), held.worker, task, held.attempt));
        self.delete(&Key::Task(def(), task));
    }
}

fn ids(plan: &Plan) -> Vec<u128> {
    given(plan).iter().map(|(task, _)| task.bits()).collect()
}

#[test]
fn the_more_urgent_goes_first_and_waiting_makes_up_for_priority() {
    let mut scene = Scene::new(Mode::Active);
    let urgent = |level| TaskOptions { priority: Priority::new(level).unwrap(), ..TaskOptions::default() };
    scene.task(1, urgent(5));
    scene.task(2, urgent(1));
    scene.task(3, urgent(9));
    scene.worker(1, 10, WorkerState::Active);
    assert_eq!(ids(&scene.plan()), [3, 1, 2]);
    // A level is worth ten minutes: one of the lowest is overtaken by the highest only
    // until it has waited eight times that long.
    scene.now.instant += Priority::AGEING * 8 - Duration::from_secs(1);
    scene.task(4, urgent(9));
    assert_eq!(ids(&scene.plan()), [3, 1, 4, 2]);
    scene.now.instant += Duration::from_secs(2);
    scene.task(5, urgent(9));
    assert_eq!(ids(&scene.plan()), [3, 1, 4, 2, 5]);
}

#[test]
fn keys_take_turns_and_a_key_with_a_larger_share_has_more_of_them() {
    let mut scene = Scene::new(Mode::Active);
    for id in 1..=6 {
        scene.task(id, keyed("many"));
    }
    scene.task(7, keyed("few"));
    scene.task(8, TaskOptions::default());
    scene.task(9, keyed("few"));
    scene.worker(1, 10, WorkerState::Active);
    assert_eq!(ids(&scene.plan()), [1, 7, 8, 2, 9, 3, 4, 5, 6]);
    let key_shares = [("many".to_owned(), 3)].into();
    scene.execution(Execution { key_shares, ..Execution::default() });
    assert_eq!(ids(&scene.plan()), [1, 2, 3, 7, 8, 4, 5, 6, 9]);
}

#[test]
fn turns_go_on_from_plan_to_plan_seen_or_not() {
    let mut scene = Scene::new(Mode::Active);
    for id in 1..=4 {
        scene.task(id, keyed("a"));
    }
    scene.task(11, keyed("b"));
    scene.task(12, keyed("b"));
    scene.worker(1, 1, WorkerState::Active);
    let mut assumed = Assumed::default();
    assert_eq!(scene.send(&mut assumed), [1]);
    scene.worker(2, 1, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [11], "it is b's turn");
    scene.worker(3, 2, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [2, 12], "and a's again");
    scene.view.refused(&def(), &key("a"));
    scene.task(21, keyed("c"));
    scene.worker(4, 1, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [3], "what was refused was no turn");
}

#[test]
fn a_lowered_share_does_not_put_a_key_behind_for_ever() {
    let mut scene = Scene::new(Mode::Active);
    let shares = |share| Execution { key_shares: [("a".to_owned(), share)].into(), ..Execution::default() };
    scene.execution(shares(3));
    for id in 1..=4 {
        scene.task(id, keyed("a"));
        scene.task(id + 10, keyed("b"));
    }
    scene.worker(1, 2, WorkerState::Active);
    let mut assumed = Assumed::default();
    assert_eq!(scene.send(&mut assumed), [1, 2]);
    scene.execution(shares(1));
    scene.worker(2, 2, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [3, 11]);
}

#[test]
fn a_turn_begun_under_a_larger_share_is_counted_the_same_by_a_plan_and_by_the_view() {
    let mut scene = Scene::new(Mode::Active);
    let shares = |share| Execution { key_shares: [("a".to_owned(), share)].into(), ..Execution::default() };
    scene.execution(shares(3));
    for id in 1..=5 {
        scene.task(id, keyed("a"));
        scene.task(id + 10, keyed("b"));
    }
    scene.worker(1, 2, WorkerState::Active);
    let mut assumed = Assumed::default();
    assert_eq!(scene.send(&mut assumed), [1, 2]);
    scene.execution(shares(2));
    scene.worker(2, 1, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [3]);
    scene.worker(3, 2, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [4, 11], "two in a turn, whoever counts");
}

#[test]
fn a_key_at_its_limit_holds_up_no_other_and_says_why() {
    let mut scene = Scene::new(Mode::Active);
    scene.limited(None, Some(1));
    for id in 1..=100 {
        scene.task(id, keyed("a"));
    }
    scene.task(101, keyed("b"));
    scene.worker(1, 10, WorkerState::Active);
    let plan = scene.plan();
    assert_eq!((ids(&plan), plan.waiting[&def()]), (vec![1, 101], Waiting::KeyConcurrencyLimit));
    scene.carry_out(&plan);
    assert_eq!(scene.plan().waiting[&def()], Waiting::KeyConcurrencyLimit);
    scene.end(1);
    assert_eq!(ids(&scene.plan()), [2]);
    // A policy applies at once.
    scene.limited(None, Some(3));
    assert_eq!(ids(&scene.plan()), [2, 3, 4]);
}

#[test]
fn limits_count_what_is_sent_and_not_seen() {
    let mut scene = Scene::new(Mode::Active);
    scene.limited(Some(3), Some(2));
    for id in 1..=3 {
        scene.task(id, keyed("a"));
        scene.task(id + 10, keyed("b"));
    }
    scene.worker(1, 1, WorkerState::Active);
    let mut assumed = Assumed::default();
    assert_eq!(scene.send(&mut assumed), [1]);
    scene.worker(2, 10, WorkerState::Active);
    assert_eq!(scene.send(&mut assumed), [11, 2]);
    let plan = scene.plan_with(&assumed);
    assert_eq!((ids(&plan), plan.waiting[&def()]), (vec![], Waiting::ConcurrencyLimit));
    scene.limited(Some(10), Some(2));
    assert_eq!(scene.send(&mut assumed), [12], "a has two, b has one");
    assert_eq!(scene.plan_with(&assumed).waiting[&def()], Waiting::KeyConcurrencyLimit);
}

#[test]
fn a_rate_is_kept_in_any_time_of_its_length_and_the_plan_asks_to_be_woken() {
    let mut scene = Scene::new(Mode::Active);
    scene.rated(Some(3), Some(2), Span::secs(1));
    for id in 1..=9 {
        scene.task(id, keyed("a"));
    }
    scene.task(11, keyed("b"));
    scene.worker(1, 100, WorkerState::Active);
    let mut assumed = Assumed::default();
    let start = scene.now.instant;
    assert_eq!(scene.send(&mut assumed), [1, 11, 2]);
    scene.task(12, keyed("b"));
    let plan = scene.plan_with(&assumed);
    assert_eq!((ids(&plan), plan.waiting[&def()]), (vec![], Waiting::RateLimit));
    assert_eq!(plan.wake, Some(start + Duration::from_secs(1)));
    scene.now.instant = start + Duration::from_millis(999);
    assert_eq!(scene.send(&mut assumed), Vec::<u128>::new());
    scene.now.instant = start + Duration::from_secs(1);
    assert_eq!(scene.send(&mut assumed).len(), 3, "the window is over");
    scene.rated(None, Some(2), Span::secs(1));
    let plan = scene.plan_with(&assumed);
    assert_eq!(plan.waiting[&def()], Waiting::KeyRateLimit, "keys are counted apart");
    assert!(plan.wake.is_some_and(|at| at > scene.now.instant));
}

#[test]
fn a_new_leader_counts_a_rate_as_used_up_and_an_unknown_outcome_counts_as_given() {
    let mut scene = Scene::new(Mode::Active);
    scene.rated(Some(2), None, Span::secs(8));
    for id in 1..=9 {
        scene.task(id, TaskOptions::default());
    }
    scene.worker(1, 100, WorkerState::Active);
    let mut assumed = Assumed::of_a_new_leader(scene.now.instant);
    let plan = scene.plan_with(&assumed);
    assert_eq!((ids(&plan), plan.waiting[&def()]), (vec![], Waiting::RateLimit));
    let known = scene.now.instant + Duration::from_secs(8);
    assert_eq!(plan.wake, Some(known));
    scene.now.instant = known;
    let plan = scene.plan_with(&assumed);
    assert_eq!(ids(&plan), [1, 2]);
    assumed.sent(&def(), &plan.steps[0].1);
    assumed.sent(&def(), &plan.steps[1].1);
    assumed.refused(&def(), TaskId::from_bits(2), Revision::MAX, scene.now.instant, scene.now.instant);
    assumed.clear(scene.now.instant); // 1 may have been given out, and have ended
    assert_eq!(ids(&scene.plan_with(&assumed)).len(), 1, "only what was refused may be given again");
}

#[test]
fn a_long_rate_costs_a_new_leader_only_a_part_of_its_time() {
    let mut scene = Scene::new(Mode::Active);
    scene.rated(Some(100), None, Span::secs(3600));
    scene.task(1, TaskOptions::default());
    scene.worker(1, 1, WorkerState::Active);
    let assumed = Assumed::of_a_new_leader(scene.now.instant);
    let part = Pace::of(100, Duration::from_secs(3600)).per;
    assert_eq!(scene.plan_with(&assumed).wake, Some(scene.now.instant + part));
    assert_eq!(part, Duration::from_secs(36));
}

#[test]
fn a_heavy_task_takes_several_slots_of_one_worker_and_lighter_ones_do_not_starve_it() {
    let mut scene = Scene::new(Mode::Active);
    scene.worker(1, 4, WorkerState::Active);
    scene.task(1, heavy(2));
    scene.task(2, TaskOptions::default());
    let plan = scene.plan();
    assert_eq!(ids(&plan), [1, 2]);
    scene.carry_out(&plan);
    scene.task(3, heavy(4));
    for id in 4..=9 {
        scene.task(id, TaskOptions::default());
    }
    assert_eq!(ids(&scene.plan()), Vec::<u128>::new(), "the worker is kept back until it is empty");
    scene.worker(2, 2, WorkerState::Active);
    assert_eq!(ids(&scene.plan()), [4, 5], "others go where the heavy one does not fit");
    scene.end(1);
    scene.end(2);
    assert_eq!(ids(&scene.plan())[0], 3);
}

#[test]
fn the_last_place_of_a_key_is_kept_for_its_heavy_task() {
    let mut scene = Scene::new(Mode::Active);
    scene.limited(None, Some(1));
    scene.worker(1, 2, WorkerState::Active);
    scene.task(1, keyed("b"));
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.task(2, TaskOptions { key: key("a"), ..heavy(2) });
    scene.task(3, keyed("a"));
    scene.worker(2, 1, WorkerState::Active);
    assert_eq!(ids(&scene.plan()), Vec::<u128>::new(), "its lighter one would take the only place");
    scene.end(1);
    assert_eq!(ids(&scene.plan()), [2]);
}

#[test]
fn a_task_heavier_than_any_worker_waits_and_says_so_and_holds_up_nobody() {
    let mut scene = Scene::new(Mode::Active);
    scene.worker(1, 2, WorkerState::Active);
    scene.task(1, heavy(3));
    scene.task(2, TaskOptions::default());
    let plan = scene.plan();
    assert_eq!((ids(&plan), plan.waiting[&def()]), (vec![2], Waiting::TooHeavy));
}

#[test]
fn keys_at_their_limit_cost_a_plan_nothing() {
    let mut scene = Scene::new(Mode::Active);
    scene.limited(None, Some(1));
    for id in 0..2_000 {
        scene.task(id, keyed(&format!("k{}", id % 100)));
    }
    scene.worker(1, 1000, WorkerState::Active);
    let plan = scene.plan();
    assert_eq!(ids(&plan).len(), 100);
    scene.carry_out(&plan);
    assert_eq!(scene.view.definitions()[&def()].lanes().ring().count(), 0, "there is nothing to look at");
    assert_eq!(scene.plan().steps, []);
}
