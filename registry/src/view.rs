//! The world as maps, folded from changes.
//!
//! Everything the assigner and the scaler decide comes from here. Pure: the mirror
//! hands in entries and changes with one reading of the clock; nothing here waits or
//! sends. Folding does not depend on the order of keys within a revision, so that a
//! transaction's changes may arrive in any order.
//!
//! Values that cannot be read (newer, damaged or foreign) are left alone and counted.
//! Their keys are known all the same: a task whose assignment cannot be read is somebody's,
//! one whose tally cannot be read is not given out, a worker that cannot be read lives and
//! takes nothing.

mod aside;
mod definition;
mod lanes;
mod task;

use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;

use bytes::Bytes;

use crate::backend::{Change, Changes, Entry, Revision};
use crate::clock::Now;
use crate::id::DefinitionId;
use crate::key::{Key, Keyspace};
use crate::record::{DecodeError, MetaRecord, Record, Seen};

pub use aside::{Parked, Request};
pub use definition::{Definition, WorkerView};
pub use lanes::{Class, Lane, LaneKey, Lanes, Rank};
pub use task::{Assigned, Task};

/// Bytes of payload that a view keeps, so that assigning needs no read; what exceeds
/// it is read by the worker instead.
pub const PAYLOAD_BUDGET: usize = 32 * 1024 * 1024;

/// The folded state of everything but the results.
#[derive(Debug)]
pub struct View {
    space: Keyspace,
    revision: Revision,
    /// Revision of the leader key by shard, as seen.
    leader: BTreeMap<u16, Revision>,
    meta: Option<MetaRecord>,
    definitions: BTreeMap<DefinitionId, Definition>,
    unreadable: HashSet<Bytes>,
    payload_bytes: usize,
    /// Known keys that a list under way has not come to, in order.
    listing: Option<Peekable<std::vec::IntoIter<Bytes>>>,
}

impl View {
    /// An empty view, which knows nothing yet.
    pub fn new(space: Keyspace) -> Self {
        Self {
            space,
            revision: 0,
            leader: BTreeMap::new(),
            meta: None,
            definitions: BTreeMap::new(),
            unreadable: HashSet::new(),
            payload_bytes: 0,
            listing: None,
        }
    }

    /// Everything up to this revision is folded in; 0 before the first list.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The definitions that have a policy, a task or a worker.
    pub fn definitions(&self) -> &BTreeMap<DefinitionId, Definition> {
        &self.definitions
    }

    /// The mod-revision of a shard's leader key, if somebody leads.
    pub fn leader(&self, shard: u16) -> Option<Revision> {
        self.leader.get(&shard).copied()
    }

    /// What the registry says of itself.
    pub fn meta(&self) -> Option<&MetaRecord> {
        self.meta.as_ref()
    }

    /// How many values could not be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Lets time pass: what is due by `now` may be given out. To be called before a plan is
    /// made from the view.
    pub fn pass(&mut self, now: &Now) {
        self.definitions.values_mut().for_each(|definition| definition.pass(now.instant));
    }

    /// A task of the lane is given out: it has had its turn, seen or not.
    pub fn gave(&mut self, def: &DefinitionId, lane: &LaneKey) {
        if let Some(definition) = self.definitions.get_mut(def) {
            definition.lanes_mut().gave(lane);
        }
    }

    /// What was given out was refused: the lane has its turn back.
    pub fn refused(&mut self, def: &DefinitionId, lane: &LaneKey) {
        if let Some(definition) = self.definitions.get_mut(def) {
            definition.lanes_mut().refused(lane);
        }
    }

    /// Whether a list is being taken in: until its end the view is of no one revision,
    /// and nothing may be decided from it.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// Begins to replace everything by a list, which comes in pages in the order of keys.
    /// What was known of a task's due time stays, since it may have been seen live, which
    /// is more exact.
    pub fn begin_list(&mut self) {
        let readable = self.keys().into_iter().map(|key| self.space.path(&key));
        let mut known: Vec<Bytes> = readable.chain(self.unreadable.iter().cloned()).collect();
        known.sort_unstable();
        known.dedup();
        self.listing = Some(known.into_iter().peekable());
    }

    /// Takes in the next page.
    pub fn list_page<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>, now: &Now) {
        let mut known = self.listing.take().unwrap_or_else(|| Vec::new().into_iter().peekable());
        for entry in entries {
            while let Some(gone) = known.next_if(|known| *known < entry.key) {
                self.delete(&gone);
            }
            known.next_if(|known| *known == entry.key);
            self.put(entry, Seen::Listed, now);
        }
        self.listing = Some(known);
    }

    /// The pages are complete, and all of `revision`.
    pub fn end_list(&mut self, revision: Revision) {
        for gone in self.listing.take().into_iter().flatten() {
            self.delete(&gone);
        }
        self.revision = revision;
        self.forget_empty();
    }

    /// Replaces everything by a list.
    pub fn replace(&mut self, revision: Revision, entries: &[Entry], now: &Now) {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.begin_list();
        self.list_page(sorted, now);
        self.end_list(revision);
    }

    /// Folds in whole revisions.
    pub fn apply(&mut self, changes: &Changes, now: &Now) {
        for change in &changes.changes {
            match change {
                Change::Put(entry) => self.put(entry, Seen::Live, now),
                Change::Delete { key, .. } => self.delete(key),
            }
        }
        self.revision = self.revision.max(changes.complete);
        self.forget_empty();
    }

    fn put(&mut self, entry: &Entry, seen: Seen, now: &Now) {
        let stored = match self.space.parse(&entry.key) {
            Ok(key) => self.store(&key, entry, seen, now),
            Err(_) => Err(DecodeError::Foreign),
        };
        if stored.is_ok() {
            self.unreadable.remove(&entry.key);
        } else {
            // A slice of the received buffer would keep all of it alive.
            self.unreadable.insert(Bytes::copy_from_slice(&entry.key));
        }
    }

    fn delete(&mut self, path: &Bytes) {
        self.unreadable.remove(path);
        if let Ok(key) = self.space.parse(path) {
            self.remove(&key);
        }
    }

    fn store(&mut self, key: &Key, entry: &Entry, seen: Seen, now: &Now) -> Result<(), DecodeError> {
        match key {
            Key::Leader(shard) => {
                self.leader.insert(*shard, entry.mod_revision);
            }
            Key::Meta => self.meta = Some(MetaRecord::decode(&entry.value)?),
            // Not the assigner's yet, and not its business: nothing to know.
            Key::Unique(..) | Key::Outcome(..) => {}
            of_a_definition => {
                let Some(id) = of_a_definition.definition() else { return Ok(()) };
                let room = PAYLOAD_BUDGET.saturating_sub(self.payload_bytes);
                let definition = self.definitions.entry(id.clone()).or_default();
                let before = definition.payload_bytes();
                let stored = definition.put(key, entry, definition::Reading { seen, now, room });
                self.payload_bytes = self.payload_bytes + definition.payload_bytes() - before;
                stored?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Leader(shard) => {
                self.leader.remove(shard);
            }
            Key::Meta => self.meta = None,
            of_a_definition => {
                let id = of_a_definition.definition();
                if let Some(definition) = id.and_then(|id| self.definitions.get_mut(id)) {
                    let before = definition.payload_bytes();
                    definition.remove(key);
                    self.payload_bytes = self.payload_bytes + definition.payload_bytes() - before;
                }
            }
        }
    }

    /// Every key the view knows.
    fn keys(&self) -> Vec<Key> {
        let leaders = self.leader.keys().map(|shard| Key::Leader(*shard));
        let meta = self.meta.as_ref().map(|_| Key::Meta);
        let definitions = self.definitions.iter().flat_map(|(id, definition)| definition.keys(id));
        leaders.chain(meta).chain(definitions).collect()
    }

    fn forget_empty(&mut self) {
        self.definitions.retain(|_, definition| !definition.is_empty());
    }
}

#[cfg(test)]
mod tests;
