//! Removing the tasks of a deleted definition, in bounded chunks.
//!
//! The state `Purging` is written before, so nothing is assigned any more. A pass lists
//! at one revision and removes what waits; what still runs is left to the next pass,
//! or, at the deadline, removed as well: its worker's settle then finds its fence gone
//! and does nothing (law 2).

use std::collections::BTreeSet;

use bellows_registry::backend::{Op, RangeRequest, Txn, limits};
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::{Key, KeyRange};

use super::{Registry, RegistryError};

/// What a pass left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Tasks that wait.
    pub waiting: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that were given up.
    pub parked: usize,
}

/// Whether tasks that run are removed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// They are left to end.
    Spare,
    /// They are removed.
    Remove,
}

/// How many keys one request removes.
const CHUNK: usize = limits::OPS / 2;

impl Registry {
    /// Counts the tasks of a definition. Reads them all: for the end of a definition,
    /// not for its life.
    pub async fn left(&self, def: &DefinitionId) -> Result<Left, RegistryError> {
        let keys = self.keys(def).await?;
        Ok(count(&keys))
    }

    /// One pass. Returns what is left after it.
    pub async fn purge(&self, def: &DefinitionId, running: Running) -> Result<Left, RegistryError> {
        let keys = self.keys(def).await?;
        let held = assigned(&keys);
        let doomed = keys.iter().filter(|key| match key {
            Key::Task(_, task) | Key::Tally(_, task) | Key::Checkpoint(_, task) => {
                running == Running::Remove || !held.contains(task)
            }
            Key::Assignment(..) => running == Running::Remove,
            Key::Parked(..) | Key::Request(..) | Key::Unique(..) => true,
            _ => false,
        });
        let paths: Vec<_> = doomed.map(|key| self.space.path(key)).collect();
        for chunk in paths.chunks(CHUNK) {
            let then = chunk.iter().map(|path| Op::Delete(KeyRange::one(path.clone()))).collect();
            self.backend.txn(Txn { then, ..Txn::default() }).await?;
        }
        match running {
            Running::Remove => Ok(Left::default()),
            Running::Spare => Ok(Left { running: held.len(), ..Left::default() }),
        }
    }

    /// Forgets the policy of a definition whose tasks are gone, unless the name has
    /// begun another life.
    pub async fn forget(&self, def: &DefinitionId, uid: &str) -> Result<(), RegistryError> {
        let (policy, _) = self.read(def).await?;
        let Some((record, revision)) = policy.filter(|(record, _)| record.uid == uid) else { return Ok(()) };
        let path = self.space.path(&Key::Policy(def.clone()));
        let fence = bellows_registry::backend::Compare {
            key: path.clone(),
            is: bellows_registry::backend::Is::At(revision),
        };
        let then = vec![Op::Delete(KeyRange::one(path))];
        tracing::debug!(definition = %def, generation = record.generation, "forgetting the policy");
        self.backend.txn(Txn { compares: vec![fence], then, otherwise: Vec::new() }).await?;
        Ok(())
    }

    async fn keys(&self, def: &DefinitionId) -> Result<Vec<Key>, RegistryError> {
        let answer = self.backend.range(RangeRequest::new(self.space.definition_range(def))).await?;
        Ok(answer.entries.iter().filter_map(|entry| self.space.parse(&entry.key).ok()).collect())
    }
}

fn assigned(keys: &[Key]) -> BTreeSet<TaskId> {
    keys.iter()
        .filter_map(|key| match key {
            Key::Assignment(_, _, task, _) => Some(*task),
            _ => None,
        })
        .collect()
}

fn count(keys: &[Key]) -> Left {
    let running = assigned(keys);
    let mut left = Left { running: running.len(), ..Left::default() };
    for key in keys {
        match key {
            Key::Task(_, task) if !running.contains(task) => left.waiting += 1,
            Key::Parked(..) => left.parked += 1,
            _ => {}
        }
    }
    left
}
