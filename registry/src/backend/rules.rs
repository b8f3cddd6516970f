//! The shape of a request, by etcd's own rules: what every backend refuses unread.
//!
//! Pure. Knows neither the stored keys nor the leases; those verdicts belong to the
//! store. The order of the three passes over puts and deletes is etcd's
//! (`checkIntervals`), and so are its gaps: a nested put may come before a sibling's
//! delete of the same key, but not after it.

use std::collections::HashSet;

use super::{BackendError, LeaseId, Op, PutLease, Txn, limits};
use crate::key::KeyRange;

/// Refuses a transaction that no backend would take.
pub fn check_txn(txn: &Txn) -> Result<(), BackendError> {
    check_local(txn)?;
    if depth_of_ops(txn) > limits::OPS {
        return Err(BackendError::Invalid("too many operations in one transaction".to_owned()));
    }
    touched(&txn.then)?;
    touched(&txn.otherwise)?;
    Ok(())
}

/// The part of [`check_txn`] that etcd does not judge as we do: our lower limit of
/// size, and ranges that are upside down (whose end etcd may take for infinity).
pub(crate) fn check_local(txn: &Txn) -> Result<(), BackendError> {
    let bytes = request_bytes(txn);
    if bytes > limits::REQUEST_BYTES {
        let limit = limits::REQUEST_BYTES;
        return Err(BackendError::Invalid(format!("request is too large: {bytes} bytes of {limit}")));
    }
    check_keys(txn)
}

/// Refuses a range that holds nothing by its very shape.
pub fn check_range(range: &KeyRange) -> Result<(), BackendError> {
    if range.start.is_empty() {
        return Err(BackendError::Invalid("a key is empty".to_owned()));
    }
    if !range.end.is_empty() && range.end <= range.start {
        return Err(BackendError::Invalid("a range ends before it starts".to_owned()));
    }
    Ok(())
}

/// Steps of a request as etcd counts them: per level max(compares, then, otherwise),
/// summed over the deepest path.
pub fn depth_of_ops(txn: &Txn) -> usize {
    let level = txn.compares.len().max(txn.then.len()).max(txn.otherwise.len());
    let nested = txn.then.iter().chain(&txn.otherwise).filter_map(|op| match op {
        Op::Txn(inner) => Some(depth_of_ops(inner)),
        Op::Get(_) | Op::Keys(_) | Op::Put { .. } | Op::Delete(_) => None,
    });
    level + nested.max().unwrap_or(0)
}

/// Bytes of keys and values in a request.
pub fn request_bytes(txn: &Txn) -> usize {
    let compares: usize = txn.compares.iter().map(|compare| compare.key.len()).sum();
    let ops = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
        Op::Get(range) | Op::Keys(range) | Op::Delete(range) => range.start.len() + range.end.len(),
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Txn(inner) => request_bytes(inner),
    });
    compares + ops.sum::<usize>()
}

/// The lease a transaction hangs keys on, if it is one and the same for all of them.
pub fn only_lease(txn: &Txn) -> Option<LeaseId> {
    let mut leases = HashSet::new();
    collect_leases(txn, &mut leases);
    leases.iter().next().copied().filter(|_| leases.len() == 1)
}

fn collect_leases(txn: &Txn, leases: &mut HashSet<LeaseId>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { lease: PutLease::On(id), .. } => {
                leases.insert(*id);
            }
            Op::Txn(inner) => collect_leases(inner, leases),
            Op::Put { .. } | Op::Get(_) | Op::Keys(_) | Op::Delete(_) => {}
        }
    }
}

fn check_keys(txn: &Txn) -> Result<(), BackendError> {
    let empty = || Err(BackendError::Invalid("a key is empty".to_owned()));
    if txn.compares.iter().any(|compare| compare.key.is_empty()) {
        return empty();
    }
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Get(range) | Op::Keys(range) | Op::Delete(range) => check_range(range)?,
            Op::Put { key, .. } if key.is_empty() => return empty(),
            Op::Put { .. } => {}
            Op::Txn(inner) => check_keys(inner)?,
        }
    }
    Ok(())
}

/// Keys that one branch may put, and what it may delete.
#[derive(Default)]
struct Touched<'a> {
    puts: HashSet<&'a [u8]>,
    deleted_keys: HashSet<&'a [u8]>,
    deleted_ranges: Vec<&'a KeyRange>,
}

impl<'a> Touched<'a> {
    fn delete(&mut self, range: &'a KeyRange) {
        if range.end.is_empty() {
            self.deleted_keys.insert(&range.start);
        } else {
            self.deleted_ranges.push(range);
        }
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), BackendError> {
        self.not_deleted(key)?;
        if self.puts.insert(key) { Ok(()) } else { Err(duplicate(key)) }
    }

    fn not_deleted(&self, key: &[u8]) -> Result<(), BackendError> {
        let deleted =
            self.deleted_keys.contains(key) || self.deleted_ranges.iter().any(|range| range.contains(key));
        if deleted { Err(duplicate(key)) } else { Ok(()) }
    }
}

fn duplicate(key: &[u8]) -> BackendError {
    let key = String::from_utf8_lossy(key);
    BackendError::Invalid(format!("key is written more than once in one request: {key}"))
}

fn touched(ops: &[Op]) -> Result<Touched<'_>, BackendError> {
    let mut all = Touched::default();
    for op in ops {
        if let Op::Delete(range) = op {
            all.delete(range);
        }
    }
    for op in ops {
        let Op::Txn(inner) = op else { continue };
        let (then, otherwise) = (touched(&inner.then)?, touched(&inner.otherwise)?);
        for key in &then.puts {
            all.put(key)?;
        }
        for key in &otherwise.puts {
            // The two branches exclude each other, so both may put the key.
            if then.puts.contains(key) {
                continue;
            }
            all.put(key)?;
        }
        for branch in [then, otherwise] {
            all.deleted_keys.extend(branch.deleted_keys);
            all.deleted_ranges.extend(branch.deleted_ranges);
        }
    }
    for op in ops {
        if let Op::Put { key, .. } = op {
            all.put(key)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backend::{Compare, Is};

    fn put(key: &'static str) -> Op {
        Op::Put { key: Bytes::from(key), value: Bytes::new(), lease: PutLease::None }
    }

    fn delete(key: &'static str) -> Op {
        Op::Delete(KeyRange::one(Bytes::from(key)))
    }

    fn nested(then: Vec<Op>, otherwise: Vec<Op>) -> Op {
        Op::Txn(Txn { compares: vec![], then, otherwise })
    }

    fn taken(then: Vec<Op>) -> bool {
        check_txn(&Txn { compares: vec![], then, otherwise: vec![] }).is_ok()
    }

    #[test]
    fn a_key_is_put_at_most_once_over_all_branches_that_may_run_together() {
        assert!(taken(vec![put("a"), put("b")]));
        assert!(!taken(vec![put("a"), put("a")]));
        assert!(!taken(vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]));
        assert!(taken(vec![nested(vec![put("a")], vec![put("a")])]));
        assert!(!taken(vec![nested(vec![put("a")], vec![]), put("a")]));
    }

    #[test]
    fn a_put_may_come_before_a_siblings_delete_but_not_after_it() {
        assert!(taken(vec![nested(vec![put("a")], vec![]), nested(vec![delete("a")], vec![])]));
        assert!(!taken(vec![nested(vec![delete("a")], vec![]), nested(vec![put("a")], vec![])]));
        assert!(!taken(vec![put("a"), delete("a")]));
        assert!(!taken(vec![put("ab"), Op::Delete(KeyRange::prefix("a"))]));
        assert!(taken(vec![nested(vec![delete("a")], vec![put("a")])]));
        assert!(taken(vec![delete("a"), Op::Delete(KeyRange::prefix("a"))]));
    }

    #[test]
    fn steps_are_counted_level_by_level_along_the_deepest_path() {
        let present = |key: &'static str| Compare { key: Bytes::from(key), is: Is::Present };
        let inner = |compares| Txn {
            compares: (0..compares).map(|_| present("a")).collect(),
            then: vec![delete("a"), delete("b"), delete("c")],
            otherwise: vec![],
        };
        let batch = |count: usize, compares: usize| Txn {
            compares: vec![],
            then: (0..count).map(|_| Op::Txn(inner(compares))).collect(),
            otherwise: vec![],
        };
        assert!(check_txn(&batch(125, 3)).is_ok());
        assert!(check_txn(&batch(125, 4)).is_err());
        assert!(check_txn(&batch(124, 4)).is_ok());
    }

    #[test]
    fn empty_keys_and_upside_down_ranges_are_refused() {
        assert!(!taken(vec![put("")]));
        assert!(!taken(vec![nested(vec![delete("")], vec![])]));
        let upside_down = KeyRange { start: Bytes::from("b"), end: Bytes::from("a") };
        assert!(!taken(vec![Op::Get(upside_down)]));
    }
}
