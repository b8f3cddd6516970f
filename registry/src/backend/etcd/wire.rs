//! The waist's types to etcd's, and back.
//!
//! Pure. An answer that does not have the shape of its request is an unknown outcome.

use bytes::Bytes;
use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseHeader, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{CompareOp, DeleteOptions, GetOptions, PutOptions, TxnOp};

use crate::backend::{
    BackendError, Compare, Entry, Is, LeaseId, Op, OpAnswer, PutLease, RangeAnswer, Revision, Txn, TxnAnswer,
};

/// A transaction as etcd's client takes it.
pub(super) fn request(txn: &Txn) -> etcd_client::Txn {
    let compares: Vec<_> = txn.compares.iter().map(compare).collect();
    let then: Vec<_> = txn.then.iter().map(step).collect();
    let otherwise: Vec<_> = txn.otherwise.iter().map(step).collect();
    etcd_client::Txn::new().when(compares).and_then(then).or_else(otherwise)
}

fn compare(compare: &Compare) -> etcd_client::Compare {
    let key = compare.key.to_vec();
    match compare.is {
        Is::Present => etcd_client::Compare::create_revision(key, CompareOp::Greater, 0),
        Is::Absent => etcd_client::Compare::create_revision(key, CompareOp::Equal, 0),
        Is::At(revision) => etcd_client::Compare::mod_revision(key, CompareOp::Equal, revision),
    }
}

fn step(op: &Op) -> TxnOp {
    match op {
        Op::Get(range) => {
            let options = GetOptions::new().with_range(range.end.to_vec());
            TxnOp::get(range.start.to_vec(), Some(options))
        }
        Op::Keys(range) => {
            let options = GetOptions::new().with_range(range.end.to_vec()).with_keys_only();
            TxnOp::get(range.start.to_vec(), Some(options))
        }
        Op::Put { key, value, lease } => {
            let options = match lease {
                PutLease::None => PutOptions::new(),
                PutLease::On(id) => PutOptions::new().with_lease(id.0),
                PutLease::Keep => PutOptions::new().with_ignore_lease(),
            };
            TxnOp::put(key.to_vec(), value.to_vec(), Some(options))
        }
        Op::Delete(range) => {
            let options = DeleteOptions::new().with_range(range.end.to_vec());
            TxnOp::delete(range.start.to_vec(), Some(options))
        }
        Op::Txn(inner) => TxnOp::txn(request(inner)),
    }
}

/// One key as stored.
pub(super) fn entry(kv: PbKeyValue) -> Entry {
    Entry {
        key: Bytes::from(kv.key),
        value: Bytes::from(kv.value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    }
}

/// The answer to a range.
pub(super) fn range_answer(answer: PbRangeResponse) -> Result<RangeAnswer, BackendError> {
    let revision = revision(answer.header.as_ref())?;
    Ok(RangeAnswer { revision, entries: answer.kvs.into_iter().map(entry).collect(), more: answer.more })
}

/// The answer to a transaction; nested answers get the revision of the whole.
pub(super) fn txn_answer(answer: PbTxnResponse) -> Result<TxnAnswer, BackendError> {
    let revision = revision(answer.header.as_ref())?;
    nested_answer(answer, revision)
}

fn nested_answer(answer: PbTxnResponse, revision: Revision) -> Result<TxnAnswer, BackendError> {
    let steps = answer.responses.into_iter().map(|step| match step.response {
        Some(PbTxnOpResponse::ResponseRange(found)) => {
            Ok(OpAnswer::Get(found.kvs.into_iter().map(entry).collect()))
        }
        Some(PbTxnOpResponse::ResponsePut(_)) => Ok(OpAnswer::Put),
        Some(PbTxnOpResponse::ResponseDeleteRange(gone)) => {
            Ok(OpAnswer::Delete(u64::try_from(gone.deleted).unwrap_or(0)))
        }
        Some(PbTxnOpResponse::ResponseTxn(inner)) => Ok(OpAnswer::Txn(nested_answer(inner, revision)?)),
        None => Err(BackendError::unknown("a step of the answer is empty")),
    });
    let answers = steps.collect::<Result<_, _>>()?;
    Ok(TxnAnswer { revision, succeeded: answer.succeeded, answers })
}

fn revision(header: Option<&PbResponseHeader>) -> Result<Revision, BackendError> {
    header.map(|header| header.revision).ok_or_else(|| BackendError::unknown("the answer has no header"))
}
