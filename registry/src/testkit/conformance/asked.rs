//! The moves about requests, fence by fence.

use super::scene::{SLOT, Scene, TASK, assignment, outcome, parked, task, twice};
use super::stage::{Flaw, Outcome, Stage, holds, same};
use super::table;
use crate::backend::Revision;
use crate::clock::WallMillis;
use crate::id::TaskId;
use crate::key::Key;
use crate::record::{
    Ask, AssignmentRecord, Cancellation, Ended, HeldUntil, OutcomeRecord, ParkedRecord, Record,
    RequestRecord, Tally, TaskOptions, TaskRecord, Ties, Unique, UniqueKey,
};
use crate::txn::{self, Asked, AttemptRef, Holder, Move, ParkedTask, WaitingTask};

pub(super) const CHECKS: &[super::Check] = table![
    a_request_needs_something_to_act_on,
    a_request_asked_twice_stands_once,
    a_request_is_removed_only_as_seen,
    a_cancel_ends_a_waiting_task_and_its_request,
    a_cancel_never_overwrites_a_finished_result,
    a_cancel_is_refused_when_the_tally_changed_since,
    a_cancel_in_an_old_term_does_nothing,
    a_cancel_flag_does_not_touch_the_fence,
    a_cancel_flag_comes_too_late_for_an_attempt_that_has_ended,
    only_one_request_about_a_task_stands_at_a_time,
    a_replay_begins_the_next_life_under_the_same_id,
    a_replay_is_done_once,
    a_purge_leaves_nothing,
    a_purge_is_refused_when_the_task_was_parked_again_since,
    a_cancel_is_refused_when_the_task_was_replaced_since,
    a_cancel_and_a_purge_release_the_unique_key,
];

fn ask(scene: &Scene<'_>, ask: Ask) -> Move {
    let record = RequestRecord { ask, asked: WallMillis(1) };
    txn::ask(&scene.space, &scene.def, TASK, &record)
}

fn cancelled() -> OutcomeRecord {
    let cancellation = Some(Cancellation::NotRunning);
    OutcomeRecord { attempt_id: None, cancellation, ..outcome(Ended::Cancelled, 0) }
}

/// The cancel of the task as it stands now.
async fn cancel(scene: &Scene<'_>, tally: Revision) -> Result<Move, Flaw> {
    let entry = scene.get(&Key::Task(scene.def.clone(), TASK)).await?;
    let seen = entry.map_or(0, |entry| entry.mod_revision);
    let at = WaitingTask { task: TASK, ties: Ties::slot(SLOT), seen, tally };
    Ok(txn::end_waiting(&scene.space, &scene.def, at, &cancelled()))
}

async fn ended(scene: &Scene<'_>) -> Result<Option<Ended>, Flaw> {
    let entry = scene.get(&Key::Outcome(scene.def.clone(), SLOT, TASK)).await?;
    Ok(entry.and_then(|entry| OutcomeRecord::decode(&entry.value).ok()).map(|record| record.ended))
}

async fn a_request_needs_something_to_act_on(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let answer = scene.send(ask(&scene, Ask::Cancel)).await?;
    same("of nothing", &Asked::of(&answer, Ask::Cancel), &Asked::Nothing)?;
    scene.assigned(1).await?;
    scene.applied(scene.settle(1)).await?;
    let answer = scene.send(ask(&scene, Ask::Cancel)).await?;
    same("of what has ended", &Asked::of(&answer, Ask::Cancel), &Asked::Nothing)?;
    same("keys", &scene.keys().await?, &"r".to_owned())
}

async fn a_request_asked_twice_stands_once(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.applied(scene.publish()).await?;
    let first = scene.applied(ask(&scene, Ask::Cancel)).await?;
    let answer = scene.send(ask(&scene, Ask::Cancel)).await?;
    same("again", &Asked::of(&answer, Ask::Cancel), &Asked::Standing)?;
    let standing = scene.get(&Key::Request(scene.def.clone(), TASK)).await?;
    same("revision", &standing.map(|entry| entry.mod_revision), &Some(first))
}

async fn a_request_is_removed_only_as_seen(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.applied(scene.publish()).await?;
    let seen = scene.applied(ask(&scene, Ask::Cancel)).await?;
    let remove = |seen| txn::drop_request(&scene.space, &scene.def, TASK, seen);
    scene.refused("another request", remove(seen - 1)).await?;
    scene.applied(remove(seen)).await?;
    same("keys", &scene.keys().await?, &"t".to_owned())
}

async fn a_cancel_ends_a_waiting_task_and_its_request(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let tally = scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    scene.applied(ask(&scene, Ask::Cancel)).await?;
    scene.applied(cancel(&scene, tally).await?).await?;
    same("keys", &scene.keys().await?, &"r".to_owned())?;
    same("request", &scene.get(&Key::Request(scene.def.clone(), TASK)).await?, &None)?;
    same("ended", &ended(&scene).await?, &Some(Ended::Cancelled))
}

async fn a_cancel_never_overwrites_a_finished_result(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(ask(&scene, Ask::Cancel)).await?;
    let cancel = cancel(&scene, 0).await?;
    scene.applied(scene.settle(1)).await?;
    scene.refused("it has ended", cancel).await?;
    same("ended", &ended(&scene).await?, &Some(Ended::Succeeded))
}

async fn a_cancel_is_refused_when_the_tally_changed_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    scene.refused("planned before the give-back", cancel(&scene, 0).await?).await
}

async fn a_cancel_in_an_old_term_does_nothing(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.applied(scene.publish()).await?;
    let term = scene.lead().await?;
    scene.raise(term).await?;
    let answers = scene.send_all(vec![cancel(&scene, 0).await?], Some(term)).await?;
    holds("nothing of the old term is applied", answers.is_empty())?;
    same("keys", &scene.keys().await?, &"t".to_owned())
}

async fn a_cancel_flag_does_not_touch_the_fence(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let flagged = AssignmentRecord { cancel: true, ..assignment() };
    scene.applied(txn::flag_cancel(&scene.space, &scene.attempt(1), &flagged)).await?;
    scene.applied(scene.settle(1)).await?;
    same("ended", &ended(&scene).await?, &Some(Ended::Succeeded))
}

async fn a_cancel_flag_comes_too_late_for_an_attempt_that_has_ended(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let park = txn::park(&scene.space, &scene.attempt(1), &parked(), &outcome(Ended::Parked, 1));
    scene.applied(park).await?;
    let flagged = AssignmentRecord { cancel: true, ..assignment() };
    scene.refused("it has ended", txn::flag_cancel(&scene.space, &scene.attempt(1), &flagged)).await
}

/// Parks the task as attempt `bits`; answers the revision of the parked record.
async fn is_parked(scene: &Scene<'_>, bits: u64) -> Result<ParkedTask, Flaw> {
    let park = txn::park(&scene.space, &scene.attempt(bits), &parked(), &outcome(Ended::Parked, bits));
    let seen = scene.applied(park).await?;
    Ok(ParkedTask { task: TASK, ties: Ties::slot(SLOT), seen })
}

fn replay(scene: &Scene<'_>, at: ParkedTask) -> Move {
    let (record, tally) = parked().replayed(WallMillis(5));
    txn::replay(&scene.space, &scene.def, at, &record, &tally)
}

async fn only_one_request_about_a_task_stands_at_a_time(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    is_parked(&scene, 1).await?;
    scene.applied(ask(&scene, Ask::Replay)).await?;
    let answer = scene.send(ask(&scene, Ask::Purge)).await?;
    same("another", &Asked::of(&answer, Ask::Purge), &Asked::Occupied)?;
    let answer = scene.send(ask(&scene, Ask::Cancel)).await?;
    same("and what is parked is not cancelled", &Asked::of(&answer, Ask::Cancel), &Asked::Occupied)
}

async fn a_replay_begins_the_next_life_under_the_same_id(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let at = is_parked(&scene, 1).await?;
    scene.applied(ask(&scene, Ask::Replay)).await?;
    scene.applied(replay(&scene, at)).await?;
    same("keys", &scene.keys().await?, &"pt".to_owned())?;
    same("request", &scene.get(&Key::Request(scene.def.clone(), TASK)).await?, &None)?;
    let entry = scene.get(&Key::Task(scene.def.clone(), TASK)).await?;
    let again = entry.and_then(|entry| TaskRecord::decode(&entry.value).ok());
    same("task", &again, &Some(task()))?;
    let entry = scene.get(&Key::Tally(scene.def.clone(), TASK)).await?;
    let tally = entry.and_then(|entry| Tally::decode(&entry.value).ok());
    same("life and attempts", &tally.map(|tally| (tally.life, tally.attempts)), &Some((1, 0)))
}

async fn a_replay_is_done_once(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let at = is_parked(&scene, 1).await?;
    let tally = scene.applied(replay(&scene, at)).await?;
    scene.refused("it waits", replay(&scene, at)).await?;
    scene.applied(scene.assign(2, tally)).await?;
    scene.applied(scene.settle(2)).await?;
    scene.refused("it has ended", replay(&scene, at)).await?;
    same("keys", &scene.keys().await?, &"r".to_owned())
}

async fn a_purge_leaves_nothing(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let at = is_parked(&scene, 1).await?;
    scene.applied(ask(&scene, Ask::Purge)).await?;
    scene.applied(txn::purge(&scene.space, &scene.def, at)).await?;
    same("keys", &scene.keys().await?, &String::new())?;
    same("request", &scene.get(&Key::Request(scene.def.clone(), TASK)).await?, &None)
}

async fn a_purge_is_refused_when_the_task_was_parked_again_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let at = is_parked(&scene, 1).await?;
    let tally = scene.applied(replay(&scene, at)).await?;
    scene.applied(scene.assign(2, tally)).await?;
    is_parked(&scene, 2).await?;
    scene.refused("this one nobody asked to remove", txn::purge(&scene.space, &scene.def, at)).await?;
    same("keys", &scene.keys().await?, &"xr".to_owned())
}

/// The task, published under a unique key.
fn publish_unique(scene: &Scene<'_>, until: HeldUntil) -> (Move, TaskRecord) {
    let key = UniqueKey::of(until, b"key");
    let options = TaskOptions { unique: Some(Unique { key, until }), ..TaskOptions::default() };
    let record = TaskRecord { options, ..task() };
    (txn::publish(&scene.space, &scene.def, TASK, &record), record)
}

async fn a_cancel_is_refused_when_the_task_was_replaced_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let (publish, record) = publish_unique(&scene, HeldUntil::Begun);
    let seen = scene.applied(publish).await?;
    let cancel = cancel(&scene, 0).await?;
    let holder = Holder { task: TASK, slot: SLOT, revision: seen };
    scene.applied(txn::replace(&scene.space, &scene.def, &holder, &record)).await?;
    scene.refused("nobody asked for this one", cancel).await
}

async fn a_cancel_and_a_purge_release_the_unique_key(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let (publish, record) = publish_unique(&scene, HeldUntil::Ended);
    let key = UniqueKey::of(HeldUntil::Ended, b"key");
    let ties = Ties { slot: SLOT, unique: Some(key) };
    let held = Key::Unique(scene.def.clone(), key.bytes());
    let seen = scene.applied(publish).await?;
    let at = WaitingTask { task: TASK, ties, seen, tally: 0 };
    scene.applied(txn::end_waiting(&scene.space, &scene.def, at, &cancelled())).await?;
    same("after a cancel", &scene.get(&held).await?, &None)?;
    let other = TaskId::from_bits(8);
    scene.applied(txn::publish(&scene.space, &scene.def, other, &record)).await?;
    let at = AttemptRef { task: other, ..scene.attempt(1) };
    let row = txn::assign(&scene.space, &at, scene.seen(0), &assignment());
    scene.applied(row).await?;
    let parked = ParkedRecord { task: record, ..parked() };
    let seen = scene.applied(txn::park(&scene.space, &at, &parked, &outcome(Ended::Parked, 1))).await?;
    holds("a parked task holds it", scene.get(&held).await?.is_some())?;
    let at = ParkedTask { task: other, ties: parked.ties(), seen };
    scene.applied(txn::purge(&scene.space, &scene.def, at)).await?;
    same("after a purge", &scene.get(&held).await?, &None)
}
