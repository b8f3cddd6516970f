//! The steps of a script, drawn from a seed.
//!
//! Few keys and short transactions, so that they get in each other's way.

use bytes::Bytes;

use super::side::Answer;
use crate::backend::{
    Compare, Is, LeaseId, Op, OpAnswer, PutLease, RangeRequest, Revision, Txn, TxnAnswer, WatchRequest,
};
use crate::entropy::Entropy;
use crate::key::KeyRange;

/// One operation of a script. Leases are named by the order of their grants.
#[derive(Debug)]
pub(super) enum Step {
    Range(RangeRequest),
    Txn(Txn),
    Grant,
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    Watch(WatchRequest),
    /// Compare what watches have told, then compact.
    Barrier {
        compact: Revision,
    },
}

const PREFIX: &str = "/script/";
const NAMES: [&str; 12] = ["a", "ab", "abc", "abd", "b", "b/1", "b/2", "c", "ca", "d", "e", "ea"];

pub(super) struct Draw {
    entropy: Entropy,
    revision: Revision,
    compacted: Revision,
    seen: Vec<Revision>,
    leases: i64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { entropy: Entropy::seeded(seed), revision: 1, compacted: 0, seen: vec![1], leases: 0 }
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.entropy.bits64() % bound.max(1) as u64).unwrap_or(0)
    }

    fn back(&self, most: usize) -> Revision {
        Revision::try_from(self.below(most)).unwrap_or(0)
    }

    fn key(&self) -> Bytes {
        Bytes::from(format!("{PREFIX}{}", NAMES[self.below(NAMES.len())]))
    }

    fn range(&self) -> KeyRange {
        match self.below(6) {
            0 => KeyRange::prefix(PREFIX),
            1 => KeyRange::prefix(self.key()),
            2 => {
                let (one, other) = (self.key(), self.key());
                let (start, end) = if one <= other { (one, other) } else { (other, one) };
                // The same key twice makes a range of that key alone.
                KeyRange { end: if start == end { Bytes::new() } else { end }, start }
            }
            _ => KeyRange::one(self.key()),
        }
    }

    pub(super) fn step(&self) -> Step {
        match self.below(100) {
            0..70 => Step::Txn(self.txn(2)),
            70..84 => Step::Range(RangeRequest {
                range: self.range(),
                revision: (self.below(2) == 0).then(|| self.revision + 2 - self.back(300)),
                limit: self.below(5),
            }),
            84..88 => Step::Grant,
            88..92 => Step::KeepAlive(self.lease()),
            92..96 => Step::Revoke(self.lease()),
            _ => {
                let from = (self.revision + 3 - self.back(300)).max(1);
                Step::Watch(WatchRequest { range: self.range(), from })
            }
        }
    }

    pub(super) fn barrier(&self) -> Step {
        Step::Barrier { compact: self.revision - self.back(200) }
    }

    fn lease(&self) -> LeaseId {
        // Sometimes one that nobody has granted yet.
        let newest = usize::try_from(self.leases).unwrap_or(0);
        LeaseId(self.leases + 2 - i64::try_from(self.below(newest.min(12) + 2)).unwrap_or(0))
    }

    fn txn(&self, depth: usize) -> Txn {
        let compares = (0..self.below(3)).map(|_| Compare { key: self.key(), is: self.is() }).collect();
        let branch = |most| (0..self.below(most)).map(|_| self.op(depth)).collect();
        Txn { compares, then: branch(5), otherwise: branch(3) }
    }

    fn is(&self) -> Is {
        match self.below(4) {
            0 => Is::Present,
            1 => Is::Absent,
            2 => Is::At(self.seen[self.below(self.seen.len())]),
            _ => Is::At(0),
        }
    }

    fn op(&self, depth: usize) -> Op {
        match self.below(10) {
            0 => Op::Get(self.range()),
            1 => Op::Keys(self.range()),
            2..4 => Op::Delete(self.range()),
            4..7 if depth > 0 => Op::Txn(self.txn(depth - 1)),
            _ => {
                let lease = match self.below(6) {
                    0 => PutLease::On(self.lease()),
                    1 => PutLease::Keep,
                    _ => PutLease::None,
                };
                let value = Bytes::from(format!("{}", self.below(1000)));
                Op::Put { key: self.key(), value, lease }
            }
        }
    }

    /// Takes in what both sides have answered, so that later steps refer to it.
    pub(super) fn learn(&mut self, step: &Step, answer: &Answer) {
        match answer {
            Answer::Granted(Ok(_)) => self.leases += 1,
            Answer::Txn(Ok(answer)) => {
                self.revision = answer.revision;
                self.see(answer);
            }
            Answer::Range(Ok(answer)) => self.revision = answer.revision,
            Answer::Barrier { revision, compacted, .. } => {
                self.revision = *revision;
                if let (Step::Barrier { compact }, Ok(())) = (step, compacted) {
                    self.compacted = *compact;
                }
            }
            _ => {}
        }
    }

    fn see(&mut self, answer: &TxnAnswer) {
        const REMEMBERED: usize = 40;
        for step in &answer.answers {
            match step {
                OpAnswer::Get(entries) => self.seen.extend(entries.iter().map(|entry| entry.mod_revision)),
                OpAnswer::Put => self.seen.push(answer.revision),
                OpAnswer::Txn(inner) => self.see(inner),
                OpAnswer::Delete(_) => {}
            }
        }
        let old = self.seen.len().saturating_sub(REMEMBERED);
        self.seen.drain(..old);
    }
}
