//! What the limits of one definition still allow, with everything counted that was sent.

use std::collections::HashMap;

use tokio::time::Instant;

use super::rates::Meter;
use super::{Assumed, Waiting};
use crate::id::DefinitionId;
use crate::spec::{Execution, RateLimit};
use crate::view::{Definition, Lane, LaneKey};

/// How many more tasks may be given out, and which limit it is that allows no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) tasks: usize,
    pub(super) limit: Waiting,
    /// When it allows more, if nothing else changes.
    pub(super) more_at: Option<Instant>,
}

/// The limits of one definition, and what they count.
#[derive(Debug)]
pub(super) struct Limits<'a> {
    definition: &'a Definition,
    execution: Option<&'a Execution>,
    meter: Meter<'a>,
    /// What is given out of each lane and not in the view yet.
    unseen: HashMap<&'a LaneKey, usize>,
}

impl<'a> Limits<'a> {
    pub(super) fn of(
        id: &DefinitionId,
        definition: &'a Definition,
        assumed: &'a Assumed,
        now: Instant,
    ) -> Self {
        let execution = definition.policy().map(|record| &record.policy.execution);
        let rate = execution.and_then(|execution| execution.rate_limit.as_ref());
        let mut unseen: HashMap<&LaneKey, usize> = HashMap::new();
        for given in assumed.given(id, definition) {
            *unseen.entry(&given.lane).or_default() += 1;
        }
        Self { definition, execution, meter: assumed.meter(id, rate, now), unseen }
    }

    /// Of the definition as a whole.
    pub(super) fn total(&self) -> Allowed {
        let limit = self.execution.and_then(|execution| execution.concurrency_limit?.total);
        let running = self.definition.assigned_count() + self.unseen.values().sum::<usize>();
        let at_once = limit.map_or(usize::MAX, |limit| (limit as usize).saturating_sub(running));
        let in_time = self.meter.total();
        if in_time.tasks < at_once {
            Allowed { tasks: in_time.tasks, limit: Waiting::RateLimit, more_at: in_time.more_at }
        } else {
            Allowed { tasks: at_once, limit: Waiting::ConcurrencyLimit, more_at: None }
        }
    }

    /// Of one fairness key.
    pub(super) fn key(&self, key: &LaneKey, lane: &Lane) -> Allowed {
        let running = lane.held() + self.unseen(key);
        let limit = self.definition.lanes().per_key();
        let at_once = limit.map_or(usize::MAX, |limit| limit.saturating_sub(running));
        let in_time = self.meter.key(key);
        if in_time.tasks < at_once {
            Allowed { tasks: in_time.tasks, limit: Waiting::KeyRateLimit, more_at: in_time.more_at }
        } else {
            Allowed { tasks: at_once, limit: Waiting::KeyConcurrencyLimit, more_at: None }
        }
    }

    /// What is given out of a lane and not in the view yet.
    fn unseen(&self, key: &LaneKey) -> usize {
        self.unseen.get(key).copied().unwrap_or(0)
    }

    /// The rate limit, if there is one.
    pub(super) fn rate(&self) -> Option<&'a RateLimit> {
        self.meter.limit
    }
}

/// More lanes than this are not looked at one by one: what they hold counts as startable.
const LANES_LOOKED_AT: usize = 1024;

/// What is given out of a definition and not in the view yet, which shows it as due.
#[derive(Debug, Clone, Copy, Default)]
pub struct BeingGiven {
    /// So many tasks.
    pub tasks: usize,
    /// The slots they take together.
    pub slots: usize,
}

/// Counts what is being given out.
pub fn being_given(id: &DefinitionId, definition: &Definition, assumed: &Assumed) -> BeingGiven {
    assumed.given(id, definition).fold(BeingGiven::default(), |sum, given| BeingGiven {
        tasks: sum.tasks + 1,
        slots: sum.slots + given.class.weight.slots(),
    })
}

/// How many of a definition's due tasks could be given out now if there were slots, beside
/// those that are being given out: what more workers would help. The others wait for a limit.
pub fn startable(id: &DefinitionId, definition: &Definition, assumed: &Assumed, now: Instant) -> usize {
    let limits = Limits::of(id, definition, assumed, now);
    let lanes = definition.lanes();
    let left = |key: &LaneKey, lane: &Lane| lane.startable().saturating_sub(limits.unseen(key));
    let gone = limits.unseen.keys().filter_map(|key| lanes.get(key).map(|lane| (key, lane)));
    let gone: usize = gone.map(|(key, lane)| lane.startable() - left(key, lane)).sum();
    let mut by_key = lanes.startable() - gone;
    if limits.rate().is_some_and(|rate| rate.per_key.is_some()) {
        for (_, key, lane) in lanes.ring().take(LANES_LOOKED_AT) {
            let due = lane.due().saturating_sub(limits.unseen(key));
            by_key = by_key - left(key, lane) + due.min(limits.key(key, lane).tasks);
        }
    }
    by_key.min(limits.total().tasks)
}
