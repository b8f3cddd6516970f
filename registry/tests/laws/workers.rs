//! Workers come, change and die.

use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::key::Key;
use bellows_registry::record::{Record, WorkerRecord, WorkerState};

use crate::table::Table;

impl Table {
    pub(crate) fn worker_comes(&mut self, def: &DefinitionId) {
        let id = WorkerId::for_session("pod", self.dice.bits64()).unwrap();
        let slots = if self.peace { 4 } else { 1 + self.below(4) as u32 };
        let record = WorkerRecord { slots, state: WorkerState::Active, sdk: "0".into(), version: None };
        self.write(&Key::Worker(def.clone(), id), record.encode());
    }

    pub(crate) fn worker_changes(&mut self) {
        let Some(key) = self.pick(&self.workers) else { return };
        let states = [WorkerState::Active, WorkerState::Draining, WorkerState::Cordoned];
        let record =
            WorkerRecord { slots: 2, state: self.pick(&states).unwrap(), sdk: "0".into(), version: None };
        self.write(&key, record.encode());
    }

    pub(crate) fn worker_dies(&mut self) {
        if let Some(key) = self.pick(&self.workers) {
            self.remove(&key);
        }
    }

    pub(crate) fn all_workers_leave(&mut self) {
        self.workers.clone().iter().for_each(|key| self.remove(key));
    }

    pub(crate) fn workers_of(&self, def: &DefinitionId) -> usize {
        self.workers.iter().filter(|key| key.definition() == Some(def)).count()
    }

    pub(crate) fn is_alive(&self, worker: &Key) -> bool {
        self.workers.contains(worker)
    }
}
