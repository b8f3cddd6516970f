//! What was sent and is not in the view yet (law 6), and what rate limits remember.
//!
//! A task with an unanswered request is not planned, cancelled or moved; a slot given
//! away in it is not free, and it counts for every limit. The assumption ends only when
//! the view has passed the revision of the answer, or when a new term makes the request
//! void.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Step;
use super::rates::{Meter, Rates};
use crate::backend::Revision;
use crate::id::{DefinitionId, TaskId, WorkerId};
use crate::spec::RateLimit;
use crate::txn::AsSeen;
use crate::view::{Class, Definition, LaneKey};

/// One request about one task.
#[derive(Debug, Clone)]
struct Assumption {
    until: Until,
    given: Option<Given>,
}

/// What an assignment that was sent takes.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) worker: WorkerId,
    pub(super) class: Class,
    pub(super) lane: LaneKey,
    seen: AsSeen,
    /// Whether it counts for a rate limit.
    paced: bool,
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
    tasks: HashMap<DefinitionId, HashMap<TaskId, Assumption>>,
    rates: HashMap<DefinitionId, Rates>,
    /// What others gave out before this is not known.
    unknown_before: Option<Instant>,
    forgot: Option<Instant>,
}

/// How often what no rate counts any more is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(1);

impl Assumed {
    /// Nothing is assumed, and whatever rate limits allow may have been used up just now:
    /// what a new leader knows at the moment from which nobody else gives out tasks.
    pub fn of_a_new_leader(now: Instant) -> Self {
        Self { unknown_before: Some(now), ..Self::default() }
    }

    /// Whether a request about the task may still be under way, or unseen.
    pub fn is_busy(&self, def: &DefinitionId, task: TaskId) -> bool {
        self.tasks.get(def).is_some_and(|tasks| tasks.contains_key(&task))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.values().map(HashMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether tasks of the definition are given out that the view may not show yet.
    pub(super) fn gives_to(&self, def: &DefinitionId) -> bool {
        let tasks = self.tasks.get(def).into_iter().flat_map(HashMap::values);
        tasks.into_iter().any(|assumption| assumption.given.is_some())
    }

    /// What is given out and not yet in the view of the definition. Where the task is not
    /// what it was when this was planned, the assignment is in the view, or was and has
    /// ended, or its fence refuses it for good.
    pub(super) fn given<'a>(
        &'a self,
        def: &DefinitionId,
        definition: &'a Definition,
    ) -> impl Iterator<Item = &'a Given> {
        let tasks = self.tasks.get(def).into_iter().flatten();
        tasks.filter_map(move |(id, assumption)| {
            let given = assumption.given.as_ref()?;
            let task = definition.task(*id)?;
            let as_planned = task.assignment().is_none()
                && task.task_revision() == given.seen.task
                && task.tally_revision() == given.seen.tally;
            as_planned.then_some(given)
        })
    }

    pub(super) fn meter<'a>(
        &'a self,
        def: &DefinitionId,
        limit: Option<&'a RateLimit>,
        now: Instant,
    ) -> Meter<'a> {
        Meter { limit, rates: self.rates.get(def), unknown_before: self.unknown_before, now }
    }

    /// A request about the task is sent.
    pub fn sent(&mut self, def: &DefinitionId, step: &Step) {
        let given = match step {
            Step::Assign { worker, class, lane, rate, seen, .. } => {
                if let Some(limit) = rate {
                    self.rates.entry(def.clone()).or_default().sent(lane, limit);
                }
                let (worker, lane) = (worker.clone(), lane.clone());
                Some(Given { worker, class: *class, lane, seen: *seen, paced: rate.is_some() })
            }
            _ => None,
        };
        let assumption = Assumption { until: Until::Answer, given };
        self.tasks.entry(def.clone()).or_default().insert(step.task(), assumption);
    }

    /// The request was applied at `revision`.
    pub fn applied(&mut self, def: &DefinitionId, task: TaskId, revision: Revision, now: Instant) {
        self.settle(def, task, Until::Passed(revision), now);
    }

    /// The request was refused by its fence, at store revision `revision`.
    pub fn refused(
        &mut self,
        def: &DefinitionId,
        task: TaskId,
        revision: Revision,
        retry: Instant,
        now: Instant,
    ) {
        self.settle(def, task, Until::Refused(revision, retry), now);
    }

    fn settle(&mut self, def: &DefinitionId, task: TaskId, until: Until, now: Instant) {
        let Some(assumption) = self.tasks.get_mut(def).and_then(|tasks| tasks.get_mut(&task)) else { return };
        assumption.until = until;
        let applied = matches!(until, Until::Passed(_));
        answered(&mut self.rates, def, assumption, applied, now);
        if !applied {
            assumption.given = None; // it takes no slot and no turn
        }
    }

    /// Ends what the view has passed.
    pub fn end_passed(&mut self, view: Revision, now: Instant) {
        self.tasks.retain(|_, tasks| {
            tasks.retain(|_, assumption| match assumption.until {
                Until::Answer => true,
                Until::Passed(revision) => view < revision,
                Until::Refused(revision, retry) => view < revision && now < retry,
            });
            !tasks.is_empty()
        });
        if self.forgot.is_none_or(|forgot| now >= forgot + FORGET_EVERY) {
            self.forgot = Some(now);
            self.rates.retain(|_, rates| rates.forget(now));
        }
    }

    /// When the next refused step may be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        let retries = self.tasks.values().flat_map(HashMap::values);
        let retries = retries.filter_map(|assumption| match assumption.until {
            Until::Refused(_, retry) => Some(retry),
            Until::Answer | Until::Passed(_) => None,
        });
        retries.min()
    }

    /// A new term of the same leader, and a list newer than it: whatever was sent before
    /// is either in that list or will never be applied (law 5). For a rate it counts, since
    /// it may have been applied, and have ended, before the list.
    pub fn clear(&mut self, now: Instant) {
        for (def, tasks) in std::mem::take(&mut self.tasks) {
            for assumption in tasks.values().filter(|one| matches!(one.until, Until::Answer)) {
                answered(&mut self.rates, &def, assumption, true, now);
            }
        }
    }
}

/// An assignment that was sent has been taken, or not, by now.
fn answered(
    rates: &mut HashMap<DefinitionId, Rates>,
    def: &DefinitionId,
    assumption: &Assumption,
    applied: bool,
    now: Instant,
) {
    let Some(given) = assumption.given.as_ref().filter(|given| given.paced) else { return };
    if let Some(rates) = rates.get_mut(def) {
        rates.answered(&given.lane, applied, now);
    }
}
