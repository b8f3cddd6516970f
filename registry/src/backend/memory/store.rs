//! The state behind the in-memory backend: a small MVCC store with etcd's semantics.
//!
//! Pure: no async, no clock, no randomness. Time comes in as `now`. Knows nothing of
//! watchers; they read the log at their own pace.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::apply;
use crate::backend::{
    BackendError, Change, Changes, Entry, LeaseId, RangeAnswer, RangeRequest, Revision, Txn, TxnAnswer, rules,
};
use crate::clock::Instant;
use crate::key::KeyRange;

/// One state of a key.
#[derive(Debug)]
struct Version {
    revision: Revision,
    /// `None` where the key was deleted.
    entry: Option<Entry>,
}

#[derive(Debug)]
struct LeaseState {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

/// Keys, their history, and leases.
#[derive(Debug)]
pub(super) struct Store {
    revision: Revision,
    /// Reads and watches may begin here and not before.
    compacted: Revision,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Every revision that wrote, from `compacted` on.
    log: VecDeque<(Revision, Vec<Change>)>,
    logged: usize,
    history: usize,
    leases: HashMap<LeaseId, LeaseState>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    next_lease: i64,
    /// Revisions that nobody has taken from here yet, where somebody keeps them.
    made: Option<Vec<Made>>,
}

/// One revision and what it changed.
pub(in crate::backend) type Made = (Revision, Vec<Change>);

/// What a store begins with that was kept somewhere else.
#[derive(Debug)]
#[cfg_attr(not(feature = "embedded"), allow(dead_code, reason = "for backends that keep it"))]
pub(in crate::backend) struct Kept {
    /// The newest revision. History begins here.
    pub(in crate::backend) revision: Revision,
    /// What that revision changed.
    pub(in crate::backend) changes: Vec<Change>,
    /// Everything there is at that revision; none of it hangs on a lease.
    pub(in crate::backend) entries: Vec<Entry>,
    /// Leases of this life are numbered from here: an old id is never one of them.
    pub(in crate::backend) first_lease: i64,
}

impl Store {
    /// An empty store that remembers about `history` changes.
    pub(super) fn new(history: usize) -> Self {
        Self {
            // As etcd's: the empty store is revision 1, the first write makes 2.
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            logged: 0,
            history,
            leases: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_lease: 1,
            made: None,
        }
    }

    /// A store that goes on where another ended, and whose revisions are taken away by
    /// [`Store::take_made`].
    #[cfg_attr(not(feature = "embedded"), allow(dead_code, reason = "for backends that keep it"))]
    pub(super) fn restored(history: usize, kept: Kept) -> Self {
        let mut store = Self::new(history);
        store.revision = kept.revision;
        store.compacted = kept.revision;
        store.next_lease = kept.first_lease;
        for entry in kept.entries {
            let version = Version { revision: entry.mod_revision, entry: Some(entry.clone()) };
            store.keys.insert(entry.key, vec![version]);
        }
        store.logged = kept.changes.len();
        store.log.push_back((kept.revision, kept.changes));
        store.made = Some(Vec::new());
        store
    }

    /// The revisions made since this was last asked.
    pub(super) fn take_made(&mut self) -> Vec<Made> {
        self.made.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Versions held of all keys.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Reads a range, now or at an old revision.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, BackendError> {
        rules::check_range(&request.range)?;
        let at = request.revision.filter(|revision| *revision > 0).unwrap_or(self.revision);
        if at > self.revision {
            return Err(BackendError::Invalid(format!("revision {at} is in the future")));
        }
        if at < self.compacted {
            return Err(BackendError::Compacted(self.compacted));
        }
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let mut entries = self.entries_at(&request.range, at);
        let found: Vec<Entry> = entries.by_ref().take(limit).cloned().collect();
        let more = entries.next().is_some();
        Ok(RangeAnswer { revision: self.revision, entries: found, more })
    }

    /// Commits a transaction whole, or refuses it whole.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, BackendError> {
        rules::check_txn(txn)?;
        let decided = apply::decide(self, txn);
        apply::check(self, &decided)?;
        let mut writes = Writes { revision: self.revision + 1, changes: Vec::new() };
        let mut answer = apply::run(self, &decided, &mut writes);
        self.commit(writes);
        apply::stamp(&mut answer, self.revision);
        Ok(answer)
    }

    /// The newest state of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.keys.get(key)?.last()?.entry.as_ref()
    }

    /// The newest entries of a range.
    pub(super) fn entries<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Entry> {
        self.entries_at(range, Revision::MAX)
    }

    fn entries_at<'a>(&'a self, range: &'a KeyRange, at: Revision) -> impl Iterator<Item = &'a Entry> {
        let end = if range.end.is_empty() {
            Bound::Included(range.start.as_ref())
        } else {
            Bound::Excluded(range.end.as_ref())
        };
        let keys = self.keys.range::<[u8], _>((Bound::Included(range.start.as_ref()), end));
        keys.filter_map(move |(_, versions)| {
            versions.iter().rev().find(|version| version.revision <= at)?.entry.as_ref()
        })
    }

    /// Writes one key as part of a revision.
    pub(super) fn put(&mut self, key: &Bytes, value: &Bytes, lease: Option<LeaseId>, writes: &mut Writes) {
        let before = self.get(key).map(|entry| (entry.create_revision, entry.lease));
        let (create_revision, old_lease) = before.unwrap_or((writes.revision, None));
        self.unhang(old_lease, key);
        if let Some(state) = lease.and_then(|id| self.leases.get_mut(&id)) {
            state.keys.insert(key.clone());
        }
        let entry = Entry {
            key: key.clone(),
            value: value.clone(),
            create_revision,
            mod_revision: writes.revision,
            lease,
        };
        writes.changes.push(Change::Put(entry.clone()));
        let version = Version { revision: writes.revision, entry: Some(entry) };
        self.keys.entry(key.clone()).or_default().push(version);
    }

    /// Deletes one live key as part of a revision.
    pub(super) fn delete(&mut self, key: &Bytes, writes: &mut Writes) {
        let Some(old_lease) = self.get(key).map(|entry| entry.lease) else { return };
        self.unhang(old_lease, key);
        writes.changes.push(Change::Delete { key: key.clone(), revision: writes.revision });
        let version = Version { revision: writes.revision, entry: None };
        self.keys.entry(key.clone()).or_default().push(version);
    }

    fn unhang(&mut self, lease: Option<LeaseId>, key: &Bytes) {
        if let Some(state) = lease.and_then(|id| self.leases.get_mut(&id)) {
            state.keys.remove(key);
        }
    }

    /// What wrote nothing takes no revision.
    fn commit(&mut self, writes: Writes) {
        if writes.changes.is_empty() {
            return;
        }
        self.revision = writes.revision;
        if let Some(made) = &mut self.made {
            made.push((writes.revision, writes.changes.clone()));
        }
        self.logged += writes.changes.len();
        self.log.push_back((writes.revision, writes.changes));
        if self.logged > self.history {
            self.shorten();
        }
    }

    /// Forgets the oldest quarter of a full log, so that the work is spread thin. The
    /// newest revision always stays.
    fn shorten(&mut self) {
        let keep = self.history - self.history / 4;
        let mut left = self.logged;
        let mut first_kept = self.revision;
        for (revision, changes) in &self.log {
            if left <= keep {
                first_kept = *revision;
                break;
            }
            left -= changes.len();
        }
        self.forget(first_kept);
    }

    /// Forgets history before `revision`, as etcd's compaction does.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), BackendError> {
        if revision > self.revision {
            return Err(BackendError::Invalid(format!("revision {revision} is in the future")));
        }
        if revision <= self.compacted {
            return Err(BackendError::Compacted(self.compacted));
        }
        self.forget(revision);
        Ok(())
    }

    fn forget(&mut self, revision: Revision) {
        self.compacted = revision;
        let mut touched = BTreeSet::new();
        while self.log.front().is_some_and(|(logged, _)| *logged < revision) {
            let Some((_, changes)) = self.log.pop_front() else { break };
            self.logged -= changes.len();
            touched.extend(changes.into_iter().map(|change| change.key().clone()));
        }
        // A key's old versions were each written by a revision of the log, and go
        // when a later version takes their place at `revision`.
        if let Some((logged, changes)) = self.log.front()
            && *logged == revision
        {
            touched.extend(changes.iter().map(|change| change.key().clone()));
        }
        for key in touched {
            self.prune(&key);
        }
    }

    fn prune(&mut self, key: &Bytes) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let old = versions.partition_point(|version| version.revision <= self.compacted);
        versions.drain(..old.saturating_sub(1));
        if versions.len() == 1 && versions[0].entry.is_none() && versions[0].revision <= self.compacted {
            self.keys.remove(key);
        }
    }

    /// What a watch of `range` that has been told everything before `from` is to be
    /// told now, up to and including `newest`: at most `revisions` whole revisions.
    /// `None`: nothing new.
    pub(super) fn changes(
        &self,
        range: &KeyRange,
        from: Revision,
        newest: Revision,
        revisions: usize,
    ) -> Result<Option<Changes>, BackendError> {
        if from > newest {
            return Ok(None);
        }
        if from < self.compacted {
            return Err(BackendError::Compacted(self.compacted));
        }
        let mut told = Changes { complete: newest, changes: Vec::new() };
        let mut taken = 0;
        let start = self.log.partition_point(|(revision, _)| *revision < from);
        for (revision, changes) in self.log.range(start..).take_while(|(revision, _)| *revision <= newest) {
            let before = told.changes.len();
            told.changes.extend(changes.iter().filter(|change| range.contains(change.key())).cloned());
            taken += usize::from(told.changes.len() > before);
            if taken == revisions {
                told.complete = *revision;
                break;
            }
        }
        Ok(Some(told))
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let deadline = now + ttl;
        self.leases.insert(id, LeaseState { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
        id
    }

    pub(super) fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Result<Duration, BackendError> {
        let state = self.leases.get_mut(&id).ok_or(BackendError::LeaseLost(id))?;
        self.deadlines.remove(&(state.deadline, id));
        state.deadline = now + state.ttl;
        self.deadlines.insert((state.deadline, id));
        Ok(state.ttl)
    }

    /// Ends a lease; all of its keys go in one revision, in their order.
    pub(super) fn revoke(&mut self, id: LeaseId) -> Result<(), BackendError> {
        let state = self.leases.remove(&id).ok_or(BackendError::LeaseLost(id))?;
        self.deadlines.remove(&(state.deadline, id));
        let mut writes = Writes { revision: self.revision + 1, changes: Vec::new() };
        for key in &state.keys {
            self.delete(key, &mut writes);
        }
        self.commit(writes);
        Ok(())
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ends every lease whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            // Taken from `deadlines`, so the lease exists.
            let _ = self.revoke(id);
        }
    }
}

/// The writes of the revision being made.
#[derive(Debug)]
pub(super) struct Writes {
    revision: Revision,
    changes: Vec<Change>,
}

impl Writes {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }
}
