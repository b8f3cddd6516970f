//! What people and tools ask for: tasks cancelled, parked ones replayed or purged.

use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::Key;
use bellows_registry::plan::Step;
use bellows_registry::record::{Ask, ParkedRecord, Record, RequestRecord, TaskRecord};
use bellows_registry::txn;

use crate::table::Table;

impl Table {
    /// Somebody asks something of a task, of one that has ended, or of one that there is not.
    pub(crate) fn ask(&mut self) {
        let where_it_is = self.below(4);
        let about = self.keys(|key| match key {
            Key::Assignment(..) => where_it_is == 0,
            Key::Task(..) => where_it_is == 1,
            Key::Parked(..) => where_it_is == 2,
            Key::Outcome(..) => where_it_is == 3 && self.below(8) == 0,
            _ => false,
        });
        let Some(
            Key::Assignment(def, _, task, _)
            | Key::Task(def, task)
            | Key::Parked(def, task)
            | Key::Outcome(def, _, task),
        ) = self.pick(&about)
        else {
            return;
        };
        let asks = match where_it_is {
            0 | 1 => [Ask::Cancel; 3],
            2 => [Ask::Replay, Ask::Replay, Ask::Purge],
            _ => [Ask::Cancel, Ask::Replay, Ask::Purge],
        };
        let record = RequestRecord { ask: self.pick(&asks).unwrap(), asked: self.now.wall };
        if self.below(8) == 0 {
            self.write(&Key::Request(def, self.dice.task_id()), record.encode());
        } else {
            self.ask_properly(&def, task, &record);
        }
    }

    fn ask_properly(&mut self, def: &DefinitionId, task: TaskId, record: &RequestRecord) {
        let occupied = self.has(&Key::Request(def.clone(), task));
        let there = match record.ask {
            Ask::Cancel => self.has(&Key::Task(def.clone(), task)),
            Ask::Replay | Ask::Purge => self.has(&Key::Parked(def.clone(), task)),
        };
        let taken = self.commit(&txn::ask(&self.space, def, task, record));
        assert_eq!(taken, there && !occupied, "there is something to act on, and one request at a time");
        self.seen.note(match (taken, occupied) {
            (true, _) => "asked",
            (false, true) => "asked beside another",
            (false, false) => "asked of what has ended",
        });
    }

    fn asked(&self, def: &DefinitionId, task: TaskId) -> Option<Ask> {
        let request = self.get::<RequestRecord>(&Key::Request(def.clone(), task));
        request.map(|request| request.ask)
    }

    /// Whether the registry, and not only a view of it, says that it is time for a step.
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
