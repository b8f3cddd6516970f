//! The witness must be able to see what must not happen.

use bellows_registry::clock::WallMillis;
use bellows_registry::id::{DefinitionId, ResultSlot};
use bellows_registry::record::{AttemptError, Tally};
use bytes::Bytes;

use super::*;

const TASK: TaskId = TaskId::from_bits(7);

fn definition() -> DefinitionId {
    DefinitionId::new("photos", "thumbnails").unwrap()
}

fn put(key: &Key, value: Bytes, revision: Revision) -> Change {
    let key = Keyspace::default().path(key);
    Change::Put(Entry { key, value, create_revision: revision, mod_revision: revision, lease: None })
}

fn published() -> Change {
    put(&Key::Task(definition(), TASK), Bytes::new(), 1)
}

fn task_gone() -> Change {
    Change::Delete { key: Keyspace::default().path(&Key::Task(definition(), TASK)), revision: 2 }
}

fn record(attempt: u32, tally: Tally) -> OutcomeRecord {
    OutcomeRecord {
        ended: Ended::Succeeded,
        attempt,
        attempt_id: None,
        worker: None,
        published: WallMillis(0),
        started: WallMillis(0),
        finished: WallMillis(0),
        expires: WallMillis(0),
        cancellation: None,
        tally,
        codecs: Vec::new(),
        result: Bytes::new(),
    }
}

fn settled(record: &OutcomeRecord, revision: Revision) -> Change {
    put(&Key::Outcome(definition(), ResultSlot::from_bits(1), TASK), record.encode(), revision)
}

fn book(changes: Vec<Change>) -> Book {
    let mut book = Book::default();
    let complete = changes.iter().map(Change::revision).max().unwrap_or(0);
    book.changed(&Keyspace::default(), &Changes { complete, changes });
    book
}

#[test]
fn a_wave_is_timed_from_its_first_publish_to_the_one_that_counts() {
    let (began, mut book) = (clock::now(), Book::default());
    let seen_after = |millis| Now { instant: began.instant + Duration::from_millis(millis), ..began };
    for (n, millis) in [(1, 90), (2, 20), (3, 50)] {
        book.published.insert(TaskId::from_bits(n), seen_after(millis));
    }
    let time = |count| book.time_to_publish(count, seen_after(20).instant);
    assert_eq!([time(1), time(2), time(3)], [0, 30, 70].map(|n| Some(Duration::from_millis(n))));
    assert_eq!((time(0), time(4)), (None, None));
    let later = book.time_to_publish(2, seen_after(21).instant);
    assert_eq!(later, Some(Duration::from_millis(40)), "what was published before is another wave");
}

#[test]
fn a_task_that_is_gone_without_a_record_is_lost() {
    assert_eq!(book(vec![published()]).lost(), 0, "it waits");
    assert_eq!(book(vec![published(), task_gone()]).lost(), 1);
    let ended = book(vec![published(), task_gone(), settled(&record(1, Tally::default()), 2)]);
    assert_eq!((ended.lost(), ended.ended(Ended::Succeeded)), (0, 1));
}

#[test]
fn a_second_record_of_a_task_is_seen_even_if_it_says_the_same() {
    let once = record(1, Tally::default());
    assert_eq!(book(vec![published(), settled(&once, 2)]).settled_twice(), 0);
    assert_eq!(book(vec![published(), settled(&once, 2), settled(&once, 3)]).settled_twice(), 1);
}

#[test]
fn a_list_of_what_was_seen_before_is_not_a_second_record() {
    let once = settled(&record(1, Tally::default()), 2);
    let mut book = book(vec![published(), once.clone()]);
    let Change::Put(entry) = once else { unreachable!() };
    book.listed(&Keyspace::default(), 9, &[entry]);
    assert_eq!((book.settled_twice(), book.revision), (0, 9));
}

#[test]
fn an_attempt_that_no_error_explains_was_charged_to_infrastructure() {
    let mut tally = Tally { losses: 1, ..Tally::default() };
    assert_eq!(book(vec![settled(&record(1, tally.clone()), 2)]).charged_to_infrastructure(), 0);
    assert_eq!(book(vec![settled(&record(2, tally.clone()), 2)]).charged_to_infrastructure(), 1);
    tally.remember(AttemptError::new(1, WallMillis(0), ErrorKind::WorkerLost, "gone"));
    assert_eq!(book(vec![settled(&record(2, tally.clone()), 2)]).charged_to_infrastructure(), 1);
    tally.remember(AttemptError::new(1, WallMillis(0), ErrorKind::Failed, "the volume was away"));
    assert_eq!(book(vec![settled(&record(2, tally), 2)]).charged_to_infrastructure(), 0);
}

#[test]
fn a_replay_begins_anew_and_its_end_is_no_second_record() {
    let parked = OutcomeRecord { ended: Ended::Parked, ..record(1, Tally::default()) };
    let mut changes = vec![published(), task_gone(), settled(&parked, 2)];
    changes.push(put(&Key::Task(definition(), TASK), Bytes::new(), 3));
    let again = book(changes.clone());
    assert_eq!((again.replayed, again.settled.len(), again.open.len(), again.lost()), (1, 0, 1, 0));
    changes
        .push(Change::Delete { key: Keyspace::default().path(&Key::Task(definition(), TASK)), revision: 4 });
    changes.push(settled(&record(1, Tally::default()), 4));
    let ended = book(changes);
    assert_eq!((ended.replayed, ended.settled_twice(), ended.ended(Ended::Succeeded)), (1, 0, 1));
}
