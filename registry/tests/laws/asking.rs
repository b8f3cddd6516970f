//! What people and tools ask for: tasks cancelled, parked ones replayed or purged.

use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::Key;
use bellows_registry::plan::Step;
use bellows_registry::record::{Ask, ParkedRecord, Record, RequestRecord, TaskRecord};
use bellows_registry::txn;

use crate::table::Table;

impl Table {
    /// Somebody asks something of a task, or of one that there is not.
    pub(crate) fn ask(&mut self) {
        let (ask, about) = match self.below(3) {
            0 => (Ask::Cancel, self.keys(|key| matches!(key, Key::Assignment(..)))),
            1 => (Ask::Cancel, self.keys(|key| matches!(key, Key::Task(..)))),
            _ => {
                let ask = self.pick(&[Ask::Replay, Ask::Replay, Ask::Purge]).unwrap();
                (ask, self.keys(|key| matches!(key, Key::Parked(..))))
            }
        };
        let Some(Key::Assignment(def, _, task, _) | Key::Task(def, task) | Key::Parked(def, task)) =
            self.pick(&about)
        else {
            return;
        };
        let record = RequestRecord { ask, asked: self.now.wall };
        if self.below(8) == 0 {
            self.write(&Key::Request(def, self.dice.task_id()), record.encode());
            return;
        }
        let occupied = self.has(&Key::Request(def.clone(), task));
        let taken = self.commit(&txn::ask(&self.space, &def, task, &record));
        assert_eq!(taken, !occupied, "one request a task at a time");
        self.seen.note(if taken { "asked" } else { "asked beside another" });
    }

    fn asked(&self, def: &DefinitionId, task: TaskId) -> Option<Ask> {
        let request = self.get::<RequestRecord>(&Key::Request(def.clone(), task));
        request.map(|request| request.ask)
    }

    /// Whether the registry, and not only a view of it, says that a step about a task that
    /// somebody asks something of, or that waited too long, is right.
    pub(crate) fn is_due(&self, def: &DefinitionId, step: &Step) -> bool {
        let task = step.task();
        let (waiting, parked) = (Key::Task(def.clone(), task), Key::Parked(def.clone(), task));
        let asked = self.asked(def, task);
        match step {
            Step::Cancel { .. } | Step::FlagCancel { .. } => asked == Some(Ask::Cancel),
            Step::Replay { .. } => asked == Some(Ask::Replay),
            Step::Purge { .. } => {
                let expired = |parked: ParkedRecord| parked.expires() <= self.now.wall;
                asked == Some(Ask::Purge) || self.get(&parked).is_some_and(expired)
            }
            Step::Expire { .. } => {
                let ttl = self.get(&waiting).and_then(|task: TaskRecord| task.options.ttl);
                ttl.is_some_and(|ttl| ttl.due_by_writer <= self.now.wall)
            }
            Step::DropRequest { .. } => match asked {
                Some(Ask::Cancel) => !self.has(&waiting),
                Some(Ask::Replay | Ask::Purge) => !self.has(&parked),
                None => false,
            },
            Step::Assign { .. } | Step::Lost { .. } | Step::LostForGood { .. } | Step::TakeBack { .. } => {
                true
            }
        }
    }
}
