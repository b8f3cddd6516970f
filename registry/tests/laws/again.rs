//! What is sent once and comes twice: who got no answer sends again, and a network may
//! deliver late. The second time nothing is done.

use bellows_registry::backend::Op;
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::Key;
use bellows_registry::testkit::records;
use bellows_registry::txn::Move;

use crate::table::Table;

/// A move that was made.
#[derive(Clone)]
pub(crate) struct Done(Move);

/// More than these are forgotten.
const KNOWN: usize = 40;

impl Table {
    /// Makes a move that is to be made once.
    pub(crate) fn once(&mut self, row: &Move) -> bool {
        let taken = self.commit(row);
        if taken {
            self.done.push_back(Done(row.clone()));
        }
        if self.done.len() > KNOWN {
            self.done.pop_front();
        }
        taken
    }

    pub(crate) fn comes_again(&mut self) {
        let known = self.done.len() as u64;
        if known == 0 {
            return;
        }
        let Done(row) = self.done[self.below(known) as usize].clone();
        if self.may_be_made_again(&row) {
            return;
        }
        assert!(!self.commit(&row), "it came twice and was made twice: {row:?}");
        self.seen.note("came twice");
    }

    /// An assignment that stands is written again as it is, and of a task that was removed
    /// with its terminal record nobody knows that it was.
    fn may_be_made_again(&self, row: &Move) -> bool {
        row.then.iter().any(|op| {
            let Op::Put { key, .. } = op else { return false };
            match self.space.parse(key) {
                Ok(key @ Key::Assignment(..)) => self.has(&key),
                Ok(Key::Task(def, task)) => !self.is_known(def, task),
                _ => false,
            }
        })
    }

    fn is_known(&self, def: DefinitionId, task: TaskId) -> bool {
        let outcome = Key::Outcome(def.clone(), records::SLOT, task);
        [Key::Task(def.clone(), task), Key::Parked(def, task), outcome].iter().any(|key| self.has(key))
    }
}
