//! A transaction in four steps, as etcd takes it: decide every compare on the state
//! before the request, check the puts of the branches taken, run them, stamp the answer.
//!
//! Pure. Reads and writes the store only through its methods.

use bytes::Bytes;

use super::store::{Store, Writes};
use crate::backend::{BackendError, Entry, Is, LeaseId, Op, OpAnswer, PutLease, Revision, Txn, TxnAnswer};
use crate::key::KeyRange;

/// A transaction whose branch is chosen.
pub(super) struct Decided<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Get(&'a KeyRange),
    Keys(&'a KeyRange),
    Put { key: &'a Bytes, value: &'a Bytes, lease: PutLease },
    Delete(&'a KeyRange),
    Nested(Decided<'a>),
}

/// Chooses the branches. Nested compares too see the state before the request.
pub(super) fn decide<'a>(store: &Store, txn: &'a Txn) -> Decided<'a> {
    let succeeded = txn.compares.iter().all(|compare| holds(store, &compare.key, compare.is));
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let steps = branch.iter().map(|op| match op {
        Op::Get(range) => Step::Get(range),
        Op::Keys(range) => Step::Keys(range),
        Op::Put { key, value, lease } => Step::Put { key, value, lease: *lease },
        Op::Delete(range) => Step::Delete(range),
        Op::Txn(inner) => Step::Nested(decide(store, inner)),
    });
    Decided { succeeded, steps: steps.collect() }
}

fn holds(store: &Store, key: &[u8], is: Is) -> bool {
    let revision = store.get(key).map(|entry| entry.mod_revision);
    match is {
        Is::Present => revision.is_some(),
        Is::Absent => revision.is_none(),
        // To etcd the mod-revision of an absent key is 0.
        Is::At(expected) => revision.unwrap_or(0) == expected,
    }
}

/// Refuses the request if a put of the branches taken cannot be done.
pub(super) fn check(store: &Store, decided: &Decided<'_>) -> Result<(), BackendError> {
    for step in &decided.steps {
        match step {
            Step::Put { key, lease: PutLease::Keep, .. } if store.get(key).is_none() => {
                return Err(BackendError::Invalid("no key whose lease could be kept".to_owned()));
            }
            Step::Put { lease: PutLease::On(id), .. } if !exists(store, *id) => {
                return Err(BackendError::LeaseLost(*id));
            }
            Step::Get(_) | Step::Keys(_) | Step::Put { .. } | Step::Delete(_) => {}
            Step::Nested(inner) => check(store, inner)?,
        }
    }
    Ok(())
}

fn exists(store: &Store, id: LeaseId) -> bool {
    id == NO_LEASE || store.has_lease(id)
}

/// What etcd takes for "no lease".
const NO_LEASE: LeaseId = LeaseId(0);

/// Runs the steps in order; each sees what those before it wrote.
pub(super) fn run(store: &mut Store, decided: &Decided<'_>, writes: &mut Writes) -> TxnAnswer {
    let answers = decided.steps.iter().map(|step| run_step(store, step, writes)).collect();
    TxnAnswer { revision: writes.revision(), succeeded: decided.succeeded, answers }
}

fn run_step(store: &mut Store, step: &Step<'_>, writes: &mut Writes) -> OpAnswer {
    match step {
        Step::Get(range) => OpAnswer::Get(store.entries(range).cloned().collect()),
        Step::Keys(range) => {
            // etcd 3.7 answers from its index, which does not have the lease either.
            let bare = |entry: &Entry| Entry { value: Bytes::new(), lease: None, ..entry.clone() };
            OpAnswer::Get(store.entries(range).map(bare).collect())
        }
        Step::Put { key, value, lease } => {
            let lease = match lease {
                PutLease::None => None,
                PutLease::On(id) => Some(*id).filter(|id| *id != NO_LEASE),
                PutLease::Keep => store.get(key).and_then(|entry| entry.lease),
            };
            store.put(key, value, lease, writes);
            OpAnswer::Put
        }
        Step::Delete(range) => {
            let keys: Vec<_> = store.entries(range).map(|entry| entry.key.clone()).collect();
            for key in &keys {
                store.delete(key, writes);
            }
            OpAnswer::Delete(keys.len() as u64)
        }
        Step::Nested(inner) => OpAnswer::Txn(run(store, inner, writes)),
    }
}

/// Gives the answer, and every nested one, the revision the request ended at.
pub(super) fn stamp(answer: &mut TxnAnswer, revision: Revision) {
    answer.revision = revision;
    for inner in &mut answer.answers {
        if let OpAnswer::Txn(inner) = inner {
            stamp(inner, revision);
        }
    }
}
