//! Filling the free slots of one definition's workers, the freest worker first.

use std::collections::{BTreeSet, HashMap};

use super::Waiting;
use super::assumed::Given;
use super::versions::Avoided;
use crate::backend::Revision;
use crate::id::WorkerId;
use crate::record::{Isolation, WorkerState};
use crate::view::{Class, Definition, WorkerView};

/// The free slots that remain while a plan is made.
pub(super) struct Fill<'a> {
    /// Workers with a free slot, by how many; ties by id, so that a plan is repeatable.
    free: BTreeSet<(usize, &'a WorkerId)>,
    definition: &'a Definition,
    workers: usize,
    /// The slots of the largest worker.
    largest: usize,
    /// What found no place: it finds none in this plan, since places only become fewer.
    refused: BTreeSet<Class>,
    kept_back: bool,
    refused_versions: bool,
}

/// What assumptions take from one worker.
#[derive(Default, Clone, Copy)]
struct Sent {
    slots: usize,
    alone: bool,
}

impl<'a> Fill<'a> {
    pub(super) fn of<'g>(definition: &'a Definition, given: impl Iterator<Item = &'g Given>) -> Self {
        let mut sent: HashMap<&WorkerId, Sent> = HashMap::new();
        for Given { worker, class, .. } in given {
            let taken = sent.entry(worker).or_default();
            taken.slots += class.weight.slots();
            taken.alone |= class.isolation == Isolation::Alone;
        }
        let active = definition.workers().iter().filter(|(_, w)| w.record.state == WorkerState::Active);
        let (mut workers, mut largest) = (0, 0);
        let mut free = BTreeSet::new();
        for (worker, view) in active {
            workers += 1;
            let all = view.record.slots as usize;
            largest = largest.max(all);
            let sent = sent.get(worker).copied().unwrap_or_default();
            let used = definition.held_slots(worker) + sent.slots;
            let taken_alone = definition.is_taken_alone(worker) || sent.alone;
            let slots = all.saturating_sub(used);
            if slots > 0 && !taken_alone {
                // A worker that runs nothing sorts after all that run something.
                free.insert((if used == 0 { IDLE + slots } else { slots }, worker));
            }
        }
        Self {
            free,
            definition,
            workers,
            largest,
            refused: BTreeSet::new(),
            kept_back: false,
            refused_versions: false,
        }
    }

    /// Takes what a task needs: some slots of one worker, or a whole idle worker.
    /// None of the avoided versions will do.
    pub(super) fn take(&mut self, class: Class, avoided: Avoided<'_>) -> Option<(WorkerId, Revision)> {
        let found = if avoided.is_none() { self.find(class) } else { self.find_other(class, avoided) };
        let Some((rank, worker)) = found else {
            if avoided.is_none() {
                self.refuse(class);
            }
            self.refused_versions |= !avoided.is_none();
            return None;
        };
        self.free.remove(&(rank, worker));
        let left = free_of(rank) - class.weight.slots();
        if class.isolation == Isolation::Shared && left > 0 {
            self.free.insert((left, worker));
        }
        self.definition.workers().get(worker).map(|WorkerView { revision, .. }| (worker.clone(), *revision))
    }

    fn find(&self, class: Class) -> Option<(usize, &'a WorkerId)> {
        let fits = |at: &&(usize, &'a WorkerId)| free_of(at.0) >= class.weight.slots();
        let freest = self.free.last().filter(fits);
        match class.isolation {
            Isolation::Alone => freest.filter(|(rank, _)| *rank > IDLE).copied(),
            // The freest idle worker may have fewer slots free than a busy one.
            Isolation::Shared => {
                let busy = || self.free.iter().rev().find(|(rank, _)| *rank < IDLE).filter(fits);
                freest.or_else(busy).copied()
            }
        }
    }

    /// As `find`, among workers of other versions.
    fn find_other(&self, class: Class, avoided: Avoided<'_>) -> Option<(usize, &'a WorkerId)> {
        let workers = self.definition.workers();
        let fits = |at: &&(usize, &'a WorkerId)| {
            let (rank, worker) = **at;
            let idle = rank > IDLE || class.isolation == Isolation::Shared;
            let allowed = workers.get(worker).is_some_and(|view| avoided.allows(&view.record));
            idle && allowed && free_of(rank) >= class.weight.slots()
        };
        self.free.iter().rev().find(fits).copied()
    }

    /// Nobody has what this class needs now. Keeps a worker back that will, once, so that it
    /// empties: else a stream of lighter tasks would keep every worker busy.
    fn refuse(&mut self, class: Class) {
        self.refused.insert(class);
        if self.kept_back {
            return;
        }
        let large = |worker: &WorkerId| {
            let worker = self.definition.workers().get(worker);
            worker.is_some_and(|worker| worker.record.slots as usize >= class.weight.slots())
        };
        let candidate = self.free.iter().rev().find(|(_, worker)| large(worker)).copied();
        if let Some(candidate) = candidate {
            self.free.remove(&candidate);
            self.kept_back = true;
        }
    }

    /// Whether no worker is large enough, busy or not.
    pub(super) fn is_too_heavy(&self, class: Class) -> bool {
        class.weight.slots() > self.largest
    }

    pub(super) fn refuses(&self, class: Class) -> bool {
        self.refused.contains(&class)
    }

    /// Why nobody can be given anything any more, if so.
    pub(super) fn exhausted(&self) -> Option<Waiting> {
        match (self.workers, self.free.is_empty()) {
            (0, _) => Some(Waiting::NoWorkers),
            (_, true) => Some(Waiting::NoFreeSlot),
            (_, false) => None,
        }
    }

    /// Why some found no place although others may, if so.
    pub(super) fn refusal(&self) -> Option<Waiting> {
        if self.refused.iter().any(|class| self.is_too_heavy(*class)) {
            return Some(Waiting::TooHeavy);
        }
        let alone = |class: &Class| class.isolation == Isolation::Alone;
        let kept = self.refused.first().map(|_| match self.refused.iter().any(alone) {
            true => Waiting::NoIdleWorker,
            false => Waiting::NoFreeSlot,
        });
        kept.or(self.refused_versions.then_some(Waiting::NoOtherVersion))
    }
}

/// More slots than any worker has.
const IDLE: usize = 1 << 32;

fn free_of(rank: usize) -> usize {
    if rank > IDLE { rank - IDLE } else { rank }
}
