//! Removes terminal records that are past their time.
//!
//! The results are cut into pieces of bounded ranges, remembered from pass to pass: a read
//! never counts what lies beyond its piece, and a piece is read again only when a part of it
//! is past its time. What is written after a read is kept for [`Retention::FLOOR`] at least:
//! nothing of it is due before that, and a piece is not left alone for much longer. A pass goes on
//! where the last one ended, so that every piece has its turn however many there are.
//!
//! When a record is past its time is said by the clock of its writer, which may be wrong:
//! none is deleted before it was there for [`Retention::FLOOR`] by the leader's monotonic
//! clock. A record is deleted only as it was seen; one that cannot be read is left alone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{BackendError, DynBackend, Entry, RangeAnswer, RangeRequest, Revision};
use crate::clock::{self, Instant, Now, WallMillis};
use crate::key::{Key, KeyRange, Keyspace};
use crate::record::{OutcomeRecord, Record};
use crate::spec::Retention;
use crate::txn::{self, Batch};

/// Records read at a time: results are at most 1 MiB, and mostly far smaller.
const PAGE: usize = 50;
/// Reads of one pass: the rest is for the next one, so that a pass is bounded.
const READS: usize = 200;
/// A piece with fewer records than this is joined to the one before it.
const FEW: usize = PAGE / 4;
/// A piece is due when one in so many of its records is past its time: were it due for the
/// first of them, each record would be read again for almost every other one of its piece.
const PART: usize = 4;
/// Reads of pieces in which nothing is known to end are as far apart as this, on average.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is noted which revision the registry is at.
const NOTED_EVERY: Duration = Duration::from_secs(10);

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    /// Records that were removed.
    pub(super) removed: usize,
    /// Whether its reads were used up, and more is due.
    pub(super) more: bool,
}

/// The results, cut into pieces, and when each is to be read.
#[derive(Debug)]
pub(super) struct Pieces {
    /// When a piece may hold something past its time, by its first key. It ends where the
    /// next one begins.
    next: BTreeMap<Bytes, WallMillis>,
    /// Where the last pass ended, and the next one begins.
    at: Bytes,
    all: KeyRange,
    ages: Ages,
}

impl Pieces {
    pub(super) fn of(space: &Keyspace) -> Self {
        let all = space.all_outcomes_range();
        let next = BTreeMap::from([(all.start.clone(), WallMillis(0))]);
        Self { next, at: all.start.clone(), all, ages: Ages::default() }
    }

    /// The first piece that is due, from where the last read ended on, and around.
    fn due(&self, now: WallMillis) -> Option<KeyRange> {
        let mut around = self.next.range(self.at.clone()..).chain(self.next.range(..self.at.clone()));
        let (start, _) = around.find(|(_, next)| **next <= now)?;
        let after = self.next.range::<Bytes, _>((Bound::Excluded(start), Bound::Unbounded)).next();
        let end = after.map_or_else(|| self.all.end.clone(), |(start, _)| start.clone());
        Some(KeyRange { start: start.clone(), end })
    }

    /// Takes in what a piece showed; answers where to go on.
    fn read(&mut self, due: &KeyRange, page: &RangeAnswer, now: WallMillis) -> Bytes {
        let newest = now.plus(self.unread_for());
        self.next.insert(due.start.clone(), part_expired(page, now).map_or(newest, |at| at.min(newest)));
        let last = page.entries.last().filter(|_| page.more);
        if let Some(last) = last {
            // The piece has grown: what lies behind this page is a piece of its own.
            let rest = Bytes::from([&last.key[..], b"\0"].concat());
            self.next.insert(rest.clone(), WallMillis(0));
            return rest;
        }
        if page.entries.len() < FEW && due.start != self.all.start {
            self.join(&due.start);
        }
        due.end.clone()
    }

    /// How long a piece is left alone in which nothing is known to end: what was written there
    /// since may be over by then. The more pieces there are, the longer, so that looking for
    /// such is never more than a few reads a second.
    fn unread_for(&self) -> Duration {
        let pieces = u32::try_from(self.next.len()).unwrap_or(u32::MAX);
        Retention::FLOOR.max(LOOK.saturating_mul(pieces))
    }

    /// Joins a piece to the one before it, which is then due as soon as either was.
    fn join(&mut self, start: &Bytes) {
        let Some(when) = self.next.remove(start) else { return };
        if let Some((_, before)) = self.next.range_mut::<Bytes, _>(..start).next_back() {
            *before = when.min(*before);
        }
    }

    /// One pass.
    ///
    /// # Errors
    /// The first that the registry answers; what was removed until then stays removed, and
    /// the piece that was being read is due again. The next pass goes on behind it: one that cannot
    /// be read holds up no other.
    pub(super) async fn pass(
        &mut self,
        backend: &DynBackend,
        space: &Keyspace,
        now: &Now,
    ) -> Result<Passed, BackendError> {
        let mut removed = 0;
        for _ in 0..READS {
            let Some(due) = self.due(now.wall) else { break };
            let request = RangeRequest { range: due.clone(), revision: None, limit: PAGE };
            self.at = due.end.clone();
            let page = backend.range(request).await?;
            self.ages.seen(page.revision, clock::instant());
            let expired = Expired { wall: now.wall, settled: self.ages.settled(now.instant) };
            removed += remove(backend, space, &page, expired).await?;
            self.at = self.read(&due, &page, now.wall);
        }
        Ok(Passed { removed, more: self.due(now.wall).is_some() })
    }
}

/// Revisions the registry was at, and when: what was written up to one of them is as old.
#[derive(Debug, Default)]
struct Ages(VecDeque<(Revision, Instant)>);

impl Ages {
    /// The registry is at `revision` now. Notes it now and then: few are kept.
    fn seen(&mut self, revision: Revision, now: Instant) {
        if self.0.back().is_none_or(|(_, last)| now >= *last + NOTED_EVERY) {
            self.0.push_back((revision, now));
        }
        while self.0.get(1).is_some_and(|(_, at)| now >= *at + Retention::FLOOR) {
            self.0.pop_front();
        }
    }

    /// What was written up to this revision was there for [`Retention::FLOOR`].
    fn settled(&self, now: Instant) -> Option<Revision> {
        let old = self.0.iter().rev().find(|(_, at)| now >= *at + Retention::FLOOR);
        old.map(|(revision, _)| *revision)
    }
}

/// What may be removed.
#[derive(Debug, Clone, Copy)]
struct Expired {
    /// It is past its time by now.
    wall: WallMillis,
    /// It was written up to this revision; `None` if nothing is known to be old enough.
    settled: Option<Revision>,
}

impl Expired {
    fn is(self, entry: &Entry) -> bool {
        self.settled.is_some_and(|settled| entry.mod_revision <= settled)
            && OutcomeRecord::decode(&entry.value).is_ok_and(|record| record.expires <= self.wall)
    }
}

/// When one in [`PART`] of what a page showed and left will be past its time.
fn part_expired(page: &RangeAnswer, now: WallMillis) -> Option<WallMillis> {
    let expiries = page.entries.iter().filter_map(|entry| OutcomeRecord::decode(&entry.value).ok());
    let mut later: Vec<_> = expiries.map(|record| record.expires).filter(|expires| *expires > now).collect();
    later.sort_unstable();
    later.get(later.len().saturating_sub(1) / PART).copied()
}

async fn remove(
    backend: &DynBackend,
    space: &Keyspace,
    page: &RangeAnswer,
    expired: Expired,
) -> Result<usize, BackendError> {
    let mut batch = Batch::default();
    for entry in page.entries.iter().filter(|entry| expired.is(entry)) {
        if let Ok(Key::Outcome(def, slot, task)) = space.parse(&entry.key) {
            // A page is smaller than a batch: all of it fits.
            let _ = batch.push(txn::expire_outcome(space, &def, slot, task, entry.mod_revision));
        }
    }
    if batch.is_empty() {
        return Ok(0);
    }
    let answers = Batch::answers(backend.txn(batch.into_txn(None)).await?);
    Ok(answers.into_iter().flatten().filter(|one| one.succeeded).count())
}

#[cfg(test)]
mod tests;
