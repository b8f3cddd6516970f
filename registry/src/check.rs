//! The laws, as code: what a registry, a plan and a history must satisfy.
//!
//! The oracle of every test that cares about correctness. It knows nothing of how the
//! moves are made; it looks at keys. Laws are named by their number in the crate's
//! documentation.

mod history;
mod limits;
mod plan;
mod unique;

use std::collections::BTreeMap;
use std::fmt;

use crate::backend::Entry;
use crate::id::{DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{Ended, OutcomeRecord, Record};

pub use history::History;
pub use limits::Limits;
pub use plan::plan;

/// A broken law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The law's number.
    pub law: u8,
    /// The task it was broken for, if it was one.
    pub task: Option<(DefinitionId, TaskId)>,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law {} is broken", self.law)?;
        if let Some((def, task)) = &self.task {
            write!(f, " for {def} {task}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Which keys of one task exist.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one a key")]
pub(crate) struct Keys {
    pub(crate) task: bool,
    pub(crate) parked: bool,
    pub(crate) outcome: Option<Option<Ended>>,
    pub(crate) assignments: Vec<Key>,
    pub(crate) tally: bool,
    pub(crate) checkpoint: bool,
}

impl Keys {
    /// What is wrong with this combination of keys.
    pub(crate) fn wrong(&self) -> Option<(u8, String)> {
        if self.assignments.len() > 1 {
            return Some((1, format!("{} standing assignments", self.assignments.len())));
        }
        if !self.assignments.is_empty() && !self.task {
            return Some((1, "an assignment without its task".to_owned()));
        }
        if self.outcome.is_some() && self.task {
            return Some((1, "a terminal record beside its task".to_owned()));
        }
        if self.parked && self.task {
            return Some((1, "a parked task that is also waiting".to_owned()));
        }
        if self.parked && !matches!(self.outcome, Some(Some(Ended::Parked) | None)) {
            return Some((3, "a parked task whose terminal record does not say so".to_owned()));
        }
        if self.tally && !self.task {
            return Some((3, "a tally without its task".to_owned()));
        }
        if self.checkpoint && !self.task {
            return Some((3, "a checkpoint without its task".to_owned()));
        }
        None
    }
}

/// Checks a whole registry at one revision.
pub fn registry(space: &Keyspace, entries: &[Entry]) -> Vec<Violation> {
    let mut tasks: BTreeMap<(DefinitionId, TaskId), Keys> = BTreeMap::new();
    let mut violations = Vec::new();
    for entry in entries {
        let Ok(key) = space.parse(&entry.key) else { continue };
        if entry.lease.is_some() && !matches!(key, Key::Worker(..) | Key::Leader(_)) {
            violations.push(Violation { law: 8, task: None, what: format!("{key:?} hangs on a lease") });
        }
        note(&mut tasks, &key, entry);
    }
    let wrong = tasks
        .into_iter()
        .filter_map(|(task, keys)| keys.wrong().map(|(law, what)| Violation { law, task: Some(task), what }));
    violations.extend(wrong);
    violations.extend(unique::unique(space, entries));
    violations
}

fn note(tasks: &mut BTreeMap<(DefinitionId, TaskId), Keys>, key: &Key, entry: &Entry) {
    let (Key::Task(def, task)
    | Key::Tally(def, task)
    | Key::Checkpoint(def, task)
    | Key::Parked(def, task)
    | Key::Assignment(def, _, task, _)
    | Key::Outcome(def, _, task)) = key
    else {
        return;
    };
    let keys = tasks.entry((def.clone(), *task)).or_default();
    match key {
        Key::Task(..) => keys.task = true,
        Key::Tally(..) => keys.tally = true,
        Key::Checkpoint(..) => keys.checkpoint = true,
        Key::Parked(..) => keys.parked = true,
        Key::Assignment(..) => keys.assignments.push(key.clone()),
        Key::Outcome(..) => {
            keys.outcome = Some(OutcomeRecord::decode(&entry.value).ok().map(|record| record.ended));
        }
        _ => {}
    }
}
