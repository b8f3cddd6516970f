//! What became of each task, as it is counted here: the records say the same.

use bellows_registry::id::{DefinitionId, TaskId, WorkerId};
use bellows_registry::key::Key;
use bellows_registry::plan::Step;
use bellows_registry::record::{
    AssignmentRecord, Isolation, ParkedRecord, PolicyRecord, Tally, WorkerRecord, WorkerState,
};

use crate::table::Table;

/// What became of a task so far in its present life.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) attempts: u32,
    losses: u32,
    /// Those of them that it suffered alone.
    alone: u32,
}

impl Count {
    fn told(tally: &Tally) -> Self {
        Self { attempts: tally.attempts, losses: tally.losses, alone: tally.losses_alone }
    }

    fn taken_back(self) -> Self {
        Self { losses: self.losses + 1, ..self }
    }

    /// Who has lost two workers has the next one to itself.
    fn worker_lost(self) -> Self {
        let alone = u32::from(self.losses >= Tally::SUSPECT_LOSSES);
        Self { losses: self.losses + 1, alone: self.alone + alone, ..self }
    }
}

impl Table {
    /// A step of the assigner was made.
    pub(crate) fn count(&mut self, def: &DefinitionId, step: &Step) {
        let task = step.task();
        let known = self.counts.get(&(def.clone(), task)).copied().unwrap_or_default();
        let next = match step {
            Step::Assign { worker, .. } => {
                self.given_as_counted(def, task, worker, known);
                known
            }
            Step::Lost { .. } => self.told_as(def, task, known.worker_lost()),
            Step::TakeBack { .. } => self.told_as(def, task, known.taken_back()),
            Step::Replay { .. } => self.told_as(def, task, Count::default()),
            Step::LostForGood { .. } => self.parked_as(def, task, known.worker_lost()),
            _ => known,
        };
        self.counts.insert((def.clone(), task), next);
        self.seen.note(name(step));
    }

    fn told_as(&self, def: &DefinitionId, task: TaskId, count: Count) -> Count {
        let tally: Tally = self.get(&Key::Tally(def.clone(), task)).unwrap();
        assert_eq!(Count::told(&tally), count, "a loss is no attempt, and a life begins anew");
        count
    }

    fn parked_as(&self, def: &DefinitionId, task: TaskId, count: Count) -> Count {
        let parked: ParkedRecord = self.get(&Key::Parked(def.clone(), task)).unwrap();
        assert_eq!(Count::told(&parked.tally), count, "a loss is no attempt");
        let policy: PolicyRecord = self.get(&Key::Policy(def.clone())).unwrap();
        let enough = count.alone >= policy.policy.execution.max_disruptions;
        assert!(enough, "only losses suffered alone park a task: {count:?}");
        count
    }

    fn given_as_counted(&self, def: &DefinitionId, task: TaskId, worker: &WorkerId, known: Count) {
        let beside: Vec<(TaskId, AssignmentRecord)> = self
            .standing
            .iter()
            .filter(|at| at.worker == *worker)
            .map(|at| (at.task, self.get(&at.key()).unwrap()))
            .collect();
        let (_, record) = beside.iter().find(|(of, _)| *of == task).unwrap();
        assert_eq!(Count::told(&record.tally), known, "a loss is no attempt, and an attempt no loss");
        assert_eq!(record.number, known.attempts + 1);
        let kept = self.has(&Key::Checkpoint(def.clone(), task));
        assert_eq!(record.has_checkpoint, kept, "an attempt begins from what the last one kept");
        let slots: usize = beside.iter().map(|(_, record)| record.options.weight.slots()).sum();
        let worker: Option<WorkerRecord> = self.get(&Key::Worker(def.clone(), worker.clone()));
        let worker = worker.expect("tasks are given to living workers");
        assert_eq!(worker.state, WorkerState::Active, "given to a worker that takes nothing");
        assert!(slots <= worker.slots as usize, "{slots} of {} slots are taken", worker.slots);
        let alone = beside.iter().any(|(_, record)| record.isolation == Isolation::Alone);
        assert!(!alone || beside.len() == 1, "a suspect task does not have its worker to itself");
    }
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Assign { .. } => "given",
        Step::Lost { .. } => "lost",
        Step::LostForGood { .. } => "lost for good",
        Step::TakeBack { .. } => "taken back",
        Step::Cancel { .. } => "cancelled",
        Step::FlagCancel { .. } => "told to cancel",
        Step::DropRequest { .. } => "requests dropped",
        Step::Expire { .. } => "expired",
        Step::Replay { .. } => "replayed",
        Step::Purge { .. } => "purged",
    }
}
