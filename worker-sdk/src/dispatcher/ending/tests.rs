//! Every end of an attempt, as what is written.

use bellows_registry::backend::Op;
use bellows_registry::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use bellows_registry::key::Key;
use bellows_registry::record::{Isolation, Record};
use bellows_registry::spec::{Backoff, Percent, Span};

use super::*;
use crate::envelope::undecodable::Undecodable;
use crate::outcome::TaskError;

const NOW: WallMillis = WallMillis(1_000_000);
const SINGLETON: TaskId = TaskId::SINGLETON;

fn task() -> TaskId {
    TaskId::from_bits(1)
}

/// What is written when attempt `number` of 3 ends so, in words.
fn ends(task: TaskId, number: u32, end: End) -> String {
    ends_after(Tally { attempts: number - 1, ..Tally::default() }, task, end)
}

/// What is written when the attempt after all this ends so.
fn ends_after(tally: Tally, task: TaskId, end: End) -> String {
    let at = AttemptRef {
        definition: DefinitionId::new("default", "act").unwrap(),
        worker: WorkerId::for_session("pod", 1).unwrap(),
        task,
        attempt: AttemptId::from_bits(7),
    };
    let jitter = Percent::new(0).unwrap();
    let record = AssignmentRecord {
        number: tally.attempts + 1,
        max_attempts: 3,
        timeout: Span::secs(30),
        backoff: Backoff { initial: Span::secs(4), factor: 2, max: Span::secs(60), jitter },
        retention: Retention::default(),
        slot: ResultSlot::from_bits(1),
        published: WallMillis(0),
        tally,
        isolation: Isolation::Shared,
        cancel: false,
        has_checkpoint: false,
        headers: std::collections::BTreeMap::new(),
        options: bellows_registry::record::TaskOptions::default(),
        inline: true,
        payload: Bytes::new(),
    };
    let payload = Bytes::from_static(b"1");
    let attempt = Attempt {
        at: &at,
        record: &record,
        payload: &payload,
        started: NOW,
        now: NOW,
        max_body: 8,
        version: None,
    };
    let space = Keyspace::default();
    let ending = attempt.end(&space, end);
    let mut words = vec![ending.word.to_owned()];
    for op in &ending.row.then {
        words.push(match op {
            Op::Put { key, value, .. } => match space.parse(key).unwrap() {
                Key::Tally(..) => {
                    let tally = Tally::decode(value).unwrap();
                    let wait = tally.delay.map(|delay| format!("in {}", delay.millis));
                    let wait = wait.unwrap_or_else(|| "at once".to_owned());
                    assert_no_loss(&tally);
                    format!("p: {} failed, {} back, again {wait}", tally.attempts, tally.hand_backs)
                }
                Key::Outcome(..) => {
                    let outcome = OutcomeRecord::decode(value).unwrap();
                    assert_no_loss(&outcome.tally);
                    format!("r: {:?} {}", outcome.ended, outcome.tally.attempts)
                }
                Key::Parked(..) => {
                    let parked = ParkedRecord::decode(value).unwrap();
                    assert_no_loss(&parked.tally);
                    format!("x: {} {:?}", parked.tally.attempts, parked.task.payload)
                }
                other => panic!("{other:?}"),
            },
            Op::Delete(range) => match space.parse(&range.start).unwrap() {
                Key::Assignment(..) => "-a".to_owned(),
                Key::Task(..) => "-t".to_owned(),
                Key::Tally(..) => "-p".to_owned(),
                Key::Checkpoint(..) => "-k".to_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
    }
    words.join("; ")
}

/// A loss is what the assigner saw: nothing that a handler does is one (law 17).
fn assert_no_loss(tally: &Tally) {
    assert_eq!((tally.losses, tally.losses_alone), (0, 0));
}

fn done(result: &'static [u8], again: Option<u64>) -> End {
    let again = again.map(Duration::from_secs);
    let (result, codecs, follow_ups) = (Bytes::from_static(result), Vec::new(), Vec::new());
    End::Ran(Ran::Succeeded { result, codecs, again, follow_ups })
}

fn failed(error: TaskError) -> End {
    End::Ran(Ran::Failed(error))
}

fn undecodable() -> End {
    let error = serde_json::from_str::<u8>("x").unwrap_err();
    End::Ran(Ran::Undecodable(Undecodable::Json(error)))
}

#[test]
fn every_end_of_a_published_task_is_one_move() {
    let second = Duration::from_secs(1);
    for (number, end, written) in [
        (1, done(b"2", None), "succeeded; -a; -t; -p; -k; r: Succeeded 0"),
        (1, done(b"2", Some(9)), "succeeded; -a; -t; -p; -k; r: Succeeded 0"),
        (1, End::Ran(Ran::Unencodable("no".into())), r#"parked; -a; -t; -p; -k; x: 1 b"1"; r: Parked 1"#),
        (1, failed("no".into()), "failed; -a; p: 1 failed, 0 back, again in 4000"),
        (2, failed("no".into()), "failed; -a; p: 2 failed, 0 back, again in 8000"),
        (3, failed("no".into()), r#"parked; -a; -t; -p; -k; x: 3 b"1"; r: Parked 3"#),
        (1, failed(TaskError::retry_after(second, "no")), "failed; -a; p: 1 failed, 0 back, again in 1000"),
        (1, failed(TaskError::retry_immediately("no")), "failed; -a; p: 1 failed, 0 back, again in 0"),
        (3, failed(TaskError::retry_immediately("no")), r#"parked; -a; -t; -p; -k; x: 3 b"1"; r: Parked 3"#),
        (3, failed(TaskError::snooze(second)), "snoozed; -a; p: 2 failed, 0 back, again in 1000"),
        (1, failed(TaskError::park("no")), r#"parked; -a; -t; -p; -k; x: 1 b"1"; r: Parked 1"#),
        (1, failed(TaskError::cancel("no")), "cancelled; -a; -t; -p; -k; r: Cancelled 1"),
        (1, undecodable(), "failed; -a; p: 1 failed, 0 back, again in 4000"),
        (3, undecodable(), r#"parked; -a; -t; -p; -k; x: 3 b"1"; r: Parked 3"#),
        (1, End::TimedOut, "failed; -a; p: 1 failed, 0 back, again in 4000"),
        (3, End::Panicked("oh".into()), r#"parked; -a; -t; -p; -k; x: 3 b"1"; r: Parked 3"#),
        (3, End::HandedBack, "handed_back; -a; p: 2 failed, 1 back, again at once"),
        (2, End::Cancelled(Cancellation::Stopped), "cancelled; -a; -t; -p; -k; r: Cancelled 1"),
    ] {
        let what = format!("{number} {end:?}");
        assert_eq!(ends(task(), number, end), written, "{what}");
    }
}

#[test]
fn a_singletons_task_stays_and_rests_for_a_second_at_least() {
    for (number, end, written) in [
        (1, done(b"2", None), "succeeded; -a; p: 0 failed, 0 back, again in 1000"),
        (2, done(b"2", Some(0)), "succeeded; -a; p: 0 failed, 0 back, again in 1000"),
        (2, done(b"2", Some(9)), "succeeded; -a; p: 0 failed, 0 back, again in 9000"),
        (2, failed("no".into()), "failed; -a; p: 2 failed, 0 back, again in 8000"),
        (9, failed("no".into()), "failed; -a; p: 9 failed, 0 back, again in 60000"),
        (1, failed(TaskError::retry_immediately("no")), "failed; -a; p: 1 failed, 0 back, again in 1000"),
        (1, failed(TaskError::snooze(Duration::ZERO)), "snoozed; -a; p: 0 failed, 0 back, again in 1000"),
        (1, failed(TaskError::park("no")), "failed; -a; p: 1 failed, 0 back, again in 60000"),
        (1, failed(TaskError::cancel("no")), "succeeded; -a; p: 0 failed, 0 back, again in 1000"),
        (1, End::HandedBack, "handed_back; -a; p: 0 failed, 1 back, again at once"),
    ] {
        let what = format!("{number} {end:?}");
        assert_eq!(ends(SINGLETON, number, end), written, "{what}");
    }
}

#[test]
fn a_task_handed_back_while_it_waits_for_another_version_begins_to_wait_anew() {
    let tally = Tally { undecodable_by: vec!["1".into()], ..Tally::default() };
    let written = ends_after(tally, task(), End::HandedBack);
    assert_eq!(written, "handed_back; -a; p: 0 failed, 1 back, again in 0");
}
