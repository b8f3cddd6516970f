//! A range of the registry, followed: list at revision R, watch from R + 1.
//!
//! # Expected flow
//! [`Mirror::next`] first answers [`MirrorEvent::Listed`], then [`MirrorEvent::Changed`]
//! for ever. The holder folds them into a view of its own.
//!
//! # Guarantees
//! No change is skipped and none is told twice: a broken watch resumes after the last
//! *complete* revision, and where that is compacted the range is listed again, and
//! `Listed` replaces all that was known (law 12).
//!
//! # Caveats
//! The mirror retries for ever, with back-off; an [`MirrorEvent::Interrupted`] tells
//! the holder that what it knows may be old. Every list is a list of pages pinned at
//! one revision, so that no answer is larger than a few MiB.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use crate::backend::{
    BackendError, Changes, Class, DynBackend, Entry, RangeAnswer, RangeRequest, Revision, WatchRequest,
    WatchStream,
};
use crate::backoff::Waits;
use crate::clock;
use crate::key::KeyRange;

/// What a mirror tells.
#[derive(Debug)]
pub enum MirrorEvent {
    /// Everything in the range, at one revision. Replaces what was known.
    Listed {
        /// The revision listed at.
        revision: Revision,
        /// The entries, in the order of keys.
        entries: Vec<Entry>,
    },
    /// What changed since.
    Changed(Changes),
    /// The registry cannot be followed now. Told at each failure; the mirror goes on.
    Interrupted(BackendError),
    /// The watch is open again after an interruption, and nothing was missed: what is
    /// known is as new as the registry, but for what is on its way.
    Resumed,
}

/// Follows one range.
#[derive(Debug)]
pub struct Mirror {
    backend: DynBackend,
    range: KeyRange,
    waits: Waits,
    interrupted: bool,
    stage: Stage,
}

/// A request under way. Kept across calls of [`Mirror::next`]: a holder that drops that
/// future again and again must not begin a slow request again and again.
type Pending<T> = Option<BoxFuture<'static, Result<T, BackendError>>>;

/// Each stage holds only what exists in it.
enum Stage {
    /// Collecting pages.
    Listing(Listing),
    /// Everything up to `complete` is told; the watch is being opened.
    Opening { complete: Revision, pending: Pending<WatchStream> },
    /// The watch is open.
    Following { complete: Revision, stream: WatchStream },
    /// Waiting before trying again.
    Pausing { until: Instant, then: Box<Stage> },
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listing(listing) => write!(f, "Listing({} entries)", listing.entries.len()),
            Self::Opening { complete, .. } => write!(f, "Opening after {complete}"),
            Self::Following { complete, .. } => write!(f, "Following after {complete}"),
            Self::Pausing { then, .. } => write!(f, "Pausing, then {then:?}"),
        }
    }
}

impl Mirror {
    /// A mirror of `range`; nothing is sent before the first [`Mirror::next`].
    pub fn new(backend: DynBackend, range: KeyRange) -> Self {
        let waits = Waits::spread_by(&range.start);
        let stage = Stage::Listing(Listing::of(range.clone()));
        Self { backend, range, waits, interrupted: false, stage }
    }

    /// Forgets everything and lists again: what is told next is newer than this call.
    pub fn relist(&mut self) {
        self.stage = Stage::Listing(Listing::of(self.range.clone()));
    }

    /// The next event. Cancel safe: nothing told is lost by dropping this future.
    pub async fn next(&mut self) -> MirrorEvent {
        loop {
            match &mut self.stage {
                Stage::Pausing { until, .. } => {
                    sleep_until(*until).await;
                    self.resume();
                }
                Stage::Listing(listing) => match listing.page(&self.backend).await {
                    Ok(None) => {}
                    Ok(Some((revision, entries))) => {
                        self.waits.succeeded();
                        self.stage = Stage::Opening { complete: revision, pending: None };
                        return MirrorEvent::Listed { revision, entries };
                    }
                    Err(error) => return self.interrupted(error),
                },
                Stage::Opening { complete, pending } => {
                    let (from, range) = (*complete + 1, self.range.clone());
                    let opening = pending.get_or_insert_with(|| {
                        let backend = Arc::clone(&self.backend);
                        async move { backend.watch(WatchRequest { range, from }).await }.boxed()
                    });
                    match opening.await {
                        Ok(stream) => {
                            self.stage = Stage::Following { complete: from - 1, stream };
                            if std::mem::take(&mut self.interrupted) {
                                return MirrorEvent::Resumed;
                            }
                        }
                        Err(error) => return self.interrupted(error),
                    }
                }
                Stage::Following { complete, stream } => match stream.next().await {
                    Some(Ok(changes)) => {
                        *complete = changes.complete.max(*complete);
                        self.waits.succeeded();
                        return MirrorEvent::Changed(changes);
                    }
                    Some(Err(error)) => return self.interrupted(error),
                    None => return self.interrupted(BackendError::unknown("the watch ended")),
                },
            }
        }
    }

    fn resume(&mut self) {
        let placeholder = Stage::Opening { complete: 0, pending: None };
        let stage = std::mem::replace(&mut self.stage, placeholder);
        self.stage = match stage {
            Stage::Pausing { then, .. } => *then,
            other => other,
        };
    }

    /// Decides where to go on after an error: behind the last complete revision, or
    /// with a new list where history is gone.
    fn interrupted(&mut self, error: BackendError) -> MirrorEvent {
        self.interrupted = true;
        let then = match (&mut self.stage, error.class()) {
            (_, Class::Relist) => Stage::Listing(Listing::of(self.range.clone())),
            (Stage::Listing(listing), _) => {
                let mut again = Listing::of(self.range.clone());
                again.limit = (listing.limit / 4).max(Listing::LEAST);
                Stage::Listing(again)
            }
            (Stage::Opening { complete, .. } | Stage::Following { complete, .. }, _) => {
                Stage::Opening { complete: *complete, pending: None }
            }
            (Stage::Pausing { .. }, _) => return MirrorEvent::Interrupted(error),
        };
        let until = clock::instant() + self.waits.after_failure();
        self.stage = Stage::Pausing { until, then: Box::new(then) };
        MirrorEvent::Interrupted(error)
    }
}

/// A list in pages, all at the revision of the first.
struct Listing {
    range: KeyRange,
    revision: Option<Revision>,
    limit: usize,
    entries: Vec<Entry>,
    pending: Pending<RangeAnswer>,
}

impl Listing {
    const FIRST: usize = 500;
    const LEAST: usize = 16;
    const MOST: usize = 10_000;
    /// Pages are sized by the last one so that each comes near this many bytes.
    const PAGE_BYTES: usize = 4 * 1024 * 1024;

    fn of(range: KeyRange) -> Self {
        Self { range, revision: None, limit: Self::FIRST, entries: Vec::new(), pending: None }
    }

    /// Reads the next page; answers everything once it was the last.
    async fn page(&mut self, backend: &DynBackend) -> Result<Option<(Revision, Vec<Entry>)>, BackendError> {
        let request = RangeRequest { range: self.range.clone(), revision: self.revision, limit: self.limit };
        let reading = self.pending.get_or_insert_with(|| {
            let backend = Arc::clone(backend);
            async move { backend.range(request).await }.boxed()
        });
        let page = reading.await;
        self.pending = None;
        Ok(self.take(page?))
    }

    fn take(&mut self, page: RangeAnswer) -> Option<(Revision, Vec<Entry>)> {
        let revision = *self.revision.get_or_insert(page.revision);
        let bytes: usize = page.entries.iter().map(|e| e.key.len() + e.value.len() + 64).sum();
        let last = page.entries.last().map(|entry| entry.key.clone());
        let read = page.entries.len();
        self.entries.extend(page.entries);
        if !page.more || last.is_none() {
            return Some((revision, std::mem::take(&mut self.entries)));
        }
        self.range.start = last.map_or_else(Bytes::new, successor);
        self.limit = (Self::PAGE_BYTES * read.max(1) / bytes.max(1)).clamp(Self::LEAST, Self::MOST);
        None
    }
}

/// The first key after `key`.
fn successor(key: Bytes) -> Bytes {
    let mut next = Vec::from(key);
    next.push(0);
    next.into()
}
