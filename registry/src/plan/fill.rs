//! Filling the free slots of one definition's workers, the freest worker first.

use std::collections::BTreeSet;

use super::versions::Avoided;
use super::{Assumed, Waiting};
use crate::backend::Revision;
use crate::id::{DefinitionId, WorkerId};
use crate::record::{Isolation, WorkerState};
use crate::view::{Definition, WorkerView};

/// The free slots that remain while a plan is made.
pub(super) struct Fill<'a> {
    /// Workers with a free slot, by how many; ties by id, so that a plan is repeatable.
    free: BTreeSet<(usize, &'a WorkerId)>,
    definition: &'a Definition,
    workers: usize,
    refused_suspects: bool,
    refused_versions: bool,
}

impl<'a> Fill<'a> {
    pub(super) fn of(id: &DefinitionId, definition: &'a Definition, assumed: &Assumed) -> Self {
        let active = definition.workers().iter().filter(|(_, w)| w.record.state == WorkerState::Active);
        let mut workers = 0;
        let mut free = BTreeSet::new();
        for (worker, view) in active {
            workers += 1;
            let sent = assumed.slots(id, worker);
            let used = definition.held_count(worker) + sent.used;
            let taken_alone = definition.is_taken_alone(worker) || sent.alone > 0;
            let slots = (view.record.slots as usize).saturating_sub(used);
            if slots > 0 && !taken_alone {
                // A worker that runs nothing sorts after all that run something.
                free.insert((if used == 0 { IDLE + slots } else { slots }, worker));
            }
        }
        Self { free, definition, workers, refused_suspects: false, refused_versions: false }
    }

    /// Takes a slot, or a whole idle worker, of none of the avoided versions.
    pub(super) fn take(
        &mut self,
        isolation: Isolation,
        avoided: Avoided<'_>,
    ) -> Option<(WorkerId, Revision)> {
        let workers = self.definition.workers();
        let allowed = |worker: &WorkerId| {
            avoided.is_none() || workers.get(worker).is_some_and(|view| avoided.allows(&view.record))
        };
        let freest = self.free.iter().rev().find(|(_, worker)| allowed(worker));
        let Some(&(slots, worker)) = freest else {
            self.refused_versions |= !avoided.is_none();
            return None;
        };
        let idle = slots > IDLE;
        if isolation == Isolation::Alone && !idle {
            // Keep the freest worker back, once, so that it empties: else a stream of
            // younger tasks would keep every worker busy and the suspect would starve.
            if !self.refused_suspects {
                self.free.remove(&(slots, worker));
            }
            self.refused_suspects = true;
            return None;
        }
        self.free.remove(&(slots, worker));
        let left = if idle { slots - IDLE } else { slots } - 1;
        if isolation == Isolation::Shared && left > 0 {
            self.free.insert((left, worker));
        }
        self.definition.workers().get(worker).map(|WorkerView { revision, .. }| (worker.clone(), *revision))
    }

    /// Why nobody can be given anything any more, if so.
    pub(super) fn exhausted(&self) -> Option<Waiting> {
        match (self.workers, self.free.is_empty()) {
            (0, _) => Some(Waiting::NoWorkers),
            (_, true) => Some(Waiting::NoFreeSlot),
            (_, false) => None,
        }
    }

    /// Why some tasks were passed over though there are free slots, if so.
    pub(super) fn refused(&self) -> Option<Waiting> {
        let suspects = self.refused_suspects.then_some(Waiting::NoIdleWorker);
        suspects.or(self.refused_versions.then_some(Waiting::NoOtherVersion))
    }
}

/// More slots than any worker has.
const IDLE: usize = 1 << 32;
