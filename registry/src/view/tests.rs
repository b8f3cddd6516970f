//! What the fold owes: order within a revision does not matter, a list and a watch
//! lead to the same view, indexes agree with the tasks.

use std::time::Duration;

use super::*;
use crate::clock;
use crate::id::{AttemptId, TaskId, WorkerId};
use crate::record::{AssignmentRecord, Delay, Isolation, Tally, TaskRecord, WorkerRecord, WorkerState};

fn def() -> DefinitionId {
    DefinitionId::new("media", "resize").unwrap()
}

fn task_record(delay: Option<Delay>) -> TaskRecord {
    TaskRecord {
        slot: crate::id::ResultSlot::from_bits(1),
        published: clock::WallMillis(0),
        delay,
        headers: BTreeMap::new(),
        options: crate::record::TaskOptions::default(),
        payload: Bytes::from_static(b"{}"),
    }
}

fn entry(key: &Key, value: Bytes, revision: Revision) -> Entry {
    let key = Keyspace::default().path(key);
    Entry { key, value, create_revision: revision, mod_revision: revision, lease: None }
}

fn assignment(number: u32) -> AssignmentRecord {
    let execution = crate::spec::Execution::default();
    AssignmentRecord {
        number,
        max_attempts: 8,
        timeout: execution.timeout,
        backoff: execution.retry.backoff,
        retention: crate::spec::Retention::default(),
        slot: crate::id::ResultSlot::from_bits(1),
        published: clock::WallMillis(0),
        tally: Tally::default(),
        isolation: Isolation::Shared,
        cancel: false,
        has_checkpoint: false,
        headers: BTreeMap::new(),
        options: crate::record::TaskOptions::default(),
        inline: true,
        payload: Bytes::from_static(b"{}"),
    }
}

/// A task, a worker, and the task given to the worker.
fn scene() -> Vec<Entry> {
    let worker = WorkerId::for_session("pod", 1).unwrap();
    let task = TaskId::from_bits(7);
    let live = WorkerRecord { slots: 2, state: WorkerState::Active, sdk: "0".into(), version: None };
    vec![
        entry(&Key::Task(def(), task), task_record(None).encode(), 5),
        entry(&Key::Tally(def(), task), Tally { attempts: 1, ..Tally::default() }.encode(), 6),
        entry(&Key::Worker(def(), worker.clone()), live.encode(), 7),
        entry(&Key::Assignment(def(), worker, task, AttemptId::from_bits(3)), assignment(2).encode(), 8),
    ]
}

fn facts(view: &View) -> String {
    let of = |d: &Definition| {
        format!(
            "due {} assigned {} slots {} dead {} bytes {} attempts {:?}",
            d.due_count(),
            d.assigned_count(),
            d.slots(),
            d.dead_workers().count(),
            d.payload_bytes(),
            d.task(TaskId::from_bits(7)).map(|t| t.tally().attempts)
        )
    };
    view.definitions().get(&def()).map_or_else(|| "nothing".to_owned(), of)
}

#[test]
fn a_list_and_a_watch_in_any_order_lead_to_the_same_view() {
    let now = clock::now();
    let mut listed = View::new(Keyspace::default());
    listed.replace(8, &scene(), &now);
    for rotation in 0..4 {
        let mut watched = View::new(Keyspace::default());
        let mut changes: Vec<Change> = scene().into_iter().map(Change::Put).collect();
        changes.rotate_left(rotation);
        watched.apply(&Changes { complete: 8, changes }, &now);
        assert_eq!(facts(&watched), facts(&listed));
    }
    assert_eq!(facts(&listed), "due 0 assigned 1 slots 2 dead 0 bytes 2 attempts Some(1)");
}

#[test]
fn a_worker_whose_key_is_gone_is_dead_while_it_holds_a_task() {
    let now = clock::now();
    let mut view = View::new(Keyspace::default());
    view.replace(8, &scene(), &now);
    let worker = WorkerId::for_session("pod", 1).unwrap();
    let key = Keyspace::default().path(&Key::Worker(def(), worker));
    view.apply(&Changes { complete: 9, changes: vec![Change::Delete { key, revision: 9 }] }, &now);
    assert_eq!(view.definitions()[&def()].dead_workers().count(), 1);
}

#[test]
fn a_new_list_removes_what_is_gone_and_leaves_nothing_behind() {
    let now = clock::now();
    let mut view = View::new(Keyspace::default());
    view.replace(8, &scene(), &now);
    view.replace(20, &[], &now);
    assert_eq!((facts(&view).as_str(), view.payload_bytes), ("nothing", 0));
    assert_eq!(view.revision(), 20);
}

#[test]
fn a_delay_seen_live_counts_from_now_and_one_listed_goes_by_the_writer() {
    let now = clock::now();
    let writer_is_an_hour_ahead = now.wall.plus(Duration::from_secs(3600 + 10));
    let delay = Delay { millis: 10_000, due_by_writer: writer_is_an_hour_ahead };
    let key = Key::Task(def(), TaskId::from_bits(7));
    let e = entry(&key, task_record(Some(delay)).encode(), 5);
    let due = |view: &View| view.definitions()[&def()].oldest_due().unwrap() - now.instant;

    let mut live = View::new(Keyspace::default());
    live.apply(&Changes { complete: 5, changes: vec![Change::Put(e.clone())] }, &now);
    assert_eq!(due(&live), Duration::from_secs(10));
    live.replace(6, std::slice::from_ref(&e), &now);
    assert_eq!(due(&live), Duration::from_secs(10), "a relist does not forget what was seen live");

    let mut listed = View::new(Keyspace::default());
    listed.replace(5, &[e], &now);
    assert_eq!(due(&listed), Duration::from_secs(3610));
}

/// A task that was published now, and may wait for so many seconds.
fn waits_at_most(secs: u64, id: u128, now: &clock::Now) -> Entry {
    let ttl = Delay { millis: secs * 1000, due_by_writer: now.wall.plus(Duration::from_secs(secs)) };
    let options = crate::record::TaskOptions { ttl: Some(ttl), ..Default::default() };
    let record = TaskRecord { options, ..task_record(None) };
    entry(&Key::Task(def(), TaskId::from_bits(id)), record.encode(), 5)
}

#[test]
fn what_has_expired_is_in_no_lane_and_makes_no_demand() {
    let now = clock::now();
    let mut view = View::new(Keyspace::default());
    let delay = Delay { millis: 8_000, due_by_writer: now.wall.plus(Duration::from_secs(8)) };
    let later = entry(&Key::Task(def(), TaskId::from_bits(4)), task_record(Some(delay)).encode(), 5);
    let tasks = vec![
        waits_at_most(5, 1, &now),
        waits_at_most(50, 2, &now),
        entry(&Key::Task(def(), TaskId::from_bits(3)), task_record(None).encode(), 5),
        later,
    ];
    view.apply(&Changes { complete: 5, changes: tasks.into_iter().map(Change::Put).collect() }, &now);
    let look = |view: &mut View, secs| {
        let at = Duration::from_secs(secs);
        view.pass(&clock::Now { instant: now.instant + at, wall: now.wall.plus(at) });
        let d = &view.definitions()[&def()];
        let in_lanes: usize = d.lanes().ring().map(|(_, _, lane)| lane.due()).sum();
        assert_eq!(in_lanes, d.due_count());
        (d.due_count(), d.delayed_count(), d.waiting_count())
    };
    assert_eq!(look(&mut view, 1), (3, 1, 4));
    assert_eq!(look(&mut view, 5), (2, 1, 4), "the first has waited for too long");
    assert_eq!(look(&mut view, 60), (2, 0, 4), "and so has the second, and the last is due");
    let gone = |id: u128| Key::Task(def(), TaskId::from_bits(id));
    let delete = |id| Change::Delete { key: Keyspace::default().path(&gone(id)), revision: 6 };
    let at = clock::Now { instant: now.instant + Duration::from_secs(60), ..now };
    view.apply(&Changes { complete: 6, changes: vec![delete(1), delete(3)] }, &at);
    assert_eq!(look(&mut view, 61), (1, 0, 2));
}

/// Its writer's clock may be an hour behind: nobody would ever have seen it.
#[test]
fn a_parked_task_is_kept_for_a_while_whatever_its_writers_clock_says() {
    use crate::record::ParkedRecord;
    let now = clock::now();
    let parked = ParkedRecord {
        parked: clock::WallMillis(0),
        expires: Some(clock::WallMillis(1)),
        tally: Tally::default(),
        task: task_record(None),
    };
    let key = Key::Parked(def(), TaskId::from_bits(7));
    let entry = entry(&key, parked.encode(), 5);
    let mut view = View::new(Keyspace::default());
    view.replace(5, std::slice::from_ref(&entry), &now);
    let at = |after| clock::Now { instant: now.instant + after, wall: now.wall.plus(after) };
    let expired = |view: &View, after| view.definitions()[&def()].expired_parked(now.instant + after).count();
    let floor = crate::spec::Retention::FLOOR;
    assert_eq!(expired(&view, floor - Duration::from_secs(1)), 0);
    view.replace(6, &[entry], &at(floor - Duration::from_secs(1)));
    assert_eq!(expired(&view, floor), 1, "listing it again does not prolong it");
}

#[test]
fn foreign_and_newer_values_are_counted_and_never_planned() {
    let now = clock::now();
    let mut view = View::new(Keyspace::default());
    let task = Key::Task(def(), TaskId::from_bits(9));
    let mut newer = entry(&task, Bytes::from_static(b"bellows2 {}\n"), 3);
    let mut foreign = newer.clone();
    foreign.key = Bytes::from_static(b"/bellows/d/what/is/this");
    view.replace(4, &[newer.clone(), foreign], &now);
    assert_eq!(view.unreadable(), 2);
    assert_eq!(facts(&view), "nothing");
    newer.value = task_record(None).encode();
    view.apply(&Changes { complete: 5, changes: vec![Change::Put(newer)] }, &now);
    assert_eq!(view.unreadable(), 1);
}

const NEWER: &[u8] = b"bellows2 {}\n";

/// The scene, with the value under one kind of key replaced by one of a newer version.
fn scene_with_a_newer(kind: fn(&Key) -> bool) -> (Vec<Entry>, View) {
    let mut entries = scene();
    let space = Keyspace::default();
    let of_kind = entries.iter_mut().find(|entry| kind(&space.parse(&entry.key).unwrap()));
    of_kind.unwrap().value = Bytes::from_static(NEWER);
    let mut view = View::new(space);
    view.replace(8, &entries, &clock::now());
    assert_eq!(view.unreadable(), 1);
    (entries, view)
}

#[test]
fn a_task_whose_assignment_cannot_be_read_is_somebodys() {
    let (_, mut view) = scene_with_a_newer(|key| matches!(key, Key::Assignment(..)));
    assert_eq!(facts(&view), "due 0 assigned 1 slots 2 dead 0 bytes 2 attempts Some(1)");
    let worker = WorkerId::for_session("pod", 1).unwrap();
    let definition = &view.definitions()[&def()];
    assert_eq!(definition.held_count(&worker), 1, "its slot is taken");
    // Neither time nor its worker's death makes it ours to give away.
    let mut later = clock::now();
    later.instant += Duration::from_secs(3 * 24 * 3600);
    let idle = crate::plan::assign(&view, &crate::plan::Assumed::default(), &later);
    assert_eq!(idle.steps, []);
    let key = Keyspace::default().path(&Key::Worker(def(), worker));
    view.apply(&Changes { complete: 9, changes: vec![Change::Delete { key, revision: 9 }] }, &later);
    let idle = crate::plan::assign(&view, &crate::plan::Assumed::default(), &later);
    assert_eq!(idle.steps, []);
}

#[test]
fn a_task_whose_tally_cannot_be_read_is_not_given_out() {
    let (mut entries, _) = scene_with_a_newer(|key| matches!(key, Key::Tally(..)));
    entries.pop(); // the assignment
    let mut view = View::new(Keyspace::default());
    view.replace(8, &entries, &clock::now());
    assert_eq!(facts(&view), "due 0 assigned 0 slots 2 dead 0 bytes 2 attempts Some(0)");
    let tally = entry(&Key::Tally(def(), TaskId::from_bits(7)), Tally::default().encode(), 9);
    view.apply(&Changes { complete: 9, changes: vec![Change::Put(tally)] }, &clock::now());
    assert_eq!(view.definitions()[&def()].waiting_count(), 1, "it can be read now");
    assert_eq!(view.unreadable(), 0);
}

#[test]
fn a_worker_that_cannot_be_read_lives_and_takes_nothing() {
    let (_, view) = scene_with_a_newer(|key| matches!(key, Key::Worker(..)));
    assert_eq!(facts(&view), "due 0 assigned 1 slots 0 dead 0 bytes 2 attempts Some(1)");
    assert_eq!(view.definitions()[&def()].workers().len(), 1);
}

#[test]
fn what_cannot_be_read_goes_when_its_key_goes() {
    for kind in [
        (|key| matches!(key, Key::Assignment(..))) as fn(&Key) -> bool,
        |key| matches!(key, Key::Tally(..)),
        |key| matches!(key, Key::Worker(..)),
        |key| matches!(key, Key::Task(..)),
    ] {
        let (_, mut view) = scene_with_a_newer(kind);
        view.replace(9, &[], &clock::now());
        assert_eq!((facts(&view).as_str(), view.unreadable()), ("nothing", 0));
    }
}

#[test]
fn a_list_taken_in_by_the_page_is_the_same_as_in_one() {
    let now = clock::now();
    let mut entries = scene();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    // What was known before and is not listed is gone, wherever it lies between pages.
    for gone in [1, 6, 9] {
        let mut view = View::new(Keyspace::default());
        let stale = entry(&Key::Task(def(), TaskId::from_bits(gone)), task_record(None).encode(), 2);
        view.replace(2, &[stale], &now);
        view.begin_list();
        for page in entries.chunks(1) {
            assert!(view.is_listing());
            view.list_page(page, &now);
        }
        assert_eq!(view.revision(), 2, "not before the last page");
        view.end_list(8);
        assert!(!view.is_listing());
        assert_eq!(facts(&view), "due 0 assigned 1 slots 2 dead 0 bytes 2 attempts Some(1)");
    }
}
