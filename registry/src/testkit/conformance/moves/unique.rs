//! Unique keys and follow-up tasks: what a move takes, releases and publishes with the
//! task, or not at all.

use super::super::scene::{SLOT, Scene, TASK, assignment, flaw, outcome, policy, task, twice};
use super::super::stage::{Flaw, Outcome, Stage, holds, same};
use super::super::table;
use crate::backend::Revision;
use crate::id::{AttemptId, DefinitionId, ResultSlot, TaskId};
use crate::key::Key;
use crate::record::{
    AssignmentRecord, Ended, HeldUntil, OpenRecord, ParkedRecord, Record, Tally, TaskOptions, TaskRecord,
    Unique, UniqueKey,
};
use crate::txn::{self, AsSeen, FollowUp, Holder, Move, Published, Replaced, Settled};

pub(in super::super) const CHECKS: &[super::super::Check] = table![
    a_unique_key_is_taken_by_one_task,
    a_unique_key_is_released_by_the_settlement,
    a_parked_task_holds_its_unique_key,
    a_unique_publish_sent_again_finds_itself_not_a_rival,
    a_pending_key_is_released_by_the_first_assignment_only,
    a_pending_task_is_replaced_where_it_stands,
    an_assignment_is_refused_when_the_task_was_replaced_since,
    a_task_that_has_begun_is_not_replaced,
    follow_ups_are_published_by_the_settlement,
    follow_ups_of_a_late_worker_are_not_published,
    a_settlement_is_refused_whole_when_a_follow_up_cannot_be_published,
];

const RIVAL: TaskId = TaskId::from_bits(8);

#[allow(clippy::needless_update, reason = "there will be more options")]
fn options(until: HeldUntil) -> TaskOptions {
    TaskOptions { unique: Some(Unique { key: UniqueKey::of(until, b"k"), until }), ..TaskOptions::default() }
}

fn unique_task(until: HeldUntil) -> TaskRecord {
    TaskRecord { options: options(until), ..task() }
}

fn unique_assignment(until: HeldUntil) -> AssignmentRecord {
    AssignmentRecord { options: options(until), ..assignment() }
}

impl Scene<'_> {
    fn publish_unique(&self, id: TaskId, until: HeldUntil) -> Move {
        txn::publish(&self.space, &self.def, id, &unique_task(until))
    }

    fn assign_unique(&self, bits: u64, task: Revision, tally: Revision, until: HeldUntil) -> Move {
        let seen = AsSeen { task, ..self.seen(tally) };
        txn::assign(&self.space, &self.attempt(bits), seen, &unique_assignment(until))
    }

    fn settle_unique(&self, bits: u64, until: HeldUntil) -> Move {
        let ties = unique_assignment(until).ties();
        txn::settle(&self.space, &self.attempt(bits), ties, &outcome(Ended::Succeeded, bits))
    }

    fn replace(&self, holder: &Holder, record: &TaskRecord) -> Move {
        txn::replace(&self.space, &self.def, holder, record)
    }

    /// Publishes another task under the same key, which must be held; answers by whom.
    async fn holder(&self, until: HeldUntil) -> Result<Holder, Flaw> {
        let answer = self.send(self.publish_unique(RIVAL, until)).await?;
        match Published::of(&answer) {
            Published::Held(holder) => Ok(holder),
            other => Err(Flaw::new(format!("the key must be held, but: {other:?}"))),
        }
    }
}

async fn a_unique_key_is_taken_by_one_task(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Ended;
    let revision = scene.applied(scene.publish_unique(TASK, until)).await?;
    same("keys", &scene.keys().await?, &"tu".to_owned())?;
    scene.refused("the key is held", scene.publish_unique(RIVAL, until)).await?;
    same("holder", &scene.holder(until).await?, &Holder { task: TASK, slot: SLOT, revision })?;
    // Another use of the same word is another key.
    scene.applied(scene.publish_unique(RIVAL, HeldUntil::Begun)).await?;
    same("keys", &scene.keys().await?, &"ttuu".to_owned())
}

async fn a_unique_key_is_released_by_the_settlement(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Ended;
    scene.applied(scene.publish_unique(TASK, until)).await?;
    scene.applied(scene.assign_unique(1, 0, 0, until)).await?;
    scene.refused("the key is held while it runs", scene.publish_unique(RIVAL, until)).await?;
    let tally = scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    scene.refused("the key is held while it waits again", scene.publish_unique(RIVAL, until)).await?;
    scene.applied(scene.assign_unique(2, 0, tally, until)).await?;
    scene.refused("a late worker releases nothing", scene.settle_unique(1, until)).await?;
    scene.applied(scene.settle_unique(2, until)).await?;
    same("keys", &scene.keys().await?, &"r".to_owned())?;
    scene.applied(scene.publish_unique(RIVAL, until)).await?;
    Ok(())
}

async fn a_parked_task_holds_its_unique_key(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Ended;
    scene.applied(scene.publish_unique(TASK, until)).await?;
    scene.applied(scene.assign_unique(1, 0, 0, until)).await?;
    let parked = ParkedRecord { task: unique_task(until), ..super::parked() };
    let park = txn::park(&scene.space, &scene.attempt(1), &parked, &outcome(Ended::Parked, 1));
    scene.applied(park).await?;
    same("keys", &scene.keys().await?, &"uxr".to_owned())?;
    same("holder", &scene.holder(until).await?.task, &TASK)
}

async fn a_unique_publish_sent_again_finds_itself_not_a_rival(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Ended;
    scene.applied(scene.publish_unique(TASK, until)).await?;
    let again = scene.send(scene.publish_unique(TASK, until)).await?;
    same("again", &Published::of(&again), &Published::Already)?;
    scene.applied(scene.assign_unique(1, 0, 0, until)).await?;
    scene.applied(scene.settle_unique(1, until)).await?;
    let again = scene.send(scene.publish_unique(TASK, until)).await?;
    same("once it has ended", &Published::of(&again), &Published::Already)?;
    same("keys", &scene.keys().await?, &"r".to_owned())
}

async fn a_pending_key_is_released_by_the_first_assignment_only(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Begun;
    let revision = scene.applied(scene.publish_unique(TASK, until)).await?;
    scene.applied(scene.assign_unique(1, revision, 0, until)).await?;
    same("keys", &scene.keys().await?, &"at".to_owned())?;
    scene.applied(scene.publish_unique(RIVAL, until)).await?;
    let tally = scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    scene.applied(scene.assign_unique(2, revision, tally, until)).await?;
    same("the rival's key, while it runs", &scene.keys().await?, &"apttu".to_owned())?;
    scene.applied(scene.settle_unique(2, until)).await?;
    same("the rival's key, when it has ended", &scene.keys().await?, &"tur".to_owned())
}

async fn a_pending_task_is_replaced_where_it_stands(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Begun;
    scene.applied(scene.publish_unique(TASK, until)).await?;
    let holder = scene.holder(until).await?;
    let newer = TaskRecord {
        slot: ResultSlot::from_bits(1), // the publisher's own, which is not the task's
        payload: bytes::Bytes::from_static(b"newer"),
        ..unique_task(until)
    };
    let answer = scene.send(scene.replace(&holder, &newer)).await?;
    same("first", &Replaced::of(&answer, &holder), &Replaced::Done)?;
    let entry = scene.get(&Key::Task(scene.def.clone(), TASK)).await?;
    let record = entry.and_then(|entry| TaskRecord::decode(&entry.value).ok());
    same("record", &record, &Some(TaskRecord { slot: SLOT, ..newer.clone() }))?;
    // Of two that have seen the same, one replaces.
    let answer = scene.send(scene.replace(&holder, &newer)).await?;
    same("second", &Replaced::of(&answer, &holder), &Replaced::Changed)?;
    let holder = scene.holder(until).await?;
    scene.applied(txn::close_definition(&scene.space, &scene.def, scene.policy_seen().await?)).await?;
    let answer = scene.send(scene.replace(&holder, &newer)).await?;
    same("closed", &Replaced::of(&answer, &holder), &Replaced::Closed)
}

async fn an_assignment_is_refused_when_the_task_was_replaced_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Begun;
    let seen = scene.applied(scene.publish_unique(TASK, until)).await?;
    let holder = scene.holder(until).await?;
    let newer = scene.applied(scene.replace(&holder, &unique_task(until))).await?;
    scene.refused("planned before", scene.assign_unique(1, seen, 0, until)).await?;
    scene.applied(scene.assign_unique(2, newer, 0, until)).await?;
    same("keys", &scene.keys().await?, &"at".to_owned())
}

async fn a_task_that_has_begun_is_not_replaced(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let until = HeldUntil::Begun;
    let seen = scene.applied(scene.publish_unique(TASK, until)).await?;
    let holder = scene.holder(until).await?;
    scene.applied(scene.assign_unique(1, seen, 0, until)).await?;
    let replace = scene.replace(&holder, &unique_task(until));
    scene.refused("it runs", replace.clone()).await?;
    scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &Tally::default())).await?;
    scene.refused("it waits for its next attempt", replace).await
}

fn follow_up(definition: &DefinitionId, task: u128) -> FollowUp {
    FollowUp { definition: definition.clone(), task: TaskId::from_bits(task), record: super::task() }
}

fn settle_with(scene: &Scene<'_>, bits: u64, follow_ups: &[FollowUp]) -> Move {
    let (at, ended) = (scene.attempt(bits), outcome(Ended::Succeeded, bits));
    txn::settle_and_publish(&scene.space, &at, assignment().ties(), &ended, follow_ups)
}

async fn follow_ups_are_published_by_the_settlement(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let attempt = AttemptId::from_bits(1);
    scene.assigned(1).await?;
    let most = crate::record::limits::FOLLOW_UPS as u128;
    let next: Vec<FollowUp> = (0..most).map(|n| follow_up(&scene.def, 20 + n)).collect();
    let revision = scene.applied(settle_with(&scene, 1, &next)).await?;
    same("keys", &scene.keys().await?, &format!("{}r", "t".repeat(next.len())))?;
    let entry = scene.get(&Key::Task(scene.def.clone(), next[0].task)).await?;
    same("one revision", &entry.map(|entry| entry.create_revision), &Some(revision))?;
    let again = scene.send(settle_with(&scene, 1, &next)).await?;
    same("again", &Settled::of(&again, attempt), &Settled::Already)?;
    same("no target is to blame", &txn::closed_target(&again, attempt, &next), &None)
}

async fn follow_ups_of_a_late_worker_are_not_published(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let attempt = AttemptId::from_bits(1);
    scene.assigned(1).await?;
    scene.taken_away(1).await?;
    let next = [follow_up(&scene.def, 20)];
    scene.refused("the task is no longer its own", settle_with(&scene, 1, &next)).await?;
    let late = scene.send(settle_with(&scene, 1, &next)).await?;
    same("verdict", &Settled::of(&late, attempt), &Settled::Fenced)?;
    same("no target is to blame", &txn::closed_target(&late, attempt, &next), &None)
}

async fn a_settlement_is_refused_whole_when_a_follow_up_cannot_be_published(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let other = DefinitionId::new("media", "index").map_err(flaw)?;
    let next = [follow_up(&scene.def, 20), follow_up(&other, 21)];
    scene.refused("nobody has defined it", settle_with(&scene, 1, &next)).await?;
    let answer = scene.send(settle_with(&scene, 1, &next)).await?;
    let closed = txn::closed_target(&answer, AttemptId::from_bits(1), &next);
    same("who is to blame", &closed, &Some(&other))?;
    let written = scene.applied(txn::write_policy(&scene.space, &other, 0, &policy())).await?;
    let open = OpenRecord { uid: "u".into() };
    scene.applied(txn::open_definition(&scene.space, &other, written, &open)).await?;
    scene.applied(settle_with(&scene, 1, &next)).await?;
    holds("now it is published", scene.get(&Key::Task(other, TaskId::from_bits(21))).await?.is_some())
}
