//! What a running attempt reports: progress and checkpoints, and their fences.

use bytes::Bytes;

use super::scene::{Scene, TASK, flaw, outcome, parked};
use super::stage::{Flaw, Outcome, Stage, holds, same};
use super::table;
use crate::backend::Revision;
use crate::clock::WallMillis;
use crate::id::AttemptId;
use crate::key::Key;
use crate::record::{CheckpointRecord, Ended, Progress, Record, Tally};
use crate::txn::{self, Kept, Move};

pub(super) const CHECKS: &[super::Check] = table![
    progress_shows_in_the_tally_and_moves_nothing,
    progress_of_an_old_attempt_is_refused,
    a_checkpoint_outlives_its_attempt,
    a_checkpoint_of_an_old_attempt_is_refused,
    an_older_checkpoint_that_comes_late_does_not_undo_a_newer_one,
    a_checkpoint_ends_with_its_task,
];

fn half_way(attempt: u32) -> Tally {
    let value = "{\"done\":50}".to_owned();
    Tally { progress: Some(Progress { attempt, at: WallMillis(5), value }), ..Tally::default() }
}

fn checkpoint(scene: &Scene<'_>, bits: u64, seen: Revision, value: &'static [u8]) -> Move {
    let record = CheckpointRecord {
        attempt: AttemptId::from_bits(bits),
        number: 1,
        at: WallMillis(5),
        value: Bytes::from_static(value),
    };
    txn::checkpoint(&scene.space, &scene.attempt(bits), seen, &record)
}

async fn kept(scene: &Scene<'_>) -> Result<Option<(Revision, Bytes)>, Flaw> {
    let Some(entry) = scene.get(&Key::Checkpoint(scene.def.clone(), TASK)).await? else { return Ok(None) };
    let record = CheckpointRecord::decode(&entry.value).map_err(flaw)?;
    Ok(Some((entry.mod_revision, record.value)))
}

async fn progress_shows_in_the_tally_and_moves_nothing(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(txn::progress(&scene.space, &scene.attempt(1), &half_way(1))).await?;
    same("keys", &scene.keys().await?, &"apt".to_owned())?;
    scene.applied(scene.settle(1)).await?;
    same("keys", &scene.keys().await?, &"r".to_owned())
}

async fn progress_of_an_old_attempt_is_refused(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.taken_away(1).await?;
    let late = txn::progress(&scene.space, &scene.attempt(1), &half_way(1));
    scene.refused("an old attempt shows no progress", late.clone()).await?;
    let tally = scene.get(&Key::Tally(scene.def.clone(), TASK)).await?.map_or(0, |entry| entry.mod_revision);
    scene.applied(scene.assign(2, tally)).await?;
    scene.refused("nor beside a new one", late).await
}

async fn a_checkpoint_outlives_its_attempt(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let first = scene.applied(checkpoint(&scene, 1, 0, b"seven")).await?;
    let second = scene.applied(checkpoint(&scene, 1, first, b"eight")).await?;
    let back = Tally { attempts: 1, ..Tally::default() };
    let tally = scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &back)).await?;
    same("after a retry", &kept(&scene).await?, &Some((second, Bytes::from_static(b"eight"))))?;
    scene.applied(scene.assign(2, tally)).await?;
    scene.taken_away(2).await?;
    same("after a loss", &kept(&scene).await?, &Some((second, Bytes::from_static(b"eight"))))?;
    same("keys", &scene.keys().await?, &"kpt".to_owned())
}

async fn a_checkpoint_of_an_old_attempt_is_refused(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let seen = scene.applied(checkpoint(&scene, 1, 0, b"seven")).await?;
    scene.taken_away(1).await?;
    let late = checkpoint(&scene, 1, seen, b"too late");
    scene.refused("an old attempt keeps nothing", late.clone()).await?;
    let tally = scene.get(&Key::Tally(scene.def.clone(), TASK)).await?.map_or(0, |entry| entry.mod_revision);
    scene.applied(scene.assign(2, tally)).await?;
    scene.refused("nor beside a new one", late.clone()).await?;
    same("it is told so", &Kept::of(&scene.send(late).await?), &Kept::Fenced)?;
    same("what is kept", &kept(&scene).await?, &Some((seen, Bytes::from_static(b"seven"))))
}

async fn an_older_checkpoint_that_comes_late_does_not_undo_a_newer_one(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let older = checkpoint(&scene, 1, 0, b"older");
    let seen = scene.applied(checkpoint(&scene, 1, 0, b"newer")).await?;
    let answer = scene.send(older).await?;
    holds("it is refused", !answer.succeeded)?;
    same("it is told over what to write", &Kept::of(&answer), &Kept::Again(seen))?;
    same("what is kept", &kept(&scene).await?, &Some((seen, Bytes::from_static(b"newer"))))
}

async fn a_checkpoint_ends_with_its_task(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(checkpoint(&scene, 1, 0, b"seven")).await?;
    same("keys", &scene.keys().await?, &"akt".to_owned())?;
    let park = txn::park(&scene.space, &scene.attempt(1), &parked(), &outcome(Ended::Parked, 1));
    scene.applied(park).await?;
    same("keys", &scene.keys().await?, &"xr".to_owned())
}
