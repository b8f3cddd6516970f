//! The moves that end a task for good, by its worker.

use super::{AttemptRef, Move, Settled, Write};
use crate::backend::{Is, OpAnswer, TxnAnswer};
use crate::id::{AttemptId, DefinitionId, TaskId};
use crate::key::{Key, Keyspace};
use crate::record::{OutcomeRecord, ParkedRecord, Record, TaskRecord, Ties, UniqueKey};

/// Lets go of a unique key: part of every move that ends its task.
pub(super) fn release<'a>(write: Write<'a>, def: &DefinitionId, key: Option<UniqueKey>) -> Write<'a> {
    match key {
        Some(key) => write.delete(&Key::Unique(def.clone(), key.bytes())),
        None => write,
    }
}

/// Deletes an assigned task's own keys; what it is tied to stays.
fn delete_task<'a>(write: Write<'a>, at: &AttemptRef) -> Write<'a> {
    write
        .delete(&at.key())
        .delete(&Key::Task(at.definition.clone(), at.task))
        .delete(&Key::Tally(at.definition.clone(), at.task))
        .delete(&Key::Checkpoint(at.definition.clone(), at.task))
}

/// Ends a task for good: outcome and removal together, or nothing (law 3). If the
/// fence does not hold, the terminal record is read, where a retry of an unanswered
/// settle finds its own attempt id: see [`Settled::of`].
pub fn settle(space: &Keyspace, at: &AttemptRef, ties: Ties, record: &OutcomeRecord) -> Move {
    settle_and_publish(space, at, ties, record, &[])
}

/// A task that a settlement publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// Its definition.
    pub definition: DefinitionId,
    /// Its id, which nobody else has made.
    pub task: TaskId,
    /// The task.
    pub record: TaskRecord,
}

/// As [`settle`], and publishes tasks in the same transaction: all of it or nothing. It
/// is refused if the definition of one of them takes no tasks: see [`closed_target`].
pub fn settle_and_publish(
    space: &Keyspace,
    at: &AttemptRef,
    ties: Ties,
    record: &OutcomeRecord,
    follow_ups: &[FollowUp],
) -> Move {
    let outcome = Key::Outcome(at.definition.clone(), ties.slot, at.task);
    let write = delete_task(Write::new(space).when(&at.key(), Is::Present), at);
    let write = release(write, &at.definition, ties.unique).put(&outcome, record.encode()).else_get(&outcome);
    publish_with(write, follow_ups).done()
}

/// Publishes follow-up tasks with a settlement. Their ids come from the attempt, and its
/// key is the fence: no other request that holds has made them.
pub(super) fn publish_with<'a>(mut write: Write<'a>, follow_ups: &[FollowUp]) -> Write<'a> {
    for target in targets(follow_ups) {
        let open = Key::Open(target.clone());
        write = write.when(&open, Is::Present).else_get(&open);
    }
    for next in follow_ups {
        write = write.put(&Key::Task(next.definition.clone(), next.task), next.record.encode());
    }
    write
}

/// The definitions of follow-up tasks, each once, in the order of their first.
fn targets(follow_ups: &[FollowUp]) -> Vec<&DefinitionId> {
    let mut targets: Vec<&DefinitionId> = Vec::new();
    for next in follow_ups {
        if !targets.contains(&&next.definition) {
            targets.push(&next.definition);
        }
    }
    targets
}

/// The definition that takes no tasks, if that is why [`settle_and_publish`] was refused.
pub fn closed_target<'a>(
    answer: &TxnAnswer,
    attempt: AttemptId,
    follow_ups: &'a [FollowUp],
) -> Option<&'a DefinitionId> {
    if Settled::of(answer, attempt) != Settled::Fenced {
        return None;
    }
    let opens = answer.answers.iter().skip(1); // the terminal record or the tally comes first
    let closed = |step: &OpAnswer| matches!(step, OpAnswer::Get(found) if found.is_empty());
    targets(follow_ups).into_iter().zip(opens).find(|(_, step)| closed(step)).map(|(target, _)| target)
}

/// Gives a task up: it is kept with its payload, and keeps its unique key, until a person
/// replays it.
pub fn park(space: &Keyspace, at: &AttemptRef, parked: &ParkedRecord, record: &OutcomeRecord) -> Move {
    park_with(Write::new(space).when(&at.key(), Is::Present), at, parked, record)
}

pub(super) fn park_with(
    write: Write<'_>,
    at: &AttemptRef,
    parked: &ParkedRecord,
    record: &OutcomeRecord,
) -> Move {
    let outcome = Key::Outcome(at.definition.clone(), parked.task.slot, at.task);
    delete_task(write, at)
        .put(&Key::Parked(at.definition.clone(), at.task), parked.encode())
        .put(&outcome, record.encode())
        .else_get(&outcome)
        .done()
}
