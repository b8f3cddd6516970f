//! What the checks of moves begin with: a registry with one definition and one worker, and
//! records to put into it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{Flaw, Outcome, Stage, holds, same};
use crate::backend::{Entry, Lease, RangeRequest, Revision, TxnAnswer};
use crate::check;
use crate::clock::WallMillis;
use crate::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use crate::key::{Key, KeyRange, Keyspace};
use crate::record::{
    AssignmentRecord, Ended, Isolation, LeaderRecord, OpenRecord, OutcomeRecord, ParkedRecord, PolicyRecord,
    PolicyState, Tally, TaskRecord, Ties, WorkerRecord, WorkerState,
};
use crate::spec::{Execution, Policy, Retention};
use crate::txn::{self, AsSeen, AttemptRef, Batch, Move};

/// A registry under the check's prefix, with one definition and one worker.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) space: Keyspace,
    pub(super) def: DefinitionId,
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) worker_revision: Revision,
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

pub(super) fn policy() -> PolicyRecord {
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
