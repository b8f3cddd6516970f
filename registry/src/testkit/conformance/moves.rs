//! The table of moves, fence by fence: each row does what it says while its fence
//! holds, and nothing at all once it does not.

pub(super) mod unique;

use super::scene::{SLOT, Scene, TASK, flaw, outcome, parked, task, twice};
use super::stage::{Flaw, Outcome, Stage, holds, same};
use super::table;
use crate::backend::OpAnswer;
use crate::id::{AttemptId, TaskId};
use crate::key::Key;
use crate::record::{
    Ended, LeaderRecord, OutcomeRecord, ParkedRecord, PolicyRecord, PolicyState, Record, Tally, Ties,
    WorkerRecord, WorkerState,
};
use crate::spec::Policy;
use crate::txn::{self, AttemptRef, Published, Settled};

pub(super) const CHECKS: &[super::Check] = table![
    a_task_is_published_once_however_often_it_is_sent,
    a_finished_task_is_not_revived_by_a_repeated_publish,
    a_parked_task_is_not_revived_by_a_repeated_publish,
    nothing_is_published_to_a_closed_definition,
    an_assignment_needs_its_task,
    an_assignment_is_refused_when_the_tally_changed_since,
    an_assignment_is_refused_when_the_worker_changed_since,
    an_assignment_is_refused_in_an_old_term,
    settling_removes_the_task_and_records_the_outcome_at_once,
    a_late_worker_cannot_settle,
    a_settle_sent_twice_finds_itself,
    a_late_worker_cannot_give_back,
    giving_back_makes_the_task_wait_with_its_tally,
    a_late_worker_cannot_park,
    parking_keeps_the_payload_and_says_so,
    a_living_worker_loses_nothing,
    a_dead_workers_task_is_returned,
    a_dead_workers_hopeless_task_is_parked,
    an_assignment_outlives_its_workers_lease,
    a_lost_fence_does_not_disturb_its_neighbours,
    a_new_term_voids_what_was_sent_in_the_old_one,
    only_one_candidate_leads,
    a_policy_is_not_written_over_one_it_has_not_seen,
    a_terminal_record_is_removed_only_as_seen,
];

async fn a_task_is_published_once_however_often_it_is_sent(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let first = scene.send(scene.publish()).await?;
    same("first", &Published::of(&first), &Published::Created)?;
    let second = scene.send(scene.publish()).await?;
    same("second", &Published::of(&second), &Published::Already)?;
    same("keys", &scene.keys().await?, &"t".to_owned())
}

async fn a_finished_task_is_not_revived_by_a_repeated_publish(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(scene.settle(1)).await?;
    let again = scene.send(scene.publish()).await?;
    same("again", &Published::of(&again), &Published::Already)?;
    same("keys", &scene.keys().await?, &"r".to_owned())
}

async fn a_parked_task_is_not_revived_by_a_repeated_publish(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let park = txn::park(&scene.space, &scene.attempt(1), &parked(), &outcome(Ended::Parked, 1));
    scene.applied(park).await?;
    let again = scene.send(scene.publish()).await?;
    same("again", &Published::of(&again), &Published::Already)?;
    let key = Key::Outcome(scene.def.clone(), SLOT, TASK);
    let seen = scene.get(&key).await?.map_or(0, |entry| entry.mod_revision);
    let expire = txn::expire_outcome(&scene.space, &scene.def, SLOT, TASK, seen);
    scene.refused("its terminal record does not go before it", expire).await
}

async fn nothing_is_published_to_a_closed_definition(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let policy = scene.policy_seen().await?;
    scene.applied(txn::close_definition(&scene.space, &scene.def, policy)).await?;
    let answer = scene.send(scene.publish()).await?;
    same("answer", &Published::of(&answer), &Published::Closed)?;
    same("keys", &scene.keys().await?, &String::new())
}

async fn an_assignment_needs_its_task(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.refused("no task, no assignment", scene.assign(1, 0)).await
}

async fn an_assignment_is_refused_when_the_tally_changed_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let tally = scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    scene.refused("planned before the give-back", scene.assign(2, 0)).await?;
    scene.applied(scene.assign(3, tally)).await?;
    same("keys", &scene.keys().await?, &"apt".to_owned())
}

async fn an_assignment_is_refused_when_the_worker_changed_since(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.applied(scene.publish()).await?;
    let cordoned = WorkerRecord { slots: 4, state: WorkerState::Cordoned, sdk: "0".into(), version: None };
    scene.applied(txn::put_worker(&scene.space, &scene.def, &scene.worker, &cordoned)).await?;
    scene.refused("planned before the cordon", scene.assign(1, 0)).await?;
    stage.revoke(scene.lease.id).await?;
    scene.refused("planned before the death", scene.assign(2, 0)).await
}

async fn an_assignment_is_refused_in_an_old_term(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.applied(scene.publish()).await?;
    let term = scene.lead().await?;
    let record = LeaderRecord { identity: "a".into() };
    let raised = scene.applied(txn::raise_term(&scene.space, 0, term, &record)).await?;
    let answers = scene.send_all(vec![scene.assign(1, 0)], Some(term)).await?;
    holds("a batch of an old term does nothing", answers.is_empty())?;
    same("keys", &scene.keys().await?, &"t".to_owned())?;
    let answers = scene.send_all(vec![scene.assign(2, 0)], Some(raised)).await?;
    holds("a batch of the new term is applied", answers.iter().all(|one| one.succeeded))?;
    same("keys", &scene.keys().await?, &"at".to_owned())
}

async fn settling_removes_the_task_and_records_the_outcome_at_once(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let revision = scene.applied(scene.settle(1)).await?;
    same("keys", &scene.keys().await?, &"r".to_owned())?;
    let entry = scene.get(&Key::Outcome(scene.def.clone(), SLOT, TASK)).await?;
    let entry = entry.ok_or_else(|| Flaw::new("no terminal record"))?;
    same("revision", &entry.mod_revision, &revision)?;
    let record = OutcomeRecord::decode(&entry.value).map_err(flaw)?;
    same("record", &record, &outcome(Ended::Succeeded, 1))
}

async fn a_late_worker_cannot_settle(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.taken_away(1).await?;
    scene.refused("the task waits again", scene.settle(1)).await?;
    let tally = Key::Tally(scene.def.clone(), TASK);
    let seen = scene.get(&tally).await?.map_or(0, |entry| entry.mod_revision);
    scene.applied(scene.assign(2, seen)).await?;
    scene.refused("the task is another attempt's", scene.settle(1)).await?;
    scene.applied(scene.settle(2)).await?;
    let late = scene.send(scene.settle(1)).await?;
    same("verdict", &Settled::of(&late, AttemptId::from_bits(1)), &Settled::Fenced)
}

async fn a_settle_sent_twice_finds_itself(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let attempt = AttemptId::from_bits(1);
    let first = scene.send(scene.settle(1)).await?;
    same("first", &Settled::of(&first, attempt), &Settled::Done)?;
    let second = scene.send(scene.settle(1)).await?;
    same("second", &Settled::of(&second, attempt), &Settled::Already)
}

async fn a_late_worker_cannot_give_back(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.taken_away(1).await?;
    let back = txn::give_back(&scene.space, &scene.attempt(1), &twice());
    scene.refused("the task is no longer its own", back).await
}

async fn giving_back_makes_the_task_wait_with_its_tally(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.applied(txn::give_back(&scene.space, &scene.attempt(1), &twice())).await?;
    same("keys", &scene.keys().await?, &"pt".to_owned())?;
    let entry = scene.get(&Key::Tally(scene.def.clone(), TASK)).await?;
    let tally = entry.and_then(|entry| Tally::decode(&entry.value).ok());
    same("tally", &tally, &Some(twice()))
}

async fn a_late_worker_cannot_park(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    scene.taken_away(1).await?;
    let park = txn::park(&scene.space, &scene.attempt(1), &parked(), &outcome(Ended::Parked, 1));
    scene.refused("the task is no longer its own", park).await
}

async fn parking_keeps_the_payload_and_says_so(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let park = txn::park(&scene.space, &scene.attempt(1), &parked(), &outcome(Ended::Parked, 1));
    scene.applied(park).await?;
    same("keys", &scene.keys().await?, &"xr".to_owned())?;
    let entry = scene.get(&Key::Parked(scene.def.clone(), TASK)).await?;
    let kept = entry.and_then(|entry| ParkedRecord::decode(&entry.value).ok());
    same("payload", &kept.map(|kept| kept.task), &Some(task()))
}

async fn a_living_worker_loses_nothing(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let at = scene.attempt(1);
    scene.refused("the worker lives", txn::lost(&scene.space, &at, &twice())).await?;
    let hopeless = txn::lost_for_good(&scene.space, &at, &parked(), &outcome(Ended::Parked, 1));
    scene.refused("the worker lives", hopeless).await
}

async fn a_dead_workers_task_is_returned(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    stage.revoke(scene.lease.id).await?;
    scene.applied(txn::lost(&scene.space, &scene.attempt(1), &twice())).await?;
    same("keys", &scene.keys().await?, &"pt".to_owned())
}

async fn a_dead_workers_hopeless_task_is_parked(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    stage.revoke(scene.lease.id).await?;
    let at = scene.attempt(1);
    scene.applied(txn::lost_for_good(&scene.space, &at, &parked(), &outcome(Ended::Parked, 1))).await?;
    same("keys", &scene.keys().await?, &"xr".to_owned())
}

async fn an_assignment_outlives_its_workers_lease(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    stage.revoke(scene.lease.id).await?;
    same("worker", &scene.get(&Key::Worker(scene.def.clone(), scene.worker.clone())).await?, &None)?;
    same("keys", &scene.keys().await?, &"at".to_owned())
}

async fn a_lost_fence_does_not_disturb_its_neighbours(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let mut moves = vec![scene.settle(1)];
    let other =
        |task: u128, attempt: u64| AttemptRef { task: TaskId::from_bits(task), ..scene.attempt(attempt) };
    moves.push(txn::settle(&scene.space, &other(8, 2), Ties::slot(SLOT), &outcome(Ended::Succeeded, 2)));
    moves.push(txn::publish(&scene.space, &scene.def, TaskId::from_bits(9), &task()));
    let answers = scene.send_all(moves, None).await?;
    let applied: Vec<bool> = answers.iter().map(|answer| answer.succeeded).collect();
    same("applied", &applied, &vec![true, false, true])
}

async fn a_new_term_voids_what_was_sent_in_the_old_one(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let term = scene.lead().await?;
    let record = LeaderRecord { identity: "a".into() };
    scene.applied(txn::raise_term(&scene.space, 0, term, &record)).await?;
    scene.refused("an old term cannot be raised", txn::raise_term(&scene.space, 0, term, &record)).await?;
    stage.revoke(scene.lease.id).await?;
    let lost = txn::lost(&scene.space, &scene.attempt(1), &twice());
    let answers = scene.send_all(vec![lost], Some(term)).await?;
    holds("nothing of the old term is applied", answers.is_empty())
}

async fn only_one_candidate_leads(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let term = scene.lead().await?;
    let rival = stage.grant(std::time::Duration::from_secs(60)).await?;
    let record = LeaderRecord { identity: "b".into() };
    let campaign = txn::campaign(&scene.space, 0, rival.id, &record);
    scene.refused("the key is taken", campaign.clone()).await?;
    stage.revoke(scene.lease.id).await?;
    let next = scene.applied(campaign).await?;
    holds("a later term is higher", next > term)
}

async fn a_policy_is_not_written_over_one_it_has_not_seen(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let seen = scene.policy_seen().await?;
    let policy = |generation| PolicyRecord {
        uid: "u".into(),
        generation,
        state: PolicyState::Active,
        policy: Policy::default(),
    };
    let write = |seen, generation| txn::write_policy(&scene.space, &scene.def, seen, &policy(generation));
    scene.refused("there is one already", write(0, 2)).await?;
    scene.applied(write(seen, 2)).await?;
    scene.refused("there is a newer one", write(seen, 3)).await
}

async fn a_terminal_record_is_removed_only_as_seen(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    scene.assigned(1).await?;
    let revision = scene.applied(scene.settle(1)).await?;
    let expire = |seen| txn::expire_outcome(&scene.space, &scene.def, SLOT, TASK, seen);
    scene.refused("seen otherwise", expire(revision - 1)).await?;
    let answer = scene.send(expire(revision)).await?;
    same("deleted", &answer.answers, &vec![OpAnswer::Delete(1)])?;
    same("keys", &scene.keys().await?, &String::new())
}
