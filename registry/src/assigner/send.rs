//! Carrying a plan out: steps to moves, moves to requests, answers to fates.

use std::time::Duration;

use crate::backend::{
    BackendError, Class, Compare, DynBackend, LeaseId, RangeRequest, Revision, Txn, TxnAnswer,
};
use crate::clock::Now;
use crate::entropy::Entropy;
use crate::id::DefinitionId;
use crate::key::{Key, KeyRange, Keyspace};
use crate::plan::{self, Plan, Step, Written};
use crate::record::{LeaderRecord, OutcomeRecord, ParkedRecord, Record, TaskRecord};
use crate::session::Session;
use crate::txn::{self, AttemptRef, Batch};
use crate::view::View;

/// A refused step is planned again when the view has passed the refusal, or after this.
pub(super) const RETRY_REFUSED: Duration = Duration::from_secs(1);

/// What was certainly not applied is planned again after this.
pub(super) const RETRY_NOT_APPLIED: Duration = Duration::from_millis(250);

type Steps = Vec<(DefinitionId, Step)>;

/// One request and the steps it carries out.
pub(super) struct Request {
    steps: Steps,
    body: Body,
}

enum Body {
    Ready(Txn),
    /// A task to park: its record is read first.
    Park(Box<Parking>),
}

struct Parking {
    space: Keyspace,
    fence: Compare,
    at: AttemptRef,
    outcome: Box<OutcomeRecord>,
}

/// What became of a request.
pub(super) struct Answered {
    pub(super) steps: Steps,
    pub(super) fate: Fate,
}

/// What may be concluded about a request.
pub(super) enum Fate {
    /// Answered: which steps were applied, in order.
    Answered { revision: Revision, applied: Vec<bool> },
    /// The term was over: nothing was applied.
    Fenced,
    /// Certainly not applied.
    NotApplied,
    /// Anything may be, or may still become.
    Unknown,
}

/// Makes requests from a plan.
pub(super) struct Maker<'a> {
    pub(super) space: &'a Keyspace,
    pub(super) view: &'a View,
    pub(super) entropy: &'a Entropy,
    pub(super) fence: Compare,
    pub(super) now: &'a Now,
}

impl Maker<'_> {
    /// At most `room` requests; what does not fit is planned again.
    pub(super) fn requests(&self, plan: &Plan, room: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        let (mut batch, mut steps) = (Batch::default(), Steps::new());
        for (def, step) in &plan.steps {
            if requests.len() >= room {
                return requests;
            }
            let one = || (def.clone(), step.clone());
            match plan::write(self.space, self.view, def, step, self.entropy, self.now) {
                None => {}
                Some(Written::Park { at, outcome }) => {
                    let (space, fence) = (self.space.clone(), self.fence.clone());
                    let body = Body::Park(Box::new(Parking { space, fence, at, outcome }));
                    requests.push(Request { steps: vec![one()], body });
                }
                Some(Written::Move(row)) => match batch.push(row) {
                    Ok(()) => steps.push(one()),
                    Err((row, _)) => {
                        let full = std::mem::take(&mut batch);
                        requests.push(self.request(full, std::mem::take(&mut steps)));
                        if batch.push(row).is_ok() {
                            steps.push(one());
                        }
                    }
                },
            }
        }
        if !batch.is_empty() && requests.len() < room {
            requests.push(self.request(batch, steps));
        }
        requests
    }

    fn request(&self, batch: Batch, steps: Steps) -> Request {
        Request { steps, body: Body::Ready(batch.into_txn(Some(self.fence.clone()))) }
    }
}

impl Request {
    pub(super) fn steps(&self) -> &[(DefinitionId, Step)] {
        &self.steps
    }

    pub(super) async fn send(self, backend: DynBackend) -> Answered {
        let txn = match self.body {
            Body::Ready(txn) => Ok(Some(txn)),
            Body::Park(parking) => park(&backend, *parking).await,
        };
        let fate = match txn {
            Ok(Some(txn)) => fate(backend.txn(txn).await),
            // Only a read went wrong, or showed that there is nothing to park.
            Ok(None) | Err(_) => Fate::NotApplied,
        };
        Answered { steps: self.steps, fate }
    }
}

/// Reads the task, and makes the request that parks it.
async fn park(backend: &DynBackend, parking: Parking) -> Result<Option<Txn>, BackendError> {
    let Parking { space, fence, at, outcome } = parking;
    let key = space.path(&Key::Task(at.definition.clone(), at.task));
    let found = backend.range(RangeRequest::new(KeyRange::one(key))).await?;
    let Some(task) = found.entries.first().and_then(|entry| TaskRecord::decode(&entry.value).ok()) else {
        return Ok(None);
    };
    let parked = ParkedRecord { parked: outcome.finished, tally: outcome.tally.clone(), task };
    let mut batch = Batch::default();
    let taken = batch.push(txn::lost_for_good(&space, &at, &parked, &outcome)).is_ok();
    Ok(taken.then(|| batch.into_txn(Some(fence))))
}

fn fate(answer: Result<TxnAnswer, BackendError>) -> Fate {
    match answer {
        Ok(answer) => {
            let revision = answer.revision;
            Batch::answers(answer).map_or(Fate::Fenced, |answers| Fate::Answered {
                revision,
                applied: answers.iter().map(|one| one.succeeded).collect(),
            })
        }
        Err(error) => match error.class() {
            Class::NotApplied => Fate::NotApplied,
            Class::Invalid => {
                // Refused whole: a mistake of ours. Not applied, and said loudly.
                tracing::error!(%error, "the registry refused a plan");
                Fate::NotApplied
            }
            Class::Unknown | Class::Relist | Class::LeaseLost => Fate::Unknown,
        },
    }
}

/// Beginning a new term of the same leader.
pub(super) struct Raise<'a> {
    pub(super) backend: &'a DynBackend,
    pub(super) space: &'a Keyspace,
    pub(super) shard: u16,
    pub(super) lease: LeaseId,
    pub(super) record: &'a LeaderRecord,
}

impl Raise<'_> {
    /// Re-puts the leader key over `term` until an answer says that the term is ours
    /// (the new one), or that somebody else leads (`None`).
    pub(super) async fn until_answered(&self, term: Revision, session: &Session) -> Option<Revision> {
        let mut waits = crate::backoff::Waits::spread_by(self.record.identity.as_bytes());
        loop {
            session.tick();
            match self.once(term).await {
                Ok(known) => return known,
                Err(error) => tracing::warn!(%error, "cannot raise the term yet"),
            }
            tokio::time::sleep(waits.after_failure().min(session.ttl() / 4)).await;
        }
    }

    async fn once(&self, term: Revision) -> Result<Option<Revision>, BackendError> {
        let mut batch = Batch::default();
        if batch.push(txn::raise_term(self.space, self.shard, term, self.record)).is_err() {
            return Ok(None);
        }
        let answer = self.backend.txn(batch.into_txn(None)).await?;
        let revision = answer.revision;
        if Batch::answers(answer).is_some_and(|all| all.iter().all(|one| one.succeeded)) {
            return Ok(Some(revision));
        }
        // An earlier try that went unanswered may have raised it: then the key is still
        // on our lease, and its mod-revision is the term. Nothing was sent since.
        let key = self.space.path(&Key::Leader(self.shard));
        let found = self.backend.range(RangeRequest::new(KeyRange::one(key))).await?;
        let ours = found.entries.first().filter(|entry| entry.lease == Some(self.lease));
        Ok(ours.map(|entry| entry.mod_revision))
    }
}
