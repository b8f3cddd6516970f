//! Tables for the planner; the property tests are in `tests/laws`.

mod asked;
mod losses;
mod turns;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::backend::{Changes, Entry};
use crate::clock;
use crate::entropy::Entropy;
use crate::key::{Key, Keyspace};
use crate::record::{
    Delay, OpenRecord, PolicyRecord, PolicyState, Record, Tally, TaskRecord, WorkerRecord, WorkerState,
};
use crate::spec::{Mode, Policy};

struct Scene {
    view: View,
    now: Now,
    revision: Revision,
}

fn def() -> DefinitionId {
    DefinitionId::new("media", "resize").unwrap()
}

fn worker(n: u64) -> WorkerId {
    WorkerId::for_session(&format!("pod-{n}"), n).unwrap()
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let mut scene = Self { view: View::new(Keyspace::default()), now: clock::now(), revision: 0 };
        let policy = Policy { mode, ..Policy::default() };
        let record = PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy };
        scene.put(&Key::Policy(def()), record.encode());
        scene.put(&Key::Open(def()), OpenRecord { uid: "u".into() }.encode());
        scene
    }

    fn put(&mut self, key: &Key, value: Bytes) {
        self.revision += 1;
        let revision = self.revision;
        let key = Keyspace::default().path(key);
        let entry = Entry { key, value, create_revision: revision, mod_revision: revision, lease: None };
        let changes = vec![crate::backend::Change::Put(entry)];
        self.view.apply(&Changes { complete: revision, changes }, &self.now);
    }

    fn delete(&mut self, key: &Key) {
        self.revision += 1;
        let (key, revision) = (Keyspace::default().path(key), self.revision);
        let changes = vec![crate::backend::Change::Delete { key, revision }];
        self.view.apply(&Changes { complete: revision, changes }, &self.now);
    }

    fn tasks(&mut self, ids: std::ops::RangeInclusive<u128>) {
        for id in ids {
            let record = TaskRecord {
                slot: crate::id::ResultSlot::from_bits(1),
                published: clock::WallMillis(0),
                delay: None,
                headers: BTreeMap::new(),
                options: crate::record::TaskOptions::default(),
                payload: Bytes::from_static(b"{}"),
            };
            self.put(&Key::Task(def(), TaskId::from_bits(id)), record.encode());
        }
    }

    fn worker(&mut self, n: u64, slots: u32, state: WorkerState) {
        let record = WorkerRecord { slots, state, sdk: "0".into(), version: None };
        self.put(&Key::Worker(def(), worker(n)), record.encode());
    }

    fn plan(&mut self) -> Plan {
        self.view.pass(&self.now);
        assign(&self.view, &Assumed::default(), &self.now)
    }

    /// Carries a plan out, as a registry without rivals would.
    fn carry_out(&mut self, plan: &Plan) {
        let entropy = Entropy::seeded(self.revision as u64);
        for (id, step) in &plan.steps {
            let space = Keyspace::default();
            let written = write(&space, &self.view, id, step, &entropy, &self.now).unwrap();
            let Written::Move(row) = written else { panic!("{written:?}") };
            for op in row.then {
                match op {
                    crate::backend::Op::Put { key, value, .. } => {
                        self.put(&space.parse(&key).unwrap(), value);
                    }
                    crate::backend::Op::Delete(range) => self.delete(&space.parse(&range.start).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn given(plan: &Plan) -> Vec<(TaskId, WorkerId)> {
    let assigned = plan.steps.iter().filter_map(|(_, step)| match step {
        Step::Assign { task, worker, .. } => Some((*task, worker.clone())),
        _ => None,
    });
    assigned.collect()
}

#[test]
fn tasks_go_to_the_freest_workers_oldest_first_and_the_rest_waits() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=5);
    scene.worker(1, 1, WorkerState::Active);
    scene.worker(2, 3, WorkerState::Active);
    let plan = scene.plan();
    let tasks: Vec<u128> = given(&plan).iter().map(|(task, _)| task.bits()).collect();
    assert_eq!(tasks, [1, 2, 3, 4]);
    let workers: BTreeSet<WorkerId> = given(&plan).into_iter().map(|(_, w)| w).collect();
    assert_eq!(workers.len(), 2);
    assert_eq!(plan.waiting[&def()], Waiting::NoFreeSlot);
}

#[test]
fn planning_again_after_carrying_a_plan_out_gives_nothing_to_do() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=9);
    for n in 1..=3 {
        scene.worker(n, 2, WorkerState::Active);
    }
    let plan = scene.plan();
    assert_eq!(plan.steps.len(), 6);
    scene.carry_out(&plan);
    assert_eq!(scene.plan().steps, []);
}

#[test]
fn a_draining_or_cordoned_worker_and_a_definition_on_hold_get_nothing() {
    for state in [WorkerState::Draining, WorkerState::Cordoned] {
        let mut scene = Scene::new(Mode::Active);
        scene.tasks(1..=1);
        scene.worker(1, 1, state);
        assert_eq!(scene.plan().steps, []);
        assert_eq!(scene.plan().waiting[&def()], Waiting::NoWorkers);
    }
    let mut scene = Scene::new(Mode::Hold);
    scene.tasks(1..=1);
    scene.worker(1, 1, WorkerState::Active);
    assert_eq!(scene.plan().waiting[&def()], Waiting::OnHold);
}

#[test]
fn tasks_of_a_deleted_definition_wait_for_it_to_come_back() {
    for (state, given) in [
        (PolicyState::Retained, 0),
        (PolicyState::Purging, 0),
        (PolicyState::Draining, 1),
        (PolicyState::Active, 1),
    ] {
        let mut scene = Scene::new(Mode::Active);
        scene.tasks(1..=1);
        scene.worker(1, 1, WorkerState::Active);
        let record = PolicyRecord { uid: "u".into(), generation: 2, state, policy: Policy::default() };
        scene.put(&Key::Policy(def()), record.encode());
        assert_eq!(scene.plan().steps.len(), given, "{state:?}");
    }
}

#[test]
fn an_assumed_slot_is_not_given_away_again_until_the_view_has_passed_the_answer() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=2);
    scene.worker(1, 1, WorkerState::Active);
    let mut assumed = Assumed::default();
    let plan = scene.plan();
    assumed.sent(&def(), &plan.steps[0].1);
    assert_eq!(assign(&scene.view, &assumed, &scene.now).steps, []);
    assumed.applied(&def(), TaskId::from_bits(1), scene.revision + 1, scene.now.instant);
    assumed.end_passed(scene.view.revision(), scene.now.instant);
    assert_eq!(assign(&scene.view, &assumed, &scene.now).steps, [], "the view is not there yet");
    scene.carry_out(&plan);
    assumed.end_passed(scene.view.revision(), scene.now.instant);
    assert!(assumed.is_empty());
    assert_eq!(assign(&scene.view, &assumed, &scene.now).steps, [], "the slot is taken in the view now");
}

#[test]
fn a_dead_workers_task_comes_back_as_a_loss_and_costs_no_attempt() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    scene.worker(1, 1, WorkerState::Active);
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.delete(&Key::Worker(def(), worker(1)));
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::Lost { .. })]), "{plan:?}");
    scene.carry_out(&plan);
    let tally = scene.view.definitions()[&def()].task(TaskId::from_bits(1)).unwrap().tally();
    assert_eq!((tally.attempts, tally.losses, tally.losses_alone), (0, 1, 0));
}

#[test]
fn a_suspect_task_waits_for_an_idle_worker_and_has_it_to_itself() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=3);
    scene.put(&Key::Tally(def(), TaskId::from_bits(1)), Tally { losses: 2, ..Tally::default() }.encode());
    scene.worker(1, 2, WorkerState::Active);
    let plan = scene.plan();
    assert_eq!(given(&plan), [(TaskId::from_bits(1), worker(1))], "the whole worker is taken");
    let alone =
        |step: &Step| matches!(step, Step::Assign { class, .. } if class.isolation == Isolation::Alone);
    assert!(alone(&plan.steps[0].1));
    scene.carry_out(&plan);
    scene.worker(2, 2, WorkerState::Active);
    assert_eq!(given(&scene.plan()).len(), 2, "its neighbours go elsewhere");
}

#[test]
fn a_task_that_keeps_losing_workers_while_alone_is_parked() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    let tally = Tally { losses: 4, losses_alone: 2, ..Tally::default() };
    scene.put(&Key::Tally(def(), TaskId::from_bits(1)), tally.encode());
    scene.worker(1, 2, WorkerState::Active);
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.delete(&Key::Worker(def(), worker(1)));
    assert!(matches!(scene.plan().steps[..], [(_, Step::LostForGood { .. })]));
}

#[test]
fn a_singleton_is_never_given_up() {
    let mut scene = Scene::new(Mode::Active);
    let record = TaskRecord {
        slot: crate::id::ResultSlot::from_bits(1),
        published: clock::WallMillis(0),
        delay: None,
        headers: BTreeMap::new(),
        options: crate::record::TaskOptions::default(),
        payload: Bytes::new(),
    };
    scene.put(&Key::Task(def(), TaskId::SINGLETON), record.encode());
    let tally = Tally { losses: 9, losses_alone: 9, ..Tally::default() };
    scene.put(&Key::Tally(def(), TaskId::SINGLETON), tally.encode());
    scene.worker(1, 2, WorkerState::Active);
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.delete(&Key::Worker(def(), worker(1)));
    assert!(matches!(scene.plan().steps[..], [(_, Step::Lost { .. })]));
}

#[test]
fn a_task_held_beyond_every_bound_is_taken_back_from_a_living_worker() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=1);
    scene.worker(1, 1, WorkerState::Active);
    let plan = scene.plan();
    scene.carry_out(&plan);
    let wake = scene.plan().wake.expect("the planner asks to be woken for it");
    scene.now.instant = wake;
    let plan = scene.plan();
    assert!(matches!(plan.steps[..], [(_, Step::TakeBack { .. })]));
    scene.carry_out(&plan);
    let tally = scene.view.definitions()[&def()].task(TaskId::from_bits(1)).unwrap().tally();
    let says = tally.errors[0].message.clone();
    let held = "held the task for longer than its time-out allows: it was taken back";
    assert_eq!((says, tally.losses), (format!("worker {} {held}", worker(1)), 1));
}

#[test]
fn younger_tasks_do_not_keep_a_suspect_from_ever_finding_an_idle_worker() {
    let mut scene = Scene::new(Mode::Active);
    scene.worker(1, 2, WorkerState::Active);
    scene.tasks(1..=1);
    let plan = scene.plan();
    scene.carry_out(&plan);
    scene.tasks(2..=4);
    let suspect = Tally { losses: 2, ..Tally::default() };
    scene.put(&Key::Tally(def(), TaskId::from_bits(2)), suspect.encode());
    let plan = scene.plan();
    assert_eq!(given(&plan), [], "the only worker is kept back until it is idle");
    assert_eq!(plan.waiting[&def()], Waiting::NoFreeSlot);
}

#[test]
fn a_task_waits_for_a_worker_of_another_version_and_holds_nobody_up() {
    let mut scene = Scene::new(Mode::Active);
    scene.tasks(1..=2);
    let odd = TaskId::from_bits(1);
    let tally = Tally {
        undecodable_by: vec!["1".into()],
        delay: Some(Delay::from_now(Duration::ZERO, scene.now.wall)),
        ..Tally::default()
    };
    scene.put(&Key::Tally(def(), odd), tally.encode());
    let of_version = |scene: &mut Scene, bits: u64, version: &str| {
        let version = Some(version.to_owned());
        let record = WorkerRecord { slots: 4, state: WorkerState::Active, sdk: "0".into(), version };
        scene.put(&Key::Worker(def(), worker(bits)), record.encode());
    };
    of_version(&mut scene, 1, "1");
    let plan = scene.plan();
    assert_eq!(given(&plan), [(TaskId::from_bits(2), worker(1))], "its neighbour is given out");
    assert_eq!(plan.waiting[&def()], Waiting::NoOtherVersion);
    let patience = scene.now.instant + versions::PATIENCE;
    assert_eq!(plan.wake, Some(patience), "the planner asks to be woken for it");
    scene.carry_out(&plan);
    let before = scene.now;
    scene.now.instant = patience;
    assert_eq!(given(&scene.plan()), [(odd, worker(1))], "nobody came: whoever is there parks it");
    scene.now = before;
    of_version(&mut scene, 2, "2");
    assert_eq!(given(&scene.plan()), [(odd, worker(2))], "and this one may know better");
}

#[test]
fn every_definition_has_its_share_of_a_plan_that_is_too_small_for_all() {
    let now = clock::now();
    let space = Keyspace::default();
    let mut entries = Vec::new();
    let names: Vec<String> = (0..300).map(|n| format!("d{n:03}")).collect();
    let defs: Vec<_> = names.iter().map(|name| DefinitionId::new("media", name).unwrap()).collect();
    let put = |key: Key, value: Bytes, entries: &mut Vec<Entry>| {
        let revision = entries.len() as Revision + 1;
        let key = space.path(&key);
        entries.push(Entry { key, value, create_revision: revision, mod_revision: revision, lease: None });
    };
    for def in &defs {
        let policy = Policy::default();
        let record = PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy };
        put(Key::Policy(def.clone()), record.encode(), &mut entries);
        let record = WorkerRecord { slots: 1000, state: WorkerState::Active, sdk: "0".into(), version: None };
        put(Key::Worker(def.clone(), worker(1)), record.encode(), &mut entries);
        for id in 0..4 {
            let record = crate::testkit::records::task();
            put(Key::Task(def.clone(), TaskId::from_bits(id)), record.encode(), &mut entries);
        }
    }
    let mut view = View::new(space);
    view.replace(entries.len() as Revision, &entries, &now);
    let mut assumed = Assumed::default();
    let mut given: BTreeMap<DefinitionId, usize> = BTreeMap::new();
    for _ in 0..2 {
        let plan = assign(&view, &assumed, &now);
        assert_eq!(plan.steps.len(), MAX_STEPS);
        for (def, step) in &plan.steps {
            assumed.sent(def, step);
            *given.entry(def.clone()).or_default() += 1;
        }
    }
    assert_eq!(given.len(), 300, "two plans reach all: {given:?}");
}
