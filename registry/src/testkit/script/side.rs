//! One side of a script: takes a step and answers in terms that both sides share.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::draw::Step;
use crate::backend::{
    BackendError, Change, Class, Entry, LeaseId, Op, OpAnswer, PutLease, RangeAnswer, Revision, Txn,
    TxnAnswer, WatchRequest, WatchStream, rules,
};
use crate::testkit::Host;

/// An error, as far as both sides must agree.
type Failed = (Class, Option<LeaseId>);

/// What a step was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Range(Result<RangeAnswer, Failed>),
    Txn(Result<TxnAnswer, Failed>),
    Granted(Result<Duration, Failed>),
    Kept(Result<Duration, Failed>),
    Done(Result<(), Failed>),
    Barrier { revision: Revision, compacted: Result<(), Failed>, watches: Vec<Told> },
}

impl Answer {
    pub(super) fn was_refused(&self) -> bool {
        match self {
            Self::Range(result) => result.is_err(),
            Self::Txn(result) => result.is_err(),
            Self::Granted(result) | Self::Kept(result) => result.is_err(),
            Self::Done(result) => result.is_err(),
            Self::Barrier { .. } => false,
        }
    }

    pub(super) fn changes(&self) -> usize {
        match self {
            Self::Barrier { watches, .. } => watches.iter().map(|told| told.changes.len()).sum(),
            _ => 0,
        }
    }
}

/// What one watch has told between two barriers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    request: WatchRequest,
    changes: Vec<Change>,
    ended: Option<Class>,
    /// A revision that came in two items, which must not be.
    torn: Option<Revision>,
}

struct Watching {
    request: WatchRequest,
    stream: WatchStream,
}

/// Leases live longer than the longest run.
const TTL: Duration = Duration::from_secs(3600);
/// How long a watch may take to tell what has happened.
const PATIENCE: Duration = Duration::from_secs(20);
/// Watches kept open; the oldest ends at a barrier.
const WATCHES: usize = 24;

pub(super) struct Side<'a> {
    host: &'a dyn Host,
    /// The real names of leases 1, 2, ...
    leases: Vec<LeaseId>,
    watches: Vec<Watching>,
    refused: Vec<Told>,
}

impl<'a> Side<'a> {
    pub(super) fn new(host: &'a dyn Host) -> Self {
        Self { host, leases: Vec::new(), watches: Vec::new(), refused: Vec::new() }
    }

    pub(super) async fn take(&mut self, step: &Step) -> Answer {
        let backend = self.host.backend();
        match step {
            Step::Range(request) => {
                let result = backend.range(request.clone()).await;
                Answer::Range(self.shared(result).map(|mut answer| {
                    answer.entries.iter_mut().for_each(|entry| self.name(entry));
                    answer
                }))
            }
            Step::Txn(txn) => {
                let result = backend.txn(self.real_txn(txn)).await;
                let mut result = self.shared(result);
                match &mut result {
                    Ok(answer) => self.name_all(answer),
                    // Which of several leases is gone is for etcd to know and not to say.
                    Err((_, lease)) if rules::only_lease(txn).is_none() => *lease = None,
                    Err(_) => {}
                }
                Answer::Txn(result)
            }
            Step::Grant => {
                let result = backend.grant(TTL).await;
                Answer::Granted(self.shared(result).map(|lease| {
                    self.leases.push(lease.id);
                    lease.ttl
                }))
            }
            Step::KeepAlive(lease) => {
                let result = backend.keep_alive(self.real(*lease)).await;
                Answer::Kept(self.shared(result))
            }
            Step::Revoke(lease) => {
                let result = backend.revoke(self.real(*lease)).await;
                Answer::Done(self.shared(result))
            }
            Step::Watch(request) => self.open(request).await,
            Step::Barrier { compact } => self.barrier(*compact).await,
        }
    }

    /// Whether a watch is refused at once or with its first item is the backend's
    /// choice, so that a refusal is told at the barrier.
    async fn open(&mut self, request: &WatchRequest) -> Answer {
        let request = request.clone();
        match self.host.backend().watch(request.clone()).await {
            Ok(stream) => self.watches.push(Watching { request, stream }),
            Err(error) => {
                let ended = Some(error.class());
                self.refused.push(Told { request, changes: Vec::new(), ended, torn: None });
            }
        }
        Answer::Done(Ok(()))
    }

    async fn barrier(&mut self, compact: Revision) -> Answer {
        let revision = match self.mark().await {
            Ok(revision) => revision,
            Err(error) => return Answer::Txn(self.shared(Err(error))),
        };
        let mut watches = std::mem::take(&mut self.refused);
        let mut open = Vec::new();
        for watching in std::mem::take(&mut self.watches) {
            let (told, still_open) = self.drain(watching, revision).await;
            watches.push(told);
            open.extend(still_open);
        }
        // Refused ones stand first on one side and between the others on the other.
        watches.sort_by(|one, other| sort_key(one).cmp(&sort_key(other)));
        let old = open.len().saturating_sub(WATCHES);
        open.drain(..old);
        self.watches = open;
        let compacted = self.host.compact(compact).await;
        Answer::Barrier { revision, compacted: self.shared(compacted), watches }
    }

    /// Writes into the range of every watch, often enough to reach those that begin in
    /// the future.
    async fn mark(&self) -> Result<Revision, BackendError> {
        const TIMES: usize = 6;
        let ranges = self
            .watches
            .iter()
            .map(|watching| &watching.request)
            .chain(self.refused.iter().map(|told| &told.request));
        let keys: BTreeSet<Bytes> = ranges.map(|request| request.range.start.clone()).collect();
        let put = |key: &Bytes| Op::Put { key: key.clone(), value: Bytes::new(), lease: PutLease::None };
        let mut then: Vec<Op> = keys.iter().map(put).collect();
        then.push(put(&Bytes::from_static(b"/script/zz")));
        let mut revision = 0;
        for _ in 0..TIMES {
            let txn = Txn { then: then.clone(), ..Txn::default() };
            revision = self.host.backend().txn(txn).await?.revision;
        }
        Ok(revision)
    }

    async fn drain(&self, mut watching: Watching, until: Revision) -> (Told, Option<Watching>) {
        let request = watching.request.clone();
        let mut told = Told { request, changes: Vec::new(), ended: None, torn: None };
        loop {
            let item = match timeout(PATIENCE, watching.stream.next()).await {
                Ok(Some(Ok(item))) => item,
                Ok(Some(Err(error))) => {
                    told.ended = Some(error.class());
                    return (told, None);
                }
                Ok(None) | Err(_) => {
                    told.ended = Some(Class::Unknown);
                    return (told, None);
                }
            };
            let before = told.changes.last().map(Change::revision);
            if before.is_some() && before == item.changes.first().map(Change::revision) {
                told.torn = before;
            }
            told.changes.extend(item.changes.into_iter().map(|mut change| {
                if let Change::Put(entry) = &mut change {
                    self.name(entry);
                }
                change
            }));
            if item.complete >= until {
                return (told, Some(watching));
            }
        }
    }

    fn shared<T>(&self, result: Result<T, BackendError>) -> Result<T, Failed> {
        result.map_err(|error| {
            let lease = match &error {
                BackendError::LeaseLost(lease) => Some(self.named(*lease)),
                _ => None,
            };
            (error.class(), lease)
        })
    }

    /// The real name of a lease of the script; one that nobody granted keeps its number.
    fn real(&self, lease: LeaseId) -> LeaseId {
        let granted = usize::try_from(lease.0 - 1).ok().and_then(|at| self.leases.get(at));
        granted.copied().unwrap_or(LeaseId(NEVER + lease.0))
    }

    fn named(&self, lease: LeaseId) -> LeaseId {
        let at = self.leases.iter().position(|real| *real == lease);
        let number = at.and_then(|at| i64::try_from(at).ok()).map(|at| at + 1);
        LeaseId(number.unwrap_or(lease.0 - NEVER))
    }

    fn name(&self, entry: &mut Entry) {
        entry.lease = entry.lease.map(|lease| self.named(lease));
    }

    fn name_all(&self, answer: &mut TxnAnswer) {
        for step in &mut answer.answers {
            match step {
                OpAnswer::Get(entries) => entries.iter_mut().for_each(|entry| self.name(entry)),
                OpAnswer::Txn(inner) => self.name_all(inner),
                OpAnswer::Put | OpAnswer::Delete(_) => {}
            }
        }
    }

    fn real_txn(&self, txn: &Txn) -> Txn {
        let branch = |ops: &[Op]| ops.iter().map(|op| self.real_op(op)).collect();
        Txn { compares: txn.compares.clone(), then: branch(&txn.then), otherwise: branch(&txn.otherwise) }
    }

    fn real_op(&self, op: &Op) -> Op {
        match op {
            Op::Put { key, value, lease: PutLease::On(lease) } => {
                Op::Put { key: key.clone(), value: value.clone(), lease: PutLease::On(self.real(*lease)) }
            }
            Op::Txn(inner) => Op::Txn(self.real_txn(inner)),
            other => other.clone(),
        }
    }
}

/// Far from any lease that a backend grants.
const NEVER: i64 = 0x7000_0000_0000_0000;

fn sort_key(told: &Told) -> (Revision, &Bytes, &Bytes, usize) {
    let WatchRequest { range, from } = &told.request;
    (*from, &range.start, &range.end, told.changes.len())
}
