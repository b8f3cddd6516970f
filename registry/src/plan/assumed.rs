//! What was sent and is not in the view yet (law 6).
//!
//! A task with an unanswered request is not planned, cancelled or moved; a slot given
//! away in it is not free. The assumption ends only when the view has passed the
//! revision of the answer, or when a new term makes the request void.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::backend::Revision;
use crate::id::{DefinitionId, TaskId, WorkerId};
use crate::record::Isolation;

/// One request about one task.
#[derive(Debug, Clone)]
struct Assumption {
    until: Until,
    /// The slot it takes, if it is an assignment.
    slot: Option<(WorkerId, Isolation)>,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    /// No answer yet.
    Answer,
    /// It was applied at this revision.
    Passed(Revision),
    /// It was refused, at a store revision whose cause the view may have seen already:
    /// try again when the view has passed it, or after a moment. Trying too early is
    /// refused again, and harmless.
    Refused(Revision, Instant),
}

/// All standing assumptions.
#[derive(Debug, Default)]
pub struct Assumed {
    tasks: HashMap<(DefinitionId, TaskId), Assumption>,
    slots: HashMap<(DefinitionId, WorkerId), Slots>,
    /// How many tasks are given out and unseen, by definition.
    given: HashMap<DefinitionId, usize>,
}

/// What assumptions take from one worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) used: usize,
    pub(super) alone: usize,
}

impl Assumed {
    /// Whether a request about the task may still be under way, or unseen.
    pub fn is_busy(&self, def: &DefinitionId, task: TaskId) -> bool {
        !self.tasks.is_empty() && self.tasks.contains_key(&(def.clone(), task))
    }

    /// Whether tasks of the definition are given out that the view does not show yet.
    pub(super) fn gives_to(&self, def: &DefinitionId) -> bool {
        self.given.contains_key(def)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// A request about the task is sent.
    pub fn sent(&mut self, def: &DefinitionId, step: &super::Step) {
        let slot = match step {
            super::Step::Assign { worker, isolation, .. } => Some((worker.clone(), *isolation)),
            _ => None,
        };
        if let Some((worker, isolation)) = &slot {
            let slots = self.slots.entry((def.clone(), worker.clone())).or_default();
            slots.used += 1;
            slots.alone += usize::from(*isolation == Isolation::Alone);
            *self.given.entry(def.clone()).or_default() += 1;
        }
        self.tasks.insert((def.clone(), step.task()), Assumption { until: Until::Answer, slot });
    }

    /// The request was applied at `revision`.
    pub fn applied(&mut self, def: &DefinitionId, task: TaskId, revision: Revision) {
        self.settle(def, task, Until::Passed(revision));
    }

    /// The request was refused by its fence, at store revision `revision`.
    pub fn refused(&mut self, def: &DefinitionId, task: TaskId, revision: Revision, retry: Instant) {
        self.settle(def, task, Until::Refused(revision, retry));
    }

    fn settle(&mut self, def: &DefinitionId, task: TaskId, until: Until) {
        if let Some(assumption) = self.tasks.get_mut(&(def.clone(), task)) {
            assumption.until = until;
        }
    }

    /// Ends what the view has passed.
    pub fn end_passed(&mut self, view: Revision, now: Instant) {
        let (slots, given) = (&mut self.slots, &mut self.given);
        self.tasks.retain(|(def, _), assumption| {
            let over = match assumption.until {
                Until::Answer => false,
                Until::Passed(revision) => view >= revision,
                Until::Refused(revision, retry) => view >= revision || now >= retry,
            };
            if let Some((worker, isolation)) = assumption.slot.as_ref().filter(|_| over) {
                free(slots, &(def.clone(), worker.clone()), *isolation);
                if let Some(count) = given.get_mut(def) {
                    *count -= 1;
                }
                given.retain(|_, count| *count > 0);
            }
            !over
        });
    }

    /// When the next refused step may be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        let retries = self.tasks.values().filter_map(|assumption| match assumption.until {
            Until::Refused(_, retry) => Some(retry),
            Until::Answer | Until::Passed(_) => None,
        });
        retries.min()
    }

    /// A new term, and a list newer than it: whatever was sent before is either in
    /// that list or will never be applied (law 5).
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.slots.clear();
        self.given.clear();
    }

    pub(super) fn slots(&self, def: &DefinitionId, worker: &WorkerId) -> Slots {
        if self.slots.is_empty() {
            return Slots::default();
        }
        self.slots.get(&(def.clone(), worker.clone())).copied().unwrap_or_default()
    }
}

fn free(
    slots: &mut HashMap<(DefinitionId, WorkerId), Slots>,
    key: &(DefinitionId, WorkerId),
    isolation: Isolation,
) {
    if let Some(taken) = slots.get_mut(key) {
        taken.used -= 1;
        taken.alone -= usize::from(isolation == Isolation::Alone);
        if taken.used == 0 {
            slots.remove(key);
        }
    }
}
