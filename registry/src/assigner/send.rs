//! Carrying a plan out: steps to moves, moves to requests, answers to fates.

use std::time::Duration;

use crate::backend::{BackendError, Class, Compare, DynBackend, LeaseId, RangeRequest, Revision, TxnAnswer};
use crate::clock::Now;
use crate::entropy::Entropy;
use crate::id::DefinitionId;
use crate::key::{Key, KeyRange, Keyspace};
use crate::plan::{self, Fetch, Plan, Step, Written};
use crate::record::LeaderRecord;
use crate::session::Session;
use crate::txn::{self, Batch, Move};
use crate::view::View;

/// A refused step is planned again when the view has passed the refusal, or after this.
pub(super) const RETRY_REFUSED: Duration = Duration::from_secs(1);

/// What was certainly not applied is planned again after this.
pub(super) const RETRY_NOT_APPLIED: Duration = Duration::from_millis(250);

type Planned = (DefinitionId, Step);
type Steps = Vec<Planned>;

/// One request and the steps it carries out: those of `fetches` after those of `batch`.
pub(super) struct Request {
    steps: Steps,
    batch: Batch,
    /// Moves that need a record first.
    fetches: Vec<Fetch>,
    space: Keyspace,
    fence: Compare,
}

/// Records that one request reads before it is sent: payloads, of 64 KiB by default.
const FETCHES: usize = 16;

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
        let mut next = Draft::default();
        for (def, step) in &plan.steps {
            if requests.len() >= room {
                return requests;
            }
            let Some(written) = plan::write(self.space, self.view, def, step, self.entropy, self.now) else {
                continue;
            };
            let one = (def.clone(), step.clone());
            if let Some(refused) = next.take(written, one) {
                requests.push(self.request(std::mem::take(&mut next)));
                let (written, one) = *refused;
                let _ = next.take(written, one); // an empty one takes anything
            }
        }
        if !next.is_empty() && requests.len() < room {
            requests.push(self.request(next));
        }
        requests
    }

    fn request(&self, draft: Draft) -> Request {
        let Draft { batch, mut steps, fetches, fetching } = draft;
        steps.extend(fetching);
        Request { steps, batch, fetches, space: self.space.clone(), fence: self.fence.clone() }
    }
}

/// A request in the making.
#[derive(Default)]
struct Draft {
    batch: Batch,
    steps: Steps,
    fetches: Vec<Fetch>,
    fetching: Steps,
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.fetches.is_empty()
    }

    /// Takes a step, or gives it back: the request is full, or must be answered first.
    fn take(&mut self, written: Written, one: Planned) -> Option<Box<(Written, Planned)>> {
        match written {
            Written::Fetch(fetch) if self.fetches.len() < FETCHES => {
                self.fetches.push(fetch);
                self.fetching.push(one);
            }
            Written::Fetch(fetch) => return Some(Box::new((Written::Fetch(fetch), one))),
            Written::Move(row) => match self.batch.push(row) {
                Ok(()) => self.steps.push(one),
                Err((row, _)) => return Some(Box::new((Written::Move(row), one))),
            },
        }
        None
    }
}

impl Request {
    pub(super) fn steps(&self) -> &[(DefinitionId, Step)] {
        &self.steps
    }

    pub(super) async fn send(self, backend: DynBackend) -> Answered {
        let Self { steps, mut batch, fetches, space, fence } = self;
        let mut sent = vec![true; batch.len()];
        for row in fetched(&backend, &space, fetches).await {
            // What does not fit beside the others, by its payload, is planned again.
            sent.push(row.is_some_and(|row| batch.push(row).is_ok()));
        }
        if batch.is_empty() {
            // Only reads went wrong, or showed that there is nothing to do.
            return Answered { steps, fate: Fate::NotApplied };
        }
        let fate = match fate(backend.txn(batch.into_txn(Some(fence))).await) {
            Fate::Answered { revision, applied } => {
                let mut applied = applied.into_iter();
                let of = |sent: bool| sent && applied.next().unwrap_or(false);
                Fate::Answered { revision, applied: sent.into_iter().map(of).collect() }
            }
            other => other,
        };
        Answered { steps, fate }
    }
}

/// Reads the records, all at once, and makes the moves that need them.
async fn fetched(backend: &DynBackend, space: &Keyspace, fetches: Vec<Fetch>) -> Vec<Option<Move>> {
    let reads = fetches.into_iter().map(|fetch| async move {
        let range = KeyRange::one(space.path(&fetch.key()));
        let found = backend.range(RangeRequest::new(range)).await.ok()?;
        fetch.with(space, found.entries.first()?)
    });
    futures::future::join_all(reads).await
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
