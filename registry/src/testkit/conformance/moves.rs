//! The table of moves, fence by fence: each row does what it says while its fence
//! holds, and nothing at all once it does not.

pub(super) mod unique;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{Flaw, Outcome, Stage, holds, same};
use super::table;
use crate::backend::{Entry, Lease, OpAnswer, RangeRequest, Revision, TxnAnswer};
use crate::check;
use crate::clock::WallMillis;
use crate::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use crate::key::{Key, KeyRange, Keyspace};
use crate::record::{
    AssignmentRecord, Ended, Isolation, LeaderRecord, OpenRecord, OutcomeRecord, ParkedRecord, PolicyRecord,
    PolicyState, Record, Tally, TaskRecord, Ties, WorkerRecord, WorkerState,
};
use crate::spec::{Execution, Policy, Retention};
use crate::txn::{self, AsSeen, AttemptRef, Batch, Move, Published, Settled};

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

/// A registry under the check's prefix, with one definition and one worker.
pub(super) struct Scene<'a> {
    stage: &'a Stage<'a>,
    pub(super) space: Keyspace,
    pub(super) def: DefinitionId,
    worker: WorkerId,
    lease: Lease,
    worker_revision: Revision,
}

pub(super) const SLOT: ResultSlot = ResultSlot::from_bits(0xbeef);
pub(super) const TASK: TaskId = TaskId::from_bits(7);

pub(super) fn flaw(error: impl std::fmt::Display) -> Flaw {
    Flaw::new(error.to_string())
}

impl<'a> Scene<'a> {
    pub(super) async fn set(stage: &'a Stage<'a>) -> Result<Self, Flaw> {
        let space = Keyspace::new(&String::from_utf8_lossy(&stage.key("registry")));
        let def = DefinitionId::new("media", "resize").map_err(flaw)?;
        let worker = WorkerId::for_session("pod", 1).map_err(flaw)?;
        let lease = stage.grant(std::time::Duration::from_secs(60)).await?;
        let mut scene = Self { stage, space, def, worker, lease, worker_revision: 0 };
        let written = scene.applied(txn::write_policy(&scene.space, &scene.def, 0, &policy())).await?;
        let open = OpenRecord { uid: "u".into() };
        scene.applied(txn::open_definition(&scene.space, &scene.def, written, &open)).await?;
        let live = WorkerRecord { slots: 4, state: WorkerState::Active, sdk: "0".into(), version: None };
        let register = txn::register_worker(&scene.space, &scene.def, &scene.worker, lease.id, &live);
        scene.worker_revision = scene.applied(register).await?;
        Ok(scene)
    }

    pub(super) async fn send_all(
        &self,
        moves: Vec<Move>,
        term: Option<Revision>,
    ) -> Result<Vec<TxnAnswer>, Flaw> {
        let mut batch = Batch::default();
        for row in moves {
            batch.push(row).map_err(|(_, why)| Flaw::new(format!("a batch refused a move: {why:?}")))?;
        }
        let fence = term.map(|term| self.space.term_fence(0, term));
        let answer = self.stage.txn(batch.into_txn(fence)).await?;
        Ok(Batch::answers(answer).unwrap_or_default())
    }

    pub(super) async fn send(&self, row: Move) -> Result<TxnAnswer, Flaw> {
        let mut answers = self.send_all(vec![row], None).await?;
        answers.pop().ok_or_else(|| Flaw::new("no answer to a move"))
    }

    /// Sends a move that must be applied; answers the revision.
    pub(super) async fn applied(&self, row: Move) -> Result<Revision, Flaw> {
        let answer = self.send(row.clone()).await?;
        holds(&format!("{row:?} is applied"), answer.succeeded)?;
        Ok(answer.revision)
    }

    /// Sends a move that must do nothing.
    pub(super) async fn refused(&self, what: &str, row: Move) -> Outcome {
        let before = self.entries().await?;
        let answer = self.send(row).await?;
        holds(what, !answer.succeeded)?;
        same(what, &self.entries().await?, &before)
    }

    async fn entries(&self) -> Result<Vec<Entry>, Flaw> {
        Ok(self.stage.range(RangeRequest::new(self.space.everything())).await?.entries)
    }

    /// The kinds of keys there are of the task, as letters in the order of the layout.
    pub(super) async fn keys(&self) -> Result<String, Flaw> {
        let entries = self.entries().await?;
        let broken = check::registry(&self.space, &entries);
        holds(&format!("no law is broken: {broken:?}"), broken.is_empty())?;
        let letter = |entry: &Entry| match self.space.parse(&entry.key) {
            Ok(Key::Task(..)) => "t",
            Ok(Key::Tally(..)) => "p",
            Ok(Key::Checkpoint(..)) => "k",
            Ok(Key::Assignment(..)) => "a",
            Ok(Key::Parked(..)) => "x",
            Ok(Key::Outcome(..)) => "r",
            Ok(Key::Unique(..)) => "u",
            _ => "",
        };
        Ok(entries.iter().map(letter).collect())
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, Flaw> {
        let range = KeyRange::one(self.space.path(key));
        Ok(self.stage.range(RangeRequest::new(range)).await?.entries.pop())
    }

    /// The revision that wrote the definition's policy.
    pub(super) async fn policy_seen(&self) -> Result<Revision, Flaw> {
        let found = self.get(&Key::Policy(self.def.clone())).await?;
        Ok(found.map_or(0, |entry| entry.mod_revision))
    }

    pub(super) fn attempt(&self, bits: u64) -> AttemptRef {
        AttemptRef {
            definition: self.def.clone(),
            worker: self.worker.clone(),
            task: TASK,
            attempt: AttemptId::from_bits(bits),
        }
    }

    pub(super) fn publish(&self) -> Move {
        txn::publish(&self.space, &self.def, TASK, &task())
    }

    /// What the assigner saw, of a task that cannot be replaced.
    pub(super) fn seen(&self, tally: Revision) -> AsSeen {
        AsSeen { task: 0, tally, worker: self.worker_revision }
    }

    pub(super) fn assign(&self, bits: u64, tally: Revision) -> Move {
        txn::assign(&self.space, &self.attempt(bits), self.seen(tally), &assignment())
    }

    pub(super) fn settle(&self, bits: u64) -> Move {
        txn::settle(&self.space, &self.attempt(bits), Ties::slot(SLOT), &outcome(Ended::Succeeded, bits))
    }

    /// Publishes the task and gives it to the worker.
    pub(super) async fn assigned(&self, bits: u64) -> Outcome {
        self.applied(self.publish()).await?;
        self.applied(self.assign(bits, 0)).await?;
        Ok(())
    }

    /// Takes the assignment away, as the assigner would after a loss.
    pub(super) async fn taken_away(&self, bits: u64) -> Outcome {
        self.applied(txn::take_back(&self.space, &self.attempt(bits), &Tally::default())).await?;
        Ok(())
    }

    pub(super) async fn lead(&self) -> Result<Revision, Flaw> {
        let record = LeaderRecord { identity: "a".into() };
        self.applied(txn::campaign(&self.space, 0, self.lease.id, &record)).await
    }

    pub(super) async fn raise(&self, term: Revision) -> Result<Revision, Flaw> {
        let record = LeaderRecord { identity: "a".into() };
        self.applied(txn::raise_term(&self.space, 0, term, &record)).await
    }
}

fn policy() -> PolicyRecord {
    PolicyRecord { uid: "u".into(), generation: 1, state: PolicyState::Active, policy: Policy::default() }
}

pub(super) fn task() -> TaskRecord {
    TaskRecord {
        slot: SLOT,
        published: WallMillis(1),
        delay: None,
        headers: BTreeMap::new(),
        options: crate::record::TaskOptions::default(),
        payload: Bytes::from_static(b"{\"width\":7}"),
    }
}

pub(super) fn assignment() -> AssignmentRecord {
    let execution = Execution::default();
    AssignmentRecord {
        number: 1,
        max_attempts: 3,
        timeout: execution.timeout,
        backoff: execution.retry.backoff,
        retention: Retention::default(),
        slot: SLOT,
        published: WallMillis(1),
        tally: Tally::default(),
        isolation: Isolation::Shared,
        cancel: false,
        has_checkpoint: false,
        headers: BTreeMap::new(),
        options: crate::record::TaskOptions::default(),
        inline: true,
        payload: task().payload,
    }
}

pub(super) fn outcome(ended: Ended, bits: u64) -> OutcomeRecord {
    OutcomeRecord {
        ended,
        attempt: 1,
        attempt_id: Some(AttemptId::from_bits(bits)),
        worker: None,
        published: WallMillis(1),
        started: WallMillis(2),
        finished: WallMillis(3),
        expires: WallMillis(4),
        cancellation: None,
        tally: Tally::default(),
        codecs: Vec::new(),
        result: Bytes::from_static(b"done"),
    }
}

pub(super) fn parked() -> ParkedRecord {
    ParkedRecord {
        parked: WallMillis(3),
        expires: Some(WallMillis(4)),
        tally: Tally::default(),
        task: task(),
    }
}

pub(super) fn twice() -> Tally {
    Tally { attempts: 2, ..Tally::default() }
}

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
