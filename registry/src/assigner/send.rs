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

/// What was certainly not applied, or not sent, is planned again after this.
pub(super) const RETRY_NOT_APPLIED: Duration = Duration::from_millis(250);

type Planned = (DefinitionId, Step);
type Steps = Vec<Planned>;

/// One request and the steps it carries out.
pub(super) struct Request {
    steps: Steps,
    work: Work,
    space: Keyspace,
    fence: Compare,
}

/// What a request sends. Never both: a batch that is full with moves has no room for those whose
/// records are read first, and while there is much to do every batch is full.
enum Work {
    Moves(Batch),
    /// Moves that need a record first.
    Fetches(Vec<Fetch>),
}

/// Records that one request reads before it is sent: payloads, of 64 KiB by default.
const FETCHES: usize = 16;

/// What became of a request.
pub(super) struct Answered {
    pub(super) steps: Steps,
    pub(super) fate: Fate,
    /// Whether it read records first.
    pub(super) fetched: bool,
}

/// What may be concluded about a request.
pub(super) enum Fate {
    /// Answered: what became of each step, in order.
    Answered { revision: Revision, steps: Vec<Became> },
    /// The term was over: nothing was applied.
    Fenced,
    /// Certainly not applied.
    NotApplied,
    /// Anything may be, or may still become.
    Unknown,
}

/// What became of a step of a request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Applied,
    /// Its fences did not hold.
    Refused,
    /// Its record could not be read, or was too large beside the others.
    NotSent,
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
    /// At most `room` requests; what does not fit is planned again. One of them reads records
    /// first, if there is any to read and it `may_fetch`.
    pub(super) fn requests(&self, plan: &Plan, room: usize, may_fetch: bool) -> Vec<Request> {
        let mut requests = Vec::new();
        if may_fetch && room > 0 {
            requests.extend(self.fetches(plan));
        }
        let (mut batch, mut steps) = (Batch::default(), Steps::new());
        for (def, step) in plan.steps.iter().filter(|(_, step)| !step.needs_record()) {
            if requests.len() >= room {
                return requests;
            }
            let Some(Written::Move(row)) = self.write(def, step) else { continue };
            let row = match batch.push(row) {
                Ok(()) => None,
                Err((row, _)) => {
                    // Full, or to be answered first.
                    let work = Work::Moves(std::mem::take(&mut batch));
                    requests.push(self.request(std::mem::take(&mut steps), work));
                    Some(row)
                }
            };
            // An empty one takes anything.
            if row.is_none_or(|row| batch.push(row).is_ok()) {
                steps.push((def.clone(), step.clone()));
            }
        }
        if !steps.is_empty() && requests.len() < room {
            requests.push(self.request(steps, Work::Moves(batch)));
        }
        requests
    }

    fn fetches(&self, plan: &Plan) -> Option<Request> {
        let (mut fetches, mut steps) = (Vec::new(), Steps::new());
        for (def, step) in plan.steps.iter().filter(|(_, step)| step.needs_record()).take(FETCHES) {
            if let Some(Written::Fetch(fetch)) = self.write(def, step) {
                fetches.push(fetch);
                steps.push((def.clone(), step.clone()));
            }
        }
        (!steps.is_empty()).then(|| self.request(steps, Work::Fetches(fetches)))
    }

    fn write(&self, def: &DefinitionId, step: &Step) -> Option<Written> {
        plan::write(self.space, self.view, def, step, self.entropy, self.now)
    }

    fn request(&self, steps: Steps, work: Work) -> Request {
        Request { steps, work, space: self.space.clone(), fence: self.fence.clone() }
    }
}

impl Request {
    pub(super) fn steps(&self) -> &[(DefinitionId, Step)] {
        &self.steps
    }

    /// Whether it reads records first.
    pub(super) fn fetches(&self) -> bool {
        matches!(self.work, Work::Fetches(_))
    }

    pub(super) async fn send(self, backend: DynBackend) -> Answered {
        let fetched = self.fetches();
        let Self { steps, work, space, fence } = self;
        let (batch, sent) = match work {
            Work::Moves(batch) => {
                let sent = vec![true; batch.len()];
                (batch, sent)
            }
            Work::Fetches(fetches) => {
                let mut batch = Batch::default();
                let rows = fetch_all(&backend, &space, fetches).await.into_iter();
                let sent = rows.map(|row| row.is_some_and(|row| batch.push(row).is_ok())).collect();
                (batch, sent)
            }
        };
        if batch.is_empty() {
            // Only reads went wrong, or showed that there is nothing to do.
            return Answered { steps, fate: Fate::NotApplied, fetched };
        }
        let fate = fate(backend.txn(batch.into_txn(Some(fence))).await, sent);
        Answered { steps, fate, fetched }
    }
}

/// Reads the records, all at once, and makes the moves that need them.
async fn fetch_all(backend: &DynBackend, space: &Keyspace, fetches: Vec<Fetch>) -> Vec<Option<Move>> {
    let reads = fetches.into_iter().map(|fetch| async move {
        let range = KeyRange::one(space.path(&fetch.key()));
        let found = backend.range(RangeRequest::new(range)).await.ok()?;
        fetch.with(space, found.entries.first()?)
    });
    futures::future::join_all(reads).await
}

/// What an answer says of the steps, of which those were sent.
fn fate(answer: Result<TxnAnswer, BackendError>, sent: Vec<bool>) -> Fate {
    match answer {
        Ok(answer) => {
            let revision = answer.revision;
            Batch::answers(answer).map_or(Fate::Fenced, |answers| {
                let mut applied = answers.iter().map(|one| one.succeeded);
                let of = |sent: bool| match sent.then(|| applied.next()) {
                    None => Became::NotSent,
                    Some(Some(true)) => Became::Applied,
                    Some(_) => Became::Refused,
                };
                Fate::Answered { revision, steps: sent.into_iter().map(of).collect() }
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

#[cfg(test)]
mod tests;
