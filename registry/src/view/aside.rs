//! What lies beside a definition's queue: parked tasks, and requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::backend::{Entry, Revision};
use crate::clock::{Instant, Now};
use crate::id::{DefinitionId, TaskId};
use crate::key::Key;
use crate::record::{Ask, DecodeError, ParkedRecord, Record, RequestRecord, Ties};
use crate::spec::Retention;

/// A standing request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The key's mod-revision.
    pub revision: Revision,
    /// What is asked.
    pub ask: Ask,
}

/// A parked task, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// The key's mod-revision.
    pub revision: Revision,
    /// What it is tied to.
    pub ties: Ties,
    /// It may be removed after this: as its writer says, but not before it was there for
    /// [`Retention::FLOOR`] by our clock, since the writer's may be wrong.
    pub expires: Instant,
}

/// What lies beside the queue of one definition.
#[derive(Debug, Default)]
pub(super) struct Aside {
    requests: BTreeMap<TaskId, Request>,
    /// `None` for one that cannot be read: it is counted, and left alone.
    parked: HashMap<TaskId, Option<Parked>>,
    /// Parked tasks by the time they may be removed.
    expiry: BTreeSet<(Instant, TaskId)>,
}

impl Aside {
    pub(super) fn requests(&self) -> impl Iterator<Item = (TaskId, Request)> {
        self.requests.iter().map(|(task, request)| (*task, *request))
    }

    pub(super) fn request(&self, task: TaskId) -> Option<Request> {
        self.requests.get(&task).copied()
    }

    pub(super) fn parked(&self, task: TaskId) -> Option<Parked> {
        self.parked.get(&task).copied().flatten()
    }

    pub(super) fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// Parked tasks that are past their time.
    pub(super) fn expired(&self, now: Instant) -> impl Iterator<Item = TaskId> {
        self.expiry.iter().take_while(move |(at, _)| *at <= now).map(|(_, task)| *task)
    }

    /// When the next parked task may be removed that may not be yet.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let after = (now, TaskId::from_bits(u128::MAX));
        self.expiry.range(after..).next().map(|(at, _)| *at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.parked.is_empty()
    }

    pub(super) fn put_request(&mut self, task: TaskId, entry: &Entry) -> Result<(), DecodeError> {
        let ask = RequestRecord::decode(&entry.value)?.ask;
        self.requests.insert(task, Request { revision: entry.mod_revision, ask });
        Ok(())
    }

    pub(super) fn remove_request(&mut self, task: TaskId) {
        self.requests.remove(&task);
    }

    pub(super) fn put_parked(&mut self, task: TaskId, entry: &Entry, now: &Now) -> Result<(), DecodeError> {
        let revision = entry.mod_revision;
        if self.parked(task).is_some_and(|known| known.revision == revision) {
            return Ok(()); // listed again
        }
        self.remove_parked(task);
        self.parked.insert(task, None);
        let record = ParkedRecord::decode(&entry.value)?;
        let (ties, expires) = (record.ties(), now.instant_of(record.expires()));
        let expires = expires.max(now.instant + Retention::FLOOR);
        self.parked.insert(task, Some(Parked { revision, ties, expires }));
        self.expiry.insert((expires, task));
        Ok(())
    }

    pub(super) fn remove_parked(&mut self, task: TaskId) {
        if let Some(Some(parked)) = self.parked.remove(&task) {
            self.expiry.remove(&(parked.expires, task));
        }
    }

    pub(super) fn keys<'a>(&'a self, id: &'a DefinitionId) -> impl Iterator<Item = Key> + 'a {
        let requests = self.requests.keys().map(|task| Key::Request(id.clone(), *task));
        requests.chain(self.parked.keys().map(|task| Key::Parked(id.clone(), *task)))
    }
}
