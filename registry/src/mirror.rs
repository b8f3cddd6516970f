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
//! A holder of much that must not be in memory twice uses [`Mirror::next_page`] instead,
//! which tells a list page by page.
//!
//! # Caveats
//! The mirror retries for ever, with back-off; an [`MirrorEvent::Interrupted`] tells
//! the holder that what it knows may be old. Every list is a list of pages pinned at
//! one revision, so that no answer is larger than a few MiB, where the sizes of a folder's
//! values are alike. A page that fails is tried again, smaller.

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

/// One page of a list. All pages of one list are of one revision, in the order of keys;
/// they replace what was known only together.
#[derive(Debug)]
pub struct Page {
    /// Whether a list begins with it. One that was under way is void then.
    pub first: bool,
    /// Whether it is the last one.
    pub last: bool,
    /// The revision listed at.
    pub revision: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// What a mirror tells a holder that takes lists by the page.
#[derive(Debug)]
pub enum PageEvent {
    /// A page of a list.
    Page(Page),
    /// Anything else; never [`MirrorEvent::Listed`].
    Other(MirrorEvent),
}

/// Follows one range.
#[derive(Debug)]
pub struct Mirror {
    backend: DynBackend,
    range: KeyRange,
    waits: Waits,
    interrupted: bool,
    stage: Stage,
    /// The pages of a list under way, for a holder that wants them together.
    collected: Vec<Entry>,
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
            Self::Listing(listing) => write!(f, "Listing from {:?}", listing.range.start),
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
        Self { backend, range, waits, interrupted: false, stage, collected: Vec::new() }
    }

    /// Forgets everything and lists again: what is told next is newer than this call.
    pub fn relist(&mut self) {
        self.stage = Stage::Listing(Listing::of(self.range.clone()));
    }

    /// The next event. Cancel safe: nothing told is lost by dropping this future.
    pub async fn next(&mut self) -> MirrorEvent {
        loop {
            match self.next_page().await {
                PageEvent::Other(event) => return event,
                PageEvent::Page(page) => {
                    if page.first {
                        self.collected.clear();
                    }
                    self.collected.extend(page.entries);
                    if page.last {
                        let entries = std::mem::take(&mut self.collected);
                        return MirrorEvent::Listed { revision: page.revision, entries };
                    }
                }
            }
        }
    }

    /// The next event, a list being told page by page. Cancel safe: nothing told is lost
    /// by dropping this future. Not to be mixed with [`Mirror::next`].
    pub async fn next_page(&mut self) -> PageEvent {
        loop {
            match &mut self.stage {
                Stage::Pausing { until, .. } => {
                    sleep_until(*until).await;
                    self.resume();
                }
                Stage::Listing(listing) => match listing.page(&self.backend).await {
                    Ok(page) => {
                        if page.last {
                            self.waits.succeeded();
                            self.stage = Stage::Opening { complete: page.revision, pending: None };
                        }
                        return PageEvent::Page(page);
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
                                return PageEvent::Other(MirrorEvent::Resumed);
                            }
                        }
                        Err(error) => return self.interrupted(error),
                    }
                }
                Stage::Following { complete, stream } => match stream.next().await {
                    Some(Ok(changes)) => {
                        *complete = changes.complete.max(*complete);
                        self.waits.succeeded();
                        return PageEvent::Other(MirrorEvent::Changed(changes));
                    }
                    Some(Err(error)) => return self.interrupted(error),
                    None => return self.interrupted(BackendError::unknown("the watch ended")),
                },
            }
        }
    }

    fn resume(&mut self) {
        self.stage = match self.take_stage() {
            Stage::Pausing { then, .. } => *then,
            other => other,
        };
    }

    /// Decides where to go on after an error: behind the last complete revision, at the page
    /// that failed, or with a new list where history is gone.
    fn interrupted(&mut self, error: BackendError) -> PageEvent {
        self.interrupted = true;
        let then = match (self.take_stage(), error.class()) {
            (_, Class::Relist) => Stage::Listing(Listing::of(self.range.clone())),
            (Stage::Listing(listing), _) => Stage::Listing(listing.with_smaller_pages()),
            (Stage::Opening { complete, .. } | Stage::Following { complete, .. }, _) => {
                Stage::Opening { complete, pending: None }
            }
            (pausing @ Stage::Pausing { .. }, _) => pausing,
        };
        let until = clock::instant() + self.waits.after_failure();
        self.stage = Stage::Pausing { until, then: Box::new(then) };
        PageEvent::Other(MirrorEvent::Interrupted(error))
    }

    /// To be put back, or followed by another.
    fn take_stage(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Opening { complete: 0, pending: None })
    }
}

/// A list in pages, all at the revision of the first.
///
/// How large a page will be can only be guessed from the last one. Keys of one folder are
/// alike, and neighbouring folders need not be: small tallies are followed by tasks with
/// their payloads. So a page that is larger than the first ends with its folder.
struct Listing {
    /// What is left.
    range: KeyRange,
    /// The end of the folder that the next page is of, if it is of one.
    folder: Option<Bytes>,
    revision: Option<Revision>,
    limit: usize,
    pending: Pending<RangeAnswer>,
}

impl Listing {
    const FIRST: usize = 250;
    const MOST: usize = 10_000;
    /// Pages are sized by the last one so that each comes near this many bytes.
    const PAGE_BYTES: usize = 4 * 1024 * 1024;

    fn of(range: KeyRange) -> Self {
        Self { range, folder: None, revision: None, limit: Self::FIRST, pending: None }
    }

    /// Goes on where it is: what was read is not read again, or a long list over a bad line
    /// would never come to its end.
    fn with_smaller_pages(self) -> Self {
        Self { limit: (self.limit / 4).max(1), pending: None, ..self }
    }

    /// Reads the next page.
    async fn page(&mut self, backend: &DynBackend) -> Result<Page, BackendError> {
        let end = self.folder.clone().unwrap_or_else(|| self.range.end.clone());
        let range = KeyRange { start: self.range.start.clone(), end };
        let request = RangeRequest { range, revision: self.revision, limit: self.limit };
        let reading = self.pending.get_or_insert_with(|| {
            let backend = Arc::clone(backend);
            async move { backend.range(request).await }.boxed()
        });
        let page = reading.await;
        self.pending = None;
        Ok(self.take(page?))
    }

    fn take(&mut self, page: RangeAnswer) -> Page {
        let first = self.revision.is_none();
        let revision = *self.revision.get_or_insert(page.revision);
        let last = match page.entries.last().filter(|_| page.more) {
            Some(entry) => {
                self.range.start = successor(&entry.key);
                self.folder = folder_of(&page.entries).filter(|end| *end < self.range.end);
                let bytes: usize = page.entries.iter().map(|e| e.key.len() + e.value.len() + 64).sum();
                let most = if self.folder.is_some() { Self::MOST } else { Self::FIRST };
                self.limit = (Self::PAGE_BYTES * page.entries.len() / bytes.max(1)).clamp(1, most);
                false
            }
            None => match self.folder.take() {
                Some(end) => {
                    self.range.start = end;
                    self.limit = Self::FIRST;
                    false
                }
                None => true,
            },
        };
        Page { first, last, revision, entries: page.entries }
    }
}

/// The end of the folder that all these entries are in, if they are in one.
fn folder_of(entries: &[Entry]) -> Option<Bytes> {
    let folder = |entry: &Entry| {
        let slash = entry.key.iter().rposition(|byte| *byte == b'/')?;
        Some(entry.key.slice(..=slash))
    };
    let first = entries.first().and_then(folder)?;
    let is_one = entries.last().and_then(folder).as_ref() == Some(&first);
    is_one.then(|| KeyRange::prefix(first).end)
}

/// The first key after `key`.
fn successor(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests;
