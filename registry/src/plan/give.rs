//! Giving out the due tasks of one definition, one step at a time.

use std::iter::Peekable;

use tokio::time::Instant;

use super::fill::Fill;
use super::versions::Avoided;
use super::{Assumed, Step, Waiting};
use crate::id::{DefinitionId, TaskId};
use crate::record::{Isolation, PolicyState};
use crate::spec::Mode;
use crate::txn::AsSeen;
use crate::view::{Definition, Task};

type Due<'a> = Peekable<Box<dyn Iterator<Item = (TaskId, &'a Task)> + 'a>>;

/// The tasks of one definition that a plan may give out.
pub(super) struct Give<'a> {
    pub(super) id: &'a DefinitionId,
    pub(super) definition: &'a Definition,
    due: Due<'a>,
    fill: Fill<'a>,
    waiting: Option<Waiting>,
    now: Instant,
    wake: Option<Instant>,
}

impl<'a> Give<'a> {
    pub(super) fn of(
        id: &'a DefinitionId,
        definition: &'a Definition,
        assumed: &'a Assumed,
        now: Instant,
    ) -> Self {
        let due = definition.due(now).filter(move |(task_id, task)| {
            // What somebody asks to cancel is not begun, nor what has waited too long.
            let leaving = definition.request(*task_id).is_some() || task.has_expired(now);
            !leaving && !assumed.is_busy(id, *task_id)
        });
        let mut due = (Box::new(due) as Box<dyn Iterator<Item = _> + 'a>).peekable();
        let waiting = due.peek().and_then(|_| stands_still(definition));
        Self { id, definition, due, fill: Fill::of(id, definition, assumed), waiting, now, wake: None }
    }

    /// The next step, until there is none.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.waiting.is_some() {
            return None;
        }
        for (task_id, task) in self.due.by_ref() {
            let isolation = if task.is_suspect() { Isolation::Alone } else { Isolation::Shared };
            let avoided = Avoided::of(task, self.now);
            if let Some((worker, revision)) = self.fill.take(isolation, avoided) {
                let seen =
                    AsSeen { task: task.task_revision(), tally: task.tally_revision(), worker: revision };
                return Some(Step::Assign { task: task_id, worker, isolation, seen });
            }
            self.waiting = self.fill.exhausted();
            if self.waiting.is_some() {
                return None;
            }
            // This one needs an idle worker, or one of another version; the next may not.
            self.wake = [self.wake, avoided.until()].into_iter().flatten().min();
        }
        self.waiting = self.fill.refused();
        None
    }

    /// When to look again at tasks that were passed over.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Why tasks remain, once there is no next step.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }
}

/// Why nothing of the definition is given out at all, if so.
fn stands_still(definition: &Definition) -> Option<Waiting> {
    let Some(record) = definition.policy() else { return Some(Waiting::NoPolicy) };
    match record.state {
        // Retained tasks wait for the definition to come back; purged ones are on their way out.
        PolicyState::Retained | PolicyState::Purging => Some(Waiting::Deleted),
        PolicyState::Active | PolicyState::Draining => {
            (record.policy.mode == Mode::Hold).then_some(Waiting::OnHold)
        }
    }
}
