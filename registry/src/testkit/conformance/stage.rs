//! What the checks are written with: short words for requests, and comparisons that
//! say what differs.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use crate::backend::{
    Backend, BackendError, Change, Changes, Class, Compare, Entry, Is, LeaseId, Op, PutLease, RangeAnswer,
    RangeRequest, Revision, Txn, TxnAnswer, WatchRequest, WatchStream,
};
use crate::key::KeyRange;
use crate::testkit::Host;

/// What was not as promised.
#[derive(Debug)]
pub struct Flaw(String);

impl Flaw {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BackendError> for Flaw {
    fn from(error: BackendError) -> Self {
        Self(format!("a request failed that must not: {error}"))
    }
}

pub(super) type Outcome = Result<(), Flaw>;

/// Fails unless both are equal.
pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(Flaw(format!("{what}: found {}, expected {}", shortened(found), shortened(expected))))
}

/// As `Debug` has it, but readable in a terminal.
fn shortened(value: &impl fmt::Debug) -> String {
    const MOST: usize = 500;
    let text = format!("{value:?}");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Fails unless `held`.
pub(super) fn holds(what: &str, held: bool) -> Outcome {
    if held { Ok(()) } else { Err(Flaw(what.to_owned())) }
}

/// Fails unless the request failed with this class.
pub(super) fn fails<T: fmt::Debug>(what: &str, result: Result<T, BackendError>, class: Class) -> Outcome {
    match result {
        Err(error) if error.class() == class => Ok(()),
        other => Err(Flaw(format!("{what}: expected {class:?}, found {other:?}"))),
    }
}

/// How long a watch may take to tell something.
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend, and the part of its keys that belongs to one check.
pub struct Stage<'a> {
    pub(super) host: &'a dyn Host,
    prefix: String,
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

impl Deref for Stage<'_> {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        self.host.backend()
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(host: &'a dyn Host, check: &str) -> Self {
        Self { host, prefix: format!("/check/{check}/") }
    }

    pub(super) fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.prefix))
    }

    pub(super) fn one(&self, name: &str) -> KeyRange {
        KeyRange::one(self.key(name))
    }

    pub(super) fn all(&self) -> KeyRange {
        KeyRange::prefix(self.prefix.clone())
    }

    pub(super) fn put(&self, name: &str, value: &str) -> Op {
        self.put_on(name, value, PutLease::None)
    }

    pub(super) fn put_on(&self, name: &str, value: &str, lease: PutLease) -> Op {
        Op::Put { key: self.key(name), value: Bytes::from(value.to_owned()), lease }
    }

    pub(super) fn delete(&self, name: &str) -> Op {
        Op::Delete(self.one(name))
    }

    pub(super) fn get_one(&self, name: &str) -> Op {
        Op::Get(self.one(name))
    }

    pub(super) fn is(&self, name: &str, is: Is) -> Compare {
        Compare { key: self.key(name), is }
    }

    /// Does these steps, whatever the state.
    pub(super) async fn does(&self, then: Vec<Op>) -> Result<TxnAnswer, BackendError> {
        self.txn(Txn { then, ..Txn::default() }).await
    }

    /// Writes one key; gives the revision.
    pub(super) async fn write(&self, name: &str, value: &str) -> Result<Revision, BackendError> {
        Ok(self.does(vec![self.put(name, value)]).await?.revision)
    }

    pub(super) async fn write_on(&self, name: &str, lease: LeaseId) -> Result<Revision, BackendError> {
        Ok(self.does(vec![self.put_on(name, "leased", PutLease::On(lease))]).await?.revision)
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Entry>, BackendError> {
        Ok(self.range(RangeRequest::new(self.one(name))).await?.entries.pop())
    }

    /// Names of all keys of this check, without the prefix.
    pub(super) async fn names(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.short(&self.range(RangeRequest::new(self.all())).await?))
    }

    pub(super) fn short(&self, answer: &RangeAnswer) -> Vec<String> {
        answer.entries.iter().map(|entry| self.name(&entry.key)).collect()
    }

    fn name(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned()
    }

    pub(super) async fn revision(&self) -> Result<Revision, BackendError> {
        Ok(self.range(RangeRequest::new(self.one("revision"))).await?.revision)
    }

    /// Watches all keys of this check.
    pub(super) async fn watch_from(&self, from: Revision) -> Result<WatchStream, BackendError> {
        self.watch(WatchRequest { range: self.all(), from }).await
    }

    /// A change in short: `+name=value` or `-name`, with its revision.
    pub(super) fn tell(&self, change: &Change) -> (Revision, String) {
        let text = match change {
            Change::Put(entry) => {
                format!("+{}={}", self.name(&entry.key), String::from_utf8_lossy(&entry.value))
            }
            Change::Delete { key, .. } => format!("-{}", self.name(key)),
        };
        (change.revision(), text)
    }

    /// Reads a watch until it is complete up to `until`.
    pub(super) async fn told(
        &self,
        stream: &mut WatchStream,
        until: Revision,
    ) -> Result<Vec<(Revision, String)>, Flaw> {
        let mut told = Vec::new();
        loop {
            let item = next(stream).await?;
            told.extend(item.changes.iter().map(|change| self.tell(change)));
            if item.complete >= until {
                return Ok(told);
            }
        }
    }
}

/// The next item of a watch, which must come and be no error.
pub(super) async fn next(stream: &mut WatchStream) -> Result<Changes, Flaw> {
    match timeout(PATIENCE, stream.next()).await {
        Ok(Some(item)) => Ok(item?),
        Ok(None) => Err(Flaw::new("a watch ended")),
        Err(_) => Err(Flaw::new("a watch told nothing")),
    }
}

/// The error a watch begins with: at once, or as its first item.
pub(super) async fn first_error(opened: Result<WatchStream, BackendError>) -> Result<Changes, BackendError> {
    let mut stream = opened?;
    match timeout(PATIENCE, stream.next()).await {
        Ok(Some(item)) => item,
        Ok(None) | Err(_) => Err(BackendError::unknown("a watch told nothing")),
    }
}
