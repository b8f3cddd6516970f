//! How many worker pods a definition gets: pure.
//!
//! ```text
//!                      demand > capacity
//!        ┌──────────────────────────────────────────┐
//!        │                                          ▼
//!     AT MINIMUM                                 SCALED OUT ──► more demand: out again
//!        ▲                                          │
//!        └── demand 0, unbroken, for the idle time ─┘
//! ```
//!
//! Demand is the tasks that are due plus those that run, without those that a limit of
//! concurrency or rate holds back: more pods would not start them. Out goes at once and in one
//! step; in goes only when nothing is left to do, so that no busy pod is chosen.
//!
//! A maximum that is lowered is the user's order, and obeyed at once, as far as the slots of
//! the running tasks allow. Which pods go is Kubernetes' choice: a busy one among them
//! drains within its grace period, and hands back what it could not end.
//!
//! Without a fresh view of the registry nothing moves (law 19). A publisher of a thousand
//! tasks is seen task by task at first, so a way out waits [`GATHER`] for the rest of them.
//!
//! `run` (the thin rim) carries decisions out; `status` shows them.

mod memory;
pub mod run;
mod status;

use std::fmt;
use std::time::Duration;

use bellows_registry::clock::Instant;
use bellows_registry::demand::Demand;
use bellows_registry::spec::{Mode, Span};

use crate::crd::TaskDefinitionSpec;

/// What a definition says about scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Tasks a pod runs at once; at least 1.
    pub concurrency: u32,
    /// How long there must have been nothing to do before pods go.
    pub idle: Duration,
    /// Whether waiting tasks are started: those of a definition on hold need no pods.
    pub mode: Mode,
}

impl Limits {
    /// Reads them off a definition.
    pub fn of(spec: &TaskDefinitionSpec) -> Self {
        Self {
            min: spec.scaling.min_replicas,
            max: spec.scaling.max_replicas.max(spec.scaling.min_replicas),
            concurrency: spec.worker.concurrency.max(1),
            idle: spec.scaling.scale_to_zero_after.get(),
            mode: spec.mode,
        }
    }

    fn pods_for(&self, slots: usize) -> u32 {
        u32::try_from(slots.div_ceil(self.concurrency as usize)).unwrap_or(u32::MAX)
    }
}

/// What the registry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A fresh view.
    Fresh {
        /// Tasks due and nobody's.
        due: usize,
        /// Of these, those that no limit holds back.
        startable: usize,
        /// The slots that the startable tasks and those that workers have take together.
        slots: usize,
        /// Tasks that workers have.
        assigned: usize,
        /// The slots that these take.
        taken: usize,
    },
    /// No fresh view.
    Lost,
}

impl Signal {
    /// What a fresh view says of a definition.
    pub fn of(demand: &Demand) -> Self {
        let Demand { due, startable, wanted: slots, assigned, assigned_slots: taken, .. } = *demand;
        Self::Fresh { due, startable, slots, assigned, taken }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The number is right, or will be looked at again at `wake`.
    Stay,
    /// Make it this many.
    Scale {
        /// Pods now.
        from: u32,
        /// Pods then.
        to: u32,
    },
    /// Touch nothing: there is no fresh view.
    Frozen,
}

/// A verdict, why, and what to remember for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Since when there has been nothing to do.
    pub idle_since: Option<Instant>,
    /// When to decide again though nothing changes.
    pub wake: Option<Instant>,
}

/// Why a number of pods was chosen. The words are stable; the text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// More demand than the pods can take.
    Backlog {
        /// Tasks due.
        due: usize,
        /// Tasks running.
        assigned: usize,
    },
    /// Fewer pods than the definition's minimum.
    BelowMinimum,
    /// More pods than its maximum.
    AboveMaximum,
    /// Nothing to do for long enough.
    Idle {
        /// How long.
        after: Duration,
    },
    /// Nothing to do, but not for long enough.
    Cooling,
    /// As many pods as the demand takes, or as are allowed.
    Enough,
    /// More pods would not help: tasks wait for a limit of concurrency or rate.
    Limited {
        /// How many.
        waiting: usize,
    },
    /// The definition is on hold.
    OnHold,
    /// No fresh view of the registry.
    NoSignal,
}

impl Reason {
    /// The condition's and the event's reason.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Backlog { .. } => "Backlog",
            Self::BelowMinimum => "BelowMinimum",
            Self::AboveMaximum => "AboveMaximum",
            Self::Idle { .. } => "Idle",
            Self::Cooling => "Cooling",
            Self::Enough => "Enough",
            Self::Limited { .. } => "Limited",
            Self::OnHold => "OnHold",
            Self::NoSignal => "NoSignal",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backlog { due, assigned } => write!(f, "{due} tasks due, {assigned} running"),
            Self::BelowMinimum => f.write_str("fewer pods than scaling.minReplicas"),
            Self::AboveMaximum => f.write_str("more pods than scaling.maxReplicas"),
            Self::Idle { after } => {
                let span = Span::millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                write!(f, "nothing to do for {span}")
            }
            Self::Cooling => f.write_str("nothing to do, but not yet for scaling.scaleToZeroAfter"),
            Self::Enough => f.write_str("the pods match the demand within the limits"),
            Self::Limited { waiting } => {
                write!(f, "{waiting} tasks wait for a limit of execution, not for pods")
            }
            Self::OnHold => f.write_str("the definition is on hold: waiting tasks need no pods"),
            Self::NoSignal => f.write_str("no fresh view of the registry: the number of pods is frozen"),
        }
    }
}

/// Decides for one definition. `current` is the number of pods asked for now.
pub fn decide(
    limits: &Limits,
    signal: Signal,
    current: u32,
    idle_since: Option<Instant>,
    now: Instant,
) -> Decision {
    let Signal::Fresh { due, startable, slots, assigned, taken } = signal else {
        // The idle time begins anew: nobody knows what happened meanwhile.
        return Decision { verdict: Verdict::Frozen, reason: Reason::NoSignal, idle_since: None, wake: None };
    };
    let on_hold = limits.mode == Mode::Hold;
    let demand = if on_hold { assigned } else { startable + assigned };
    let wanted = limits.pods_for(if on_hold { taken } else { slots }).clamp(limits.min, limits.max);
    let idle_since = if demand == 0 { Some(idle_since.unwrap_or(now)) } else { None };
    let to = |to: u32, reason: Reason| Decision {
        verdict: Verdict::Scale { from: current, to },
        reason,
        idle_since,
        wake: None,
    };
    let stay =
        |reason: Reason, wake: Option<Instant>| Decision { verdict: Verdict::Stay, reason, idle_since, wake };
    if wanted > current {
        let below = current < limits.min && wanted == limits.min;
        return to(wanted, if below { Reason::BelowMinimum } else { Reason::Backlog { due, assigned } });
    }
    // A lowered maximum is obeyed, but never below what the running tasks take.
    let most = limits.max.max(limits.pods_for(taken));
    if current > most {
        return to(most, Reason::AboveMaximum);
    }
    match idle_since {
        Some(since) if current > limits.min => {
            let end = since + limits.idle;
            if now >= end {
                to(limits.min, Reason::Idle { after: limits.idle })
            } else {
                stay(Reason::Cooling, Some(end))
            }
        }
        _ if on_hold && due > 0 => stay(Reason::OnHold, None),
        _ if startable < due && wanted < limits.max => {
            stay(Reason::Limited { waiting: due - startable }, None)
        }
        _ => stay(Reason::Enough, None),
    }
}

/// How long a burst of publishes is gathered, so that the way out is one write and not a
/// staircase.
pub const GATHER: Duration = Duration::from_millis(50);

/// Until when to wait before going out as decided; `since` is when this demand was first
/// seen, and is kept as long as there is something to wait for.
///
/// Nothing is gained by waiting where no more pods are allowed.
pub fn gather(
    limits: &Limits,
    decision: &Decision,
    since: &mut Option<Instant>,
    now: Instant,
) -> Option<Instant> {
    match decision {
        Decision { verdict: Verdict::Scale { to, .. }, reason: Reason::Backlog { .. }, .. } => {
            let until = *since.get_or_insert(now) + GATHER;
            (now < until && *to < limits.max).then_some(until)
        }
        _ => {
            *since = None;
            None
        }
    }
}

#[cfg(test)]
mod tests;
