//! What the assigner's view says about how much work there is: the one truth that
//! the scaler, the status and the metrics read.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::backend::Revision;
use crate::id::DefinitionId;
use crate::plan::{self, Assumed, Plan, Waiting};
use crate::record::{PolicyState, WorkerState};
use crate::session::Trust;
use crate::view::{Definition, View};

/// The work of all definitions, as the leading assigner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DemandReport {
    /// Whether this process leads. If not, nothing else here means anything.
    pub leading: bool,
    /// Whether the view was known to be current when this was told. Ask
    /// [`DemandReport::is_fresh`] before anything is decided from it (law 19).
    pub fresh: bool,
    /// For how long the leader's lease is to be trusted.
    pub trust: Trust,
    /// The view's revision.
    pub revision: Revision,
    /// By definition.
    pub definitions: BTreeMap<DefinitionId, Demand>,
    /// Values in the registry that could not be read.
    pub unreadable: usize,
}

impl DemandReport {
    /// Whether anything may be decided from it at `now`: not any more if the process was stopped
    /// for so long that another one leads.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.leading && self.fresh && self.trust.holds(now)
    }
}

/// The work of one definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// Tasks due and nobody's: the backlog.
    pub due: usize,
    /// Of these, those that no limit holds back: more workers would help them.
    pub startable: usize,
    /// The slots that the startable and the assigned tasks take together.
    pub wanted: usize,
    /// Tasks waiting for their time.
    pub delayed: usize,
    /// Tasks given to a worker. One counts from when its assignment is sent, and no longer as
    /// due: on its way it is demand all the same.
    pub assigned: usize,
    /// The slots that these take.
    pub assigned_slots: usize,
    /// Tasks given up until a person replays them.
    pub parked: usize,
    /// When the oldest task of the backlog became due.
    pub oldest_due: Option<Instant>,
    /// Living workers that take tasks.
    pub workers: usize,
    /// Their slots.
    pub slots: usize,
    /// Whether tasks are accepted.
    pub open: bool,
    /// How the definition stands, if it was ever applied.
    pub state: Option<PolicyState>,
    /// Why the backlog waits, if it does.
    pub waiting: Option<Waiting>,
}

impl Demand {
    /// Due and assigned: a definition with demand is not idle.
    pub fn total(&self) -> usize {
        self.due + self.assigned
    }

    fn of(id: &DefinitionId, definition: &Definition, assumed: &Assumed, now: Instant) -> Self {
        let given = plan::being_given(id, definition, assumed);
        let due = definition.due_count().saturating_sub(given.tasks);
        let startable = plan::startable(id, definition, assumed, now);
        // What a startable task takes, is known only on average where not all are.
        let slots = definition.lanes().due_slots().saturating_sub(given.slots);
        let startable_slots = if due == 0 { 0 } else { (slots * startable).div_ceil(due) };
        let assigned_slots = definition.assigned_slots() + given.slots;
        let active = |state: WorkerState| state == WorkerState::Active;
        let workers = definition.workers().values().filter(|w| active(w.record.state));
        let (workers, slots) = workers.fold((0, 0), |(n, slots), w| (n + 1, slots + w.record.slots as usize));
        Self {
            due,
            startable,
            wanted: assigned_slots + startable_slots,
            delayed: definition.delayed_count(),
            assigned: definition.assigned_count() + given.tasks,
            assigned_slots,
            parked: definition.parked_count(),
            oldest_due: definition.oldest_due().filter(|_| due > 0),
            workers,
            slots,
            open: definition.is_open(),
            state: definition.policy().map(|record| record.state),
            waiting: None,
        }
    }
}

/// Reads the demand off a view and the plan made from it.
pub fn report(view: &View, assumed: &Assumed, plan: &Plan, now: Instant) -> BTreeMap<DefinitionId, Demand> {
    let definitions = view.definitions().iter();
    definitions
        .map(|(id, definition)| {
            let waiting = plan.waiting.get(id).copied();
            (id.clone(), Demand { waiting, ..Demand::of(id, definition, assumed, now) })
        })
        .collect()
}
