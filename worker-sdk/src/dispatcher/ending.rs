//! What is written when an attempt ends: pure.
//!
//! From the assignment (which says what happened before and what the policy is) and
//! from what running came to, to one of the worker's moves.

use std::time::Duration;

use bellows_registry::clock::WallMillis;
use bellows_registry::key::Keyspace;
use bellows_registry::record::{
    Applied, AssignmentRecord, AttemptError, Cancellation, Delay, Ended, ErrorKind, OutcomeRecord,
    ParkedRecord, Tally, TaskRecord, limits,
};
use bellows_registry::spec::Retention;
use bellows_registry::txn::{self, AttemptRef, FollowUp, Move};
use bytes::Bytes;

use crate::follow_up;
use crate::outcome::Verdict;
use crate::tasks::Ran;

/// How an attempt ended, as the dispatcher saw it.
#[derive(Debug)]
pub(crate) enum End {
    /// The handler came to its end.
    Ran(Ran),
    /// The handler panicked.
    Panicked(String),
    /// The time-out passed.
    TimedOut,
    /// The handler succeeded, but a task that it publishes was not taken.
    FollowUpRefused(String),
    /// The worker ends: somebody else shall do it.
    HandedBack,
    /// Somebody asked to cancel the task, and it had no outcome of its own.
    Cancelled(Cancellation),
}

/// The attempt as it was assigned and run.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) at: &'a AttemptRef,
    pub(crate) record: &'a AssignmentRecord,
    pub(crate) payload: &'a Bytes,
    pub(crate) started: WallMillis,
    pub(crate) now: WallMillis,
    pub(crate) max_body: usize,
    /// The version of this program, if it was told.
    pub(crate) version: Option<&'a str>,
}

/// What is written, and in one word what it means.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) row: Move,
    /// What `row` publishes.
    pub(crate) follow_ups: Vec<FollowUp>,
    pub(crate) word: &'static str,
    /// The error's text, if there was one, for the log: nothing of the payload.
    pub(crate) error: Option<String>,
}

/// A singleton rests at least this long between two runs, so that it cannot spin.
const SINGLETON_REST: Duration = Duration::from_secs(1);
/// The first snooze of a task may be as short; the least doubles with each one that follows,
/// up to a singleton's rest, so that a handler which snoozes for nothing cannot spin either.
const FIRST_SNOOZE: Duration = Duration::from_millis(10);
/// Whatever a handler asks for, its task waits no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

impl Attempt<'_> {
    /// Decides what is written.
    pub(crate) fn end(&self, space: &Keyspace, end: End) -> Ending {
        match end {
            End::HandedBack => {
                let mut tally = self.record.tally.clone();
                tally.hand_backs += 1;
                tally.due_at_once(self.now);
                self.give_back(space, &tally, "handed_back", None)
            }
            End::Cancelled(met) => self.cancelled_on_request(space, met),
            End::TimedOut => {
                let text = format!("timed out after {}", self.record.timeout);
                self.failed(space, ErrorKind::TimedOut, text, None)
            }
            End::Panicked(text) => self.failed(space, ErrorKind::Panicked, text, None),
            End::FollowUpRefused(text) => self.failed(space, ErrorKind::Failed, text, None),
            End::Ran(ran) => self.ran(space, ran),
        }
    }

    fn ran(&self, space: &Keyspace, ran: Ran) -> Ending {
        match ran {
            Ran::Succeeded { result, codecs, again, follow_ups } => {
                let (at, slot) = (self.at, self.record.slot);
                match follow_up::prepare(at, slot, self.now, self.max_body, follow_ups) {
                    Ok(follow_ups) => self.succeeded(space, (result, codecs), again, follow_ups),
                    Err(text) => self.park(space, ErrorKind::ResultRefused, text),
                }
            }
            Ran::Undecodable(error) => {
                // The parser quotes what it read. That may stand beside the payload in the
                // registry if that is not encrypted, but not in a log.
                let plain = self.record.options.envelope().codecs.is_empty();
                let text = if plain { error.kept() } else { error.logged() };
                let ending = self.undecodable(space, text);
                Ending { error: Some(error.logged()), ..ending }
            }
            Ran::Panicked(text) => self.failed(space, ErrorKind::Panicked, text, None),
            Ran::Unencodable(text) => self.park(space, ErrorKind::ResultRefused, text),
            Ran::Failed(error) => match error.verdict {
                Verdict::Retry => self.failed(space, ErrorKind::Failed, error.text, None),
                Verdict::RetryAfter(wait) => self.failed(space, ErrorKind::Failed, error.text, Some(wait)),
                Verdict::Park => self.park(space, ErrorKind::Failed, error.text),
                Verdict::Snooze(wait) => self.snoozed(space, wait),
                Verdict::Cancel => self.cancelled(space, error.text),
            },
        }
    }

    fn is_singleton(&self) -> bool {
        self.at.task.is_singleton()
    }

    fn succeeded(
        &self,
        space: &Keyspace,
        (result, codecs): (Bytes, Vec<Applied>),
        again: Option<Duration>,
        follow_ups: Vec<FollowUp>,
    ) -> Ending {
        if self.is_singleton() {
            let rest = again.unwrap_or_default().clamp(SINGLETON_REST, LONGEST_WAIT);
            let tally = Tally { delay: Some(Delay::from_now(rest, self.now)), ..Tally::default() };
            let row = txn::settle_singleton(space, self.at, &tally, &follow_ups);
            return Ending { row, follow_ups, word: "succeeded", error: None };
        }
        let outcome = self.outcome(Ended::Succeeded, self.record.tally.clone(), result);
        let outcome = OutcomeRecord { codecs, ..outcome };
        let row = txn::settle_and_publish(space, self.at, self.record.ties(), &outcome, &follow_ups);
        Ending { row, follow_ups, word: "succeeded", error: None }
    }

    fn snoozed(&self, space: &Keyspace, wait: Duration) -> Ending {
        let mut tally = self.record.tally.clone();
        let least = if self.is_singleton() { SINGLETON_REST } else { least_snooze(tally.snoozes) };
        tally.snoozes = tally.snoozes.saturating_add(1);
        tally.delay = Some(Delay::from_now(wait.clamp(least, LONGEST_WAIT), self.now));
        self.give_back(space, &tally, "snoozed", None)
    }

    /// A payload that this version cannot read goes to workers of other versions, at the
    /// cost of no attempt: in the middle of a roll-out nothing is lost. It is parked once
    /// so many have tried, or this one has before. A worker that was not told its version
    /// counts it as a failed attempt.
    fn undecodable(&self, space: &Keyspace, text: String) -> Ending {
        let Some(version) = self.version.filter(|_| !self.is_singleton()) else {
            return self.failed(space, ErrorKind::Undecodable, text, None);
        };
        let tried = &self.record.tally.undecodable_by;
        if tried.iter().any(|other| other == version) || tried.len() + 1 >= limits::VERSIONS {
            return self.park(space, ErrorKind::Undecodable, text);
        }
        let mut tally = self.record.tally.clone();
        tally.undecodable_by.push(version.to_owned());
        let error = AttemptError::new(self.record.number, self.now, ErrorKind::Undecodable, &text);
        tally.remember(error);
        // Due at once, and from now on waiting for another version.
        tally.delay = Some(Delay::from_now(Duration::ZERO, self.now));
        self.give_back(space, &tally, "undecodable", Some(text))
    }

    /// A failed attempt: again after a wait, or parked if it was the last.
    fn failed(&self, space: &Keyspace, kind: ErrorKind, text: String, wait: Option<Duration>) -> Ending {
        let last = self.record.number >= self.record.max_attempts;
        if last && !self.is_singleton() {
            return self.park(space, kind, text);
        }
        let mut tally = self.charged(kind, &text);
        let seed = (self.at.task.bits() as u64) ^ u64::from(self.record.number);
        let mut wait = wait.unwrap_or_else(|| self.record.backoff.wait(self.record.number, seed));
        if self.is_singleton() {
            wait = wait.max(SINGLETON_REST);
        }
        tally.delay = Some(Delay::from_now(wait.min(LONGEST_WAIT), self.now));
        self.give_back(space, &tally, "failed", Some(text))
    }

    fn give_back(
        &self,
        space: &Keyspace,
        tally: &Tally,
        word: &'static str,
        error: Option<String>,
    ) -> Ending {
        Ending { row: txn::give_back(space, self.at, tally), follow_ups: Vec::new(), word, error }
    }

    fn park(&self, space: &Keyspace, kind: ErrorKind, text: String) -> Ending {
        if self.is_singleton() {
            // There is nobody to replay it: it runs again after the longest wait.
            let mut tally = self.charged(kind, &text);
            tally.delay = Some(Delay::from_now(self.record.backoff.max.get().max(SINGLETON_REST), self.now));
            return self.give_back(space, &tally, "failed", Some(text));
        }
        let tally = self.charged(kind, &text);
        let task = TaskRecord {
            slot: self.record.slot,
            published: self.record.published,
            delay: None,
            headers: self.record.headers.clone(),
            options: self.record.options.clone(),
            payload: self.payload.clone(),
        };
        let outcome = self.outcome(Ended::Parked, tally.clone(), Bytes::new());
        let parked = ParkedRecord { parked: self.now, expires: Some(outcome.expires), tally, task };
        let row = txn::park(space, self.at, &parked, &outcome);
        Ending { row, follow_ups: Vec::new(), word: "parked", error: Some(text) }
    }

    fn cancelled(&self, space: &Keyspace, text: String) -> Ending {
        if self.is_singleton() {
            return self.succeeded(space, <(Bytes, Vec<Applied>)>::default(), None, Vec::new());
        }
        let tally = self.charged(ErrorKind::Failed, &text);
        let outcome = self.outcome(Ended::Cancelled, tally, Bytes::new());
        let row = txn::settle(space, self.at, self.record.ties(), &outcome);
        Ending { row, follow_ups: Vec::new(), word: "cancelled", error: Some(text) }
    }

    /// The attempt did not fail: it is not counted.
    fn cancelled_on_request(&self, space: &Keyspace, met: Cancellation) -> Ending {
        if self.is_singleton() {
            return self.end(space, End::HandedBack); // nobody's request is acted on for it
        }
        let outcome = self.outcome(Ended::Cancelled, self.record.tally.clone(), Bytes::new());
        let outcome = OutcomeRecord { cancellation: Some(met), ..outcome };
        let row = txn::settle(space, self.at, self.record.ties(), &outcome);
        Ending { row, follow_ups: Vec::new(), word: "cancelled", error: None }
    }

    /// The tally with this attempt counted as failed.
    fn charged(&self, kind: ErrorKind, text: &str) -> Tally {
        let mut tally = self.record.tally.clone();
        tally.attempts = self.record.number;
        tally.delay = None;
        tally.remember(AttemptError::new(self.record.number, self.now, kind, text));
        tally
    }

    fn outcome(&self, ended: Ended, tally: Tally, result: Bytes) -> OutcomeRecord {
        let retention = &self.record.retention;
        let kept = match ended {
            Ended::Succeeded => retention.succeeded.get(),
            Ended::Parked | Ended::Cancelled | Ended::Expired => retention.failed.get(),
        };
        OutcomeRecord {
            ended,
            attempt: self.record.number,
            attempt_id: Some(self.at.attempt),
            worker: Some(self.at.worker.clone()),
            published: self.record.published,
            started: self.started,
            finished: self.now,
            expires: self.now.plus(kept.max(Retention::FLOOR)),
            cancellation: None,
            tally,
            codecs: Vec::new(),
            result,
        }
    }
}

/// The least that a task waits which has snoozed so often.
fn least_snooze(snoozes: u32) -> Duration {
    FIRST_SNOOZE.saturating_mul(1 << snoozes.min(10)).min(SINGLETON_REST)
}

#[cfg(test)]
mod tests;
