//! Law 22: a unique key is held by the one task that names it, as long as it does.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::backend::Entry;
use crate::id::{DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{HolderRecord, ParkedRecord, Record, TaskOptions, TaskRecord, UniqueKey};

type Task = (DefinitionId, TaskId);
type Held = (DefinitionId, UniqueKey);

/// Checks the unique keys of a whole registry at one revision.
pub(super) fn unique(space: &Keyspace, entries: &[Entry]) -> Vec<Violation> {
    let mut holders: BTreeMap<Held, Option<TaskId>> = BTreeMap::new();
    let mut waiting: BTreeMap<Task, TaskOptions> = BTreeMap::new();
    let mut claims: BTreeMap<Held, BTreeSet<TaskId>> = BTreeMap::new();
    let mut begun: BTreeSet<Task> = BTreeSet::new();
    for entry in entries {
        match space.parse(&entry.key) {
            Ok(Key::Unique(def, digest)) => {
                let holder = HolderRecord::decode(&entry.value).ok().map(|record| record.task);
                holders.insert((def, digest.into()), holder);
            }
            Ok(Key::Task(def, task)) => {
                if let Ok(record) = TaskRecord::decode(&entry.value) {
                    waiting.insert((def, task), record.options);
                }
            }
            Ok(Key::Parked(def, task)) => {
                let parked = ParkedRecord::decode(&entry.value).ok();
                if let Some(key) = parked.and_then(|parked| parked.ties().unique) {
                    claims.entry((def, key)).or_default().insert(task);
                }
            }
            Ok(Key::Tally(def, task) | Key::Assignment(def, _, task, _)) => {
                begun.insert((def, task));
            }
            _ => {}
        }
    }
    for ((def, task), options) in waiting {
        let has_begun = begun.contains(&(def.clone(), task));
        let key = if has_begun { options.key_once_begun() } else { options.key_while_waiting() };
        if let Some(key) = key {
            claims.entry((def, key)).or_default().insert(task);
        }
    }
    compare(&holders, &claims)
}

fn compare(
    holders: &BTreeMap<Held, Option<TaskId>>,
    claims: &BTreeMap<Held, BTreeSet<TaskId>>,
) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut violation = |def: &DefinitionId, task: TaskId, what: String| {
        broken.push(Violation { law: 22, task: Some((def.clone(), task)), what });
    };
    for ((def, key), tasks) in claims {
        for task in tasks {
            if holders.get(&(def.clone(), *key)) != Some(&Some(*task)) {
                violation(def, *task, format!("it does not hold its unique key {key}"));
            }
        }
    }
    for ((def, key), holder) in holders {
        let Some(task) = holder else { continue }; // of a newer version
        let claimed = claims.get(&(def.clone(), *key)).is_some_and(|tasks| tasks.contains(task));
        if !claimed {
            violation(def, *task, format!("unique key {key} was not released"));
        }
    }
    broken
}
