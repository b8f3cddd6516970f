//! What a rate limit has to remember: when tasks of one definition were given out.
//!
//! A task counts from the moment its assignment is sent until the pace's time after the
//! answer, whenever in between the registry took it. An assignment whose outcome is
//! unknown counts as taken.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::spec::{Pace, RateLimit};
use crate::view::LaneKey;

/// How many more may be given out now, and when that changes if nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) tasks: usize,
    pub(super) more_at: Option<Instant>,
}

impl Room {
    /// As without a limit.
    pub(super) const ALL: Self = Self { tasks: usize::MAX, more_at: None };
}

/// What was given out under one pace.
#[derive(Debug, Default)]
struct Log {
    /// Without an answer.
    open: usize,
    /// Given out at that time, how many; oldest first.
    past: VecDeque<(Instant, usize)>,
}

impl Log {
    fn room(&self, pace: Pace, now: Instant) -> Room {
        let counts = |at: &Instant| *at + pace.per > now;
        let past = self.past.iter().rev().take_while(|(at, _)| counts(at));
        let (spent, oldest) = past.fold((0, None), |(sum, _), (at, n)| (sum + n, Some(*at)));
        let tasks = (pace.tasks as usize).saturating_sub(self.open + spent);
        Room { tasks, more_at: oldest.map(|at| at + pace.per) }
    }

    fn answered(&mut self, applied: bool, now: Instant) {
        self.open = self.open.saturating_sub(1);
        match self.past.back_mut() {
            _ if !applied => {}
            Some((at, n)) if *at == now => *n += 1,
            _ => self.past.push_back((now, 1)),
        }
    }

    /// Forgets what no pace counts any more; whether anything is left.
    fn forget(&mut self, before: Instant) -> bool {
        while self.past.front().is_some_and(|(at, _)| *at < before) {
            self.past.pop_front();
        }
        self.open > 0 || !self.past.is_empty()
    }
}

/// What was given out of one definition while it had a rate limit.
#[derive(Debug, Default)]
pub(super) struct Rates {
    total: Log,
    keys: HashMap<LaneKey, Log>,
    /// The longest time that counts.
    keep: Duration,
}

impl Rates {
    pub(super) fn sent(&mut self, key: &LaneKey, limit: &RateLimit) {
        let longest = [limit.total_pace(), limit.key_pace()].into_iter().flatten().map(|pace| pace.per).max();
        self.keep = longest.unwrap_or_default();
        self.total.open += 1;
        self.keys.entry(key.clone()).or_default().open += 1;
    }

    pub(super) fn answered(&mut self, key: &LaneKey, applied: bool, now: Instant) {
        self.total.answered(applied, now);
        self.keys.entry(key.clone()).or_default().answered(applied, now);
    }

    /// Forgets what is past; whether anything is left.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        let Some(before) = now.checked_sub(self.keep) else { return true };
        self.keys.retain(|_, log| log.forget(before));
        self.total.forget(before)
    }
}

/// The room that a limit leaves, by what is remembered of the definition, if anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter<'a> {
    pub(super) limit: Option<&'a RateLimit>,
    pub(super) rates: Option<&'a Rates>,
    /// What was given out before this is not known, and may have been all that was allowed.
    pub(super) unknown_before: Option<Instant>,
    pub(super) now: Instant,
}

impl Meter<'_> {
    /// Of the whole definition.
    pub(super) fn total(&self) -> Room {
        self.room(self.limit.and_then(RateLimit::total_pace), self.rates.map(|rates| &rates.total))
    }

    /// Of one fairness key.
    pub(super) fn key(&self, key: &LaneKey) -> Room {
        let log = self.rates.and_then(|rates| rates.keys.get(key));
        self.room(self.limit.and_then(RateLimit::key_pace), log)
    }

    fn room(&self, pace: Option<Pace>, log: Option<&Log>) -> Room {
        let Some(pace) = pace else { return Room::ALL };
        match self.unknown_before.map(|before| before + pace.per) {
            Some(known) if self.now < known => Room { tasks: 0, more_at: Some(known) },
            _ => log.map_or_else(
                || Room { tasks: pace.tasks as usize, more_at: None },
                |log| log.room(pace, self.now),
            ),
        }
    }
}
