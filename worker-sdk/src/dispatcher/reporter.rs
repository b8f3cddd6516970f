//! Writes what a handler reports while it runs: the dispatcher's side.
//!
//! Polled beside the handler, and dropped with the attempt. Every write is fenced by the
//! assignment's key; a checkpoint also by what stands in its place, so that an earlier one
//! that comes late does not undo a later one.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bellows_registry::backend::coalesce::Written;
use bellows_registry::backend::{Class, RangeRequest, Revision};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{AssignmentRecord, CheckpointRecord, DecodeError, Progress, Record, Tally};
use bellows_registry::txn::{self, AttemptRef, Kept};
use bytes::Bytes;
use tokio::time::{sleep, sleep_until};

use super::attempt::Stage;
use crate::reports::{Inbox, Last, ReportError, Save};

/// Progress is written no more often.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// Checkpoints are written no more often, but for a burst.
const KEPT_EVERY: Duration = Duration::from_secs(1);
/// How many checkpoints may be written at once.
const BURST: u32 = 10;

/// What an earlier attempt kept, and since which revision; 0 if there is nothing.
#[derive(Default)]
pub(super) struct Found {
    pub(super) last: Last,
    seen: Revision,
}

/// Reads what an earlier attempt kept, until there is an answer.
pub(super) async fn find(stage: &Stage, at: &AttemptRef) -> Found {
    let path = stage.space.path(&Key::Checkpoint(at.definition.clone(), at.task));
    let mut waits = Waits::spread_by(&path);
    loop {
        match stage.backend.range(RangeRequest::new(KeyRange::one(path.clone()))).await {
            Ok(found) => {
                let Some(entry) = found.entries.first() else { return Found::default() };
                let last = match CheckpointRecord::decode(&entry.value) {
                    Ok(record) => Last::Kept(record.value),
                    Err(error) => Last::Unreadable(said(&error)),
                };
                return Found { last, seen: entry.mod_revision };
            }
            Err(error) => tracing::debug!(%error, task = %at.task, "the checkpoint is read again"),
        }
        sleep(waits.after_failure()).await;
    }
}

fn said(error: &DecodeError) -> String {
    error.to_string()
}

/// The reports of one attempt, being written.
pub(super) struct Reporter<'a> {
    pub(super) stage: &'a Arc<Stage>,
    pub(super) at: &'a AttemptRef,
    pub(super) record: &'a AssignmentRecord,
    inbox: Inbox,
    /// The revision of what is kept; 0 if nothing is.
    seen: Revision,
    burst: Burst,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(
        stage: &'a Arc<Stage>,
        at: &'a AttemptRef,
        record: &'a AssignmentRecord,
        inbox: Inbox,
        found: &Found,
    ) -> Self {
        let burst = Burst { full_at: clock::instant() };
        Self { stage, at, record, inbox, seen: found.seen, burst }
    }

    /// Writes until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        let mut next = clock::instant();
        loop {
            tokio::select! {
                biased;
                Some(save) = self.inbox.saves.recv() => self.keep(save).await,
                Ok(()) = async { sleep_until(next).await; self.inbox.progress.changed().await } => {
                    next = clock::instant() + SHOWN_EVERY;
                    self.show().await;
                }
                // The handler has ended, and let go of its context.
                else => std::future::pending().await,
            }
        }
    }

    /// Shows the newest progress. One that is not answered is not sent again: the next one
    /// says more.
    async fn show(&mut self) {
        let Some(value) = self.inbox.progress.borrow_and_update().clone() else { return };
        let progress = Progress { attempt: self.record.number, at: clock::wall(), value };
        let tally = Tally { progress: Some(progress), ..self.record.tally.clone() };
        let row = txn::progress(&self.stage.space, self.at, &tally);
        if let Err(error) = self.stage.writer.send(row).await {
            tracing::debug!(%error, task = %self.at.task, "progress is not shown");
        }
    }

    /// Keeps a checkpoint, and tells whoever waits for it.
    async fn keep(&mut self, save: Save) {
        let Save { value, mut kept } = save;
        let answer = tokio::select! {
            biased;
            // Nobody waits for it any more: what is on its way may still be kept.
            () = kept.closed() => return,
            answer = self.until_kept(&value) => answer,
        };
        if answer.is_ok() {
            *self.inbox.last.lock().unwrap_or_else(PoisonError::into_inner) = Last::Kept(value);
        }
        let _ = kept.send(answer); // or nobody waits
    }

    async fn until_kept(&mut self, value: &Bytes) -> Result<(), ReportError> {
        sleep_until(self.burst.take(clock::instant())).await;
        let record = CheckpointRecord {
            attempt: self.at.attempt,
            number: self.record.number,
            at: clock::wall(),
            value: value.clone(),
        };
        let mut waits = Waits::spread_by(self.at.attempt.to_string().as_bytes());
        loop {
            let row = txn::checkpoint(&self.stage.space, self.at, self.seen, &record);
            match self.stage.writer.send(row).await {
                Ok(Written::Answer(answer)) => match Kept::of(&answer) {
                    Kept::Done(revision) => {
                        self.seen = revision;
                        return Ok(());
                    }
                    Kept::Again(revision) => self.seen = revision,
                    Kept::Fenced => return Err(ReportError::NotHeld),
                },
                Ok(Written::Deposed) => return Err(ReportError::NotHeld), // there is no outer fence
                Err(error) if error.class() == Class::Invalid => {
                    return Err(ReportError::Refused(error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, task = %self.at.task, "a checkpoint is sent again");
                    sleep(waits.after_failure()).await;
                }
            }
        }
    }
}

/// So many at once, then one a time.
#[derive(Debug)]
struct Burst {
    /// When it is whole again.
    full_at: Instant,
}

impl Burst {
    /// When the next one may go, which is hereby taken.
    fn take(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + KEPT_EVERY;
        now + self.full_at.saturating_duration_since(now + KEPT_EVERY * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_then_one_a_second() {
        let start = clock::instant();
        let mut burst = Burst { full_at: start };
        let mut now = start;
        let mut went = Vec::new();
        for _ in 0..13 {
            now = burst.take(now);
            went.push((now - start).as_secs());
        }
        assert_eq!(went, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        let later = now + Duration::from_secs(5);
        let five: Vec<_> = (0..6).map(|_| (burst.take(later) - later).as_secs()).collect();
        assert_eq!(five, [0, 0, 0, 0, 0, 1], "it grows again by one a second");
    }
}
