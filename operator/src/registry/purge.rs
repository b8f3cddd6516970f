//! Counting and removing the tasks of a deleted definition, in bounded steps.
//!
//! The state `Purging` is written before, so nothing new is assigned. A pass removes what
//! waits; what still runs is left to the next pass, or, at the deadline, removed as well:
//! its worker's settle then finds its fence gone and does nothing (law 2).
//!
//! Every removal is fenced by that very policy: a replica that is late must not remove the
//! tasks of the name's next life.
//!
//! An assignment that was under way when the state was written may still arrive, but not
//! once its task is gone (it compares the task). So a pass ends with a look at the
//! assignments, and whoever finds some comes again.

use std::collections::BTreeSet;
use std::fmt;
use std::mem::discriminant;

use bellows_registry::backend::{Compare, Is, Op, Revision, Txn, limits};
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::{Key, KeyRange};
use bytes::Bytes;

use super::pages::{Pages, successor};
use super::{Registry, RegistryError};

/// What is left of a definition's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Tasks that wait.
    pub waiting: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that were given up.
    pub parked: usize,
    /// Whether there are more of them than were counted.
    pub more: bool,
}

impl Left {
    /// After a pass that met so many `held` tasks, and saw so many `assigned` ones at its end.
    /// Pure.
    fn after(running: Running, held: usize, assigned: usize, more: bool) -> Self {
        let running = match running {
            // Who was spared and is assigned no longer may wait again: another pass must look.
            Running::Spare => assigned.max(held),
            Running::Remove => assigned,
        };
        Self { running, more, ..Self::default() }
    }

    /// Whether anything waits or runs.
    pub fn is_busy(&self) -> bool {
        self.waiting + self.running > 0 || self.more
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waiting, running, parked, more } = self;
        let least = if *more { "at least " } else { "" };
        write!(f, "{least}{waiting} waiting, {running} running and {parked} parked tasks")
    }
}

/// How one pass of a purge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// This is left after it, as far as it is known; `more` if the pass reached its bound.
    Left(Left),
    /// The policy changed meanwhile: nothing was removed since, and who asked for the purge
    /// has to ask the registry anew whether it may.
    Superseded,
}

/// Whether tasks that run are removed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// They are left to end.
    Spare,
    /// They are removed.
    Remove,
}

/// Tasks of one kind are counted up to here: for a sentence, more is not needed.
const COUNTED: usize = 10_000;

/// Pages that one pass reads, so that it ends in seconds; the next goes on.
const PASS: usize = 250;

/// How many ranges of keys one request removes.
const CHUNK: usize = limits::OPS / 2;

impl Registry {
    /// Counts the tasks of a definition, up to a bound. For the end of a definition, not
    /// for its life.
    pub async fn left(&self, def: &DefinitionId) -> Result<Left, RegistryError> {
        let (running, a) = self.count(self.space.all_assignments_range(def)).await?;
        let (tasks, b) = self.count(self.space.tasks_range(def)).await?;
        let (parked, c) = self.count(self.space.parked_range(def)).await?;
        Ok(Left { waiting: tasks.saturating_sub(running), running, parked, more: a || b || c })
    }

    /// The number of keys in a range, and whether there are more.
    async fn count(&self, range: KeyRange) -> Result<(usize, bool), RegistryError> {
        let (mut pages, mut count) = (Pages::of(self, range), 0);
        while let Some(page) = pages.next().await? {
            count += page.len();
            if count >= COUNTED {
                return Ok((count, !pages.at_end()));
            }
        }
        Ok((count, false))
    }

    /// One pass, as long as the policy is the one written at `policy`.
    pub async fn purge(
        &self,
        def: &DefinitionId,
        policy: Revision,
        running: Running,
    ) -> Result<Pass, RegistryError> {
        self.ours()?;
        let fence = Compare { key: self.space.path(&Key::Policy(def.clone())), is: Is::At(policy) };
        let mut pages = Pages::of(self, self.space.definition_range(def));
        // The assignments come first in the order of keys: no more of them than slots.
        let mut held = BTreeSet::new();
        let mut read = 0;
        while let Some(page) = pages.next().await? {
            if !self.remove(&page, &fence, running, &mut held).await? {
                return Ok(Pass::Superseded);
            }
            read += 1;
            if read >= PASS && !pages.at_end() {
                return Ok(Pass::Left(Left { running: held.len(), more: true, ..Left::default() }));
            }
        }
        let (assigned, more) = self.count(self.space.all_assignments_range(def)).await?;
        Ok(Pass::Left(Left::after(running, held.len(), assigned, more)))
    }

    /// Removes what goes of one page, as few ranges. Answers whether the fence held.
    pub(super) async fn remove(
        &self,
        page: &[Bytes],
        fence: &Compare,
        running: Running,
        held: &mut BTreeSet<TaskId>,
    ) -> Result<bool, RegistryError> {
        let goes = |path: &Bytes| {
            let key = self.space.parse(path).ok()?;
            let goes = match &key {
                Key::Assignment(_, _, task, _) => {
                    held.insert(*task);
                    running == Running::Remove
                }
                Key::Task(_, task) | Key::Tally(_, task) | Key::Checkpoint(_, task) => {
                    running == Running::Remove || !held.contains(task)
                }
                Key::Parked(..) | Key::Request(..) | Key::Unique(..) => true,
                _ => false,
            };
            goes.then(|| discriminant(&key))
        };
        let runs = runs(page, goes);
        for chunk in runs.chunks(CHUNK) {
            let then = chunk.iter().cloned().map(Op::Delete).collect();
            let row = Txn { compares: vec![fence.clone()], then, otherwise: Vec::new() };
            if !self.backend.txn(row).await?.succeeded {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets the policy of a definition whose tasks are gone, unless the name has
    /// begun another life.
    pub async fn forget(&self, def: &DefinitionId, uid: &str) -> Result<(), RegistryError> {
        self.ours()?;
        let found = self.read(def).await?;
        let Some(record) = found.policy.filter(|record| record.uid == uid) else { return Ok(()) };
        let path = self.space.path(&Key::Policy(def.clone()));
        let fence = Compare { key: path.clone(), is: Is::At(found.seen) };
        let then = vec![Op::Delete(KeyRange::one(path))];
        tracing::debug!(definition = %def, generation = record.generation, "forgetting the policy");
        self.backend.txn(Txn { compares: vec![fence], then, otherwise: Vec::new() }).await?;
        Ok(())
    }
}

/// Neighbours of one kind that go, as ranges. Not across kinds: the key of a worker that
/// has just come to life may lie between them. Pure.
fn runs<K: PartialEq>(page: &[Bytes], mut goes: impl FnMut(&Bytes) -> Option<K>) -> Vec<KeyRange> {
    let mut runs: Vec<KeyRange> = Vec::new();
    let mut before = None;
    for key in page {
        let kind = goes(key);
        match runs.last_mut().filter(|_| kind == before) {
            Some(run) if kind.is_some() => run.end = successor(key),
            None if kind.is_some() => runs.push(KeyRange { start: key.clone(), end: successor(key) }),
            _ => {}
        }
        before = kind;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its worker may have handed it back meanwhile; then it waits, and the policy must stay.
    #[test]
    fn a_pass_that_spared_a_task_is_never_the_last_one() {
        let busy = |running, held, assigned| Left::after(running, held, assigned, false).is_busy();
        assert!(busy(Running::Spare, 1, 0) && busy(Running::Spare, 1, 1));
        assert!(busy(Running::Spare, 0, 1) && busy(Running::Remove, 0, 1), "given out at the last moment");
        assert!(!busy(Running::Spare, 0, 0) && !busy(Running::Remove, 1, 0), "nothing is left");
    }

    #[test]
    fn neighbours_of_one_kind_go_as_one_range_and_what_stays_parts_them() {
        let page = ["p1", "p2", "t1", "t2", "t3"].map(|key| Bytes::from_static(key.as_bytes()));
        let ranges = |stays: &'static str| -> Vec<String> {
            let runs = runs(&page, |key| (key != stays).then(|| key[0]));
            let text = |run: &KeyRange| String::from_utf8_lossy(&run.start).into_owned();
            let holds = |run: &KeyRange| page.iter().filter(|key| run.contains(key)).count();
            runs.iter().map(|run| format!("{}x{}", text(run), holds(run))).collect()
        };
        assert_eq!(ranges("-"), ["p1x2", "t1x3"]);
        assert_eq!(ranges("t2"), ["p1x2", "t1x1", "t3x1"]);
        assert_eq!(ranges("p1"), ["p2x1", "t1x3"]);
        assert!(runs(&page, |_| None::<u8>).is_empty());
    }
}
