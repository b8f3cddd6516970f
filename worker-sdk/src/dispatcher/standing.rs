//! What stands under the worker's own prefix, and with it what runs: pure.
//!
//! An attempt is begun once, when its assignment is first seen, and remembered until the
//! assignment is gone: a put or a list that comes late does not begin it again, though it
//! may have ended meanwhile.

use std::collections::{HashMap, HashSet};

use bellows_registry::backend::{Change, Entry};
use bellows_registry::id::{AttemptId, TaskId};
use bellows_registry::key::{Key, Keyspace};
use bellows_registry::mirror::MirrorEvent;
use bellows_registry::record::{AssignmentRecord, Record};
use bellows_registry::txn::AttemptRef;
use tokio::sync::watch;

use super::attempt::Stop;

/// The assignments that stand, each with the way to stop its attempt.
pub(super) struct Standing {
    space: Keyspace,
    stops: HashMap<(TaskId, AttemptId), watch::Sender<Stop>>,
}

/// An attempt to begin.
pub(super) struct Begin {
    pub(super) at: AttemptRef,
    pub(super) record: AssignmentRecord,
    pub(super) stop: watch::Receiver<Stop>,
}

impl Standing {
    pub(super) fn new(space: Keyspace) -> Self {
        Self { space, stops: HashMap::new() }
    }

    /// Takes in what the signal channel tells; answers what is to be begun.
    pub(super) fn told(&mut self, event: MirrorEvent) -> Vec<Begin> {
        match event {
            MirrorEvent::Listed { entries, .. } => {
                let listed: HashSet<_> = entries.iter().filter_map(|entry| self.id(&entry.key)).collect();
                // What is not in the list was taken away while nobody looked.
                self.stops.retain(|id, stop| {
                    let stands = listed.contains(id);
                    if !stands {
                        stop.send_replace(Stop::Withdrawn);
                    }
                    stands
                });
                entries.iter().filter_map(|entry| self.put(entry)).collect()
            }
            MirrorEvent::Changed(changes) => {
                let changed = changes.changes.iter();
                changed.filter_map(|change| self.changed(change)).collect()
            }
            MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => Vec::new(),
        }
    }

    fn changed(&mut self, change: &Change) -> Option<Begin> {
        match change {
            Change::Put(entry) => self.put(entry),
            Change::Delete { key, .. } => {
                let stop = self.stops.remove(&self.id(key)?)?;
                // The attempt's own settle deletes the key too: then nobody listens.
                stop.send_replace(Stop::Withdrawn);
                None
            }
        }
    }

    /// An assignment, unless it is known: then it may say that it is to be cancelled.
    pub(super) fn put(&mut self, entry: &Entry) -> Option<Begin> {
        let Ok(Key::Assignment(definition, worker, task, attempt)) = self.space.parse(&entry.key) else {
            return None;
        };
        let record = match AssignmentRecord::decode(&entry.value) {
            Ok(record) => record,
            Err(error) => {
                // Left alone: the assigner takes it back in time.
                tracing::error!(%task, %attempt, %error, "an assignment cannot be read");
                return None;
            }
        };
        let told = if record.cancel { Stop::Cancelled } else { Stop::No };
        if let Some(stop) = self.stops.get(&(task, attempt)) {
            // Written again: with the flag, or told late.
            stop.send_if_modified(|now| {
                record.cancel && *now == Stop::No && {
                    *now = told;
                    true
                }
            });
            return None;
        }
        let (stops, stop) = watch::channel(told);
        self.stops.insert((task, attempt), stops);
        Some(Begin { at: AttemptRef { definition, worker, task, attempt }, record, stop })
    }

    /// Stops every attempt that runs.
    pub(super) fn stop_all(&self, why: Stop) {
        for stop in self.stops.values() {
            stop.send_replace(why);
        }
    }

    fn id(&self, path: &[u8]) -> Option<(TaskId, AttemptId)> {
        match self.space.parse(path) {
            Ok(Key::Assignment(_, _, task, attempt)) => Some((task, attempt)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::backend::Changes;
    use bellows_registry::clock::WallMillis;
    use bellows_registry::id::{DefinitionId, ResultSlot, WorkerId};
    use bellows_registry::record::{Isolation, Tally};
    use bellows_registry::spec::{Backoff, Retention, Span};
    use bytes::Bytes;

    use super::*;

    fn entry(attempt: u64) -> Entry {
        let key = Key::Assignment(
            DefinitionId::new("default", "act").unwrap(),
            WorkerId::for_session("pod", 1).unwrap(),
            TaskId::from_bits(1),
            AttemptId::from_bits(attempt),
        );
        let record = AssignmentRecord {
            number: 1,
            max_attempts: 3,
            timeout: Span::secs(30),
            backoff: Backoff::default(),
            retention: Retention::default(),
            slot: ResultSlot::from_bits(1),
            published: WallMillis(0),
            tally: Tally::default(),
            isolation: Isolation::Shared,
            cancel: false,
            has_checkpoint: false,
            headers: std::collections::BTreeMap::new(),
            options: bellows_registry::record::TaskOptions::default(),
            inline: true,
            payload: Bytes::new(),
        };
        let key = Keyspace::default().path(&key);
        Entry { key, value: record.encode(), create_revision: 1, mod_revision: 1, lease: None }
    }

    fn changed(change: Change) -> MirrorEvent {
        MirrorEvent::Changed(Changes { changes: vec![change], complete: 1 })
    }

    fn listed(entries: Vec<Entry>) -> MirrorEvent {
        MirrorEvent::Listed { revision: 1, entries }
    }

    #[test]
    fn an_attempt_that_has_ended_is_not_begun_again_while_its_assignment_stands() {
        let mut standing = Standing::new(Keyspace::default());
        let begun = standing.told(changed(Change::Put(entry(7))));
        assert_eq!(begun.len(), 1);
        drop(begun); // it ends
        assert!(standing.told(changed(Change::Put(entry(7)))).is_empty(), "put again, told late");
        assert!(standing.told(listed(vec![entry(7)])).is_empty(), "listed again");
        assert_eq!(standing.told(listed(vec![entry(8)])).len(), 1, "another attempt is another matter");
        assert_eq!(standing.stops.len(), 1, "and what is gone is forgotten");
    }

    #[test]
    fn an_assignment_written_again_with_the_flag_cancels_its_attempt_once() {
        let mut standing = Standing::new(Keyspace::default());
        let begun = standing.told(changed(Change::Put(entry(7))));
        let flagged = |attempt| flagged(entry(attempt));
        assert!(standing.told(changed(Change::Put(flagged(7)))).is_empty(), "it is the same attempt");
        assert_eq!(*begun[0].stop.borrow(), Stop::Cancelled);
        standing.stop_all(Stop::Lost);
        standing.told(listed(vec![flagged(7)]));
        assert_eq!(*begun[0].stop.borrow(), Stop::Lost, "what came later stands");
        let begun = standing.told(listed(vec![flagged(7), flagged(8)]));
        assert_eq!(*begun[0].stop.borrow(), Stop::Cancelled, "seen first with the flag");
    }

    fn flagged(entry: Entry) -> Entry {
        let record = AssignmentRecord::decode(&entry.value).unwrap();
        let value = AssignmentRecord { cancel: true, ..record }.encode();
        Entry { value, ..entry }
    }

    #[test]
    fn an_attempt_whose_assignment_is_gone_is_told_to_stop() {
        let mut standing = Standing::new(Keyspace::default());
        let mut begun = standing.told(listed(vec![entry(7), entry(8)]));
        assert_eq!(begun.len(), 2);
        standing.told(changed(Change::Delete { key: entry(7).key, revision: 2 }));
        standing.told(listed(Vec::new()));
        for begin in &mut begun {
            assert_eq!(*begin.stop.borrow_and_update(), Stop::Withdrawn);
        }
        assert!(standing.stops.is_empty());
    }
}
