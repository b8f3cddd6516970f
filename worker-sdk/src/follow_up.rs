//! Follow-up tasks: what a success publishes in the transaction that records it.

use bellows_registry::clock::WallMillis;
use bellows_registry::id::{AttemptId, DefinitionId, IdError, ResultSlot, TaskId};
use bellows_registry::record::{follow_up, limits};
use bellows_registry::txn::{AttemptRef, FollowUp};

use crate::definition::{PayloadOf, PublishStrategy, TaskDefinition};
use crate::draft::{Claim, Desk, Encoded, NewTask, header_bytes};
use crate::envelope::codec::About;
use crate::envelope::codecs::Codecs;
use crate::error::PublishError;
use crate::outcome::TaskSuccess;
use crate::refs::{RawTaskRef, TaskRef};
use crate::worker::TaskContext;

/// A follow-up task as its handler asked for it.
#[derive(Debug)]
pub(crate) struct Asked {
    name: &'static str,
    task: Result<Encoded, PublishError>,
}

impl<C> TaskSuccess<C> {
    /// Publishes a task when this success is recorded: in the same transaction, so that
    /// both happen or neither does. At most 16, whose payloads and headers have 256 KiB
    /// together; more, or one that is too large, parks the task as a result that is too
    /// large would.
    ///
    /// The definition must take tasks: if it does not, or does not exist, the attempt
    /// fails instead, with an error that says so, and is tried again. Its work is then
    /// done again too, as after any failed attempt.
    pub fn and_publish<T: TaskDefinition<Trigger: PublishStrategy>>(self, payload: PayloadOf<T>) -> Self {
        self.and_publish_task(NewTask::<T>::new(payload))
    }

    /// As [`TaskSuccess::and_publish`], for a task with a delay, headers, a priority or whatever
    /// else. One with an id of its own, an idempotency key or a unique key is refused, and parks
    /// the task: whether it is to be published must not depend on others.
    pub fn and_publish_task<T: TaskDefinition<Trigger: PublishStrategy>>(mut self, task: NewTask<T>) -> Self {
        self.follow_ups.push(Asked { name: T::NAME, task: task.draft.encode() });
        self
    }
}

impl TaskContext {
    /// The reference of a follow-up task before it is published: the one at `place`, from
    /// 0, of those that this attempt's success carries. Return it in the result, and
    /// whoever gets that can await the follow-up too. It means nothing if the attempt
    /// carries no such task, or does not succeed.
    ///
    /// # Errors
    /// If the name of `T` is not allowed.
    pub fn follow_up<T: TaskDefinition>(&self, place: usize) -> Result<TaskRef<T>, IdError> {
        let definition = DefinitionId::new(self.definition.namespace.as_str(), T::NAME)?;
        let id = follow_up(self.task, self.attempt, place);
        Ok(TaskRef::from_raw(RawTaskRef { definition, id, slot: self.slot }))
    }
}

/// Seals the payloads of follow-up tasks, each for the task that it will be. None goes by
/// reference: whether they are published is not known yet.
pub(crate) async fn seal(
    asked: &mut [Asked],
    codecs: &Codecs,
    by: (&DefinitionId, TaskId, AttemptId),
    max_body: usize,
) {
    let (parent, task, attempt) = by;
    for (index, Asked { name, task: asked }) in asked.iter_mut().enumerate() {
        let Ok(encoded) = asked else { continue };
        // A name that is not allowed is refused with the others' reasons, later.
        let Ok(definition) = DefinitionId::new(parent.namespace.as_str(), name) else { continue };
        let about = About::payload(&definition, follow_up(task, attempt, index));
        match codecs.seal_in_place(&about, encoded.payload.clone(), max_body).await {
            Ok(sealed) => (encoded.payload, encoded.codecs) = (sealed.body, sealed.codecs),
            Err(error) => *asked = Err(error.into()),
        }
    }
}

/// The tasks to publish, or the one sentence why they cannot be.
pub(crate) fn prepare(
    at: &AttemptRef,
    slot: ResultSlot,
    now: WallMillis,
    max_body: usize,
    asked: Vec<Asked>,
) -> Result<Vec<FollowUp>, String> {
    if asked.len() > limits::FOLLOW_UPS {
        return Err(format!("{} follow-up tasks; the limit is {}", asked.len(), limits::FOLLOW_UPS));
    }
    let desk = Desk { slot, max_body, now };
    let mut bytes = 0;
    let mut all = Vec::with_capacity(asked.len());
    for (index, Asked { name, task }) in asked.into_iter().enumerate() {
        let refused =
            |why: String| format!("follow-up task {} ({name}) cannot be published: {why}", index + 1);
        let task = task.map_err(|error| refused(error.to_string()))?;
        if !matches!(task.chosen.claim, Claim::None)
            || task.chosen.id.is_some()
            || task.chosen.again.is_some()
        {
            return Err(refused("it has a key or an id of its own".to_owned()));
        }
        let definition = DefinitionId::new(at.definition.namespace.as_str(), name)
            .map_err(|error| refused(error.to_string()))?;
        let ready = task
            .ready(definition, desk, || follow_up(at.task, at.attempt, index))
            .map_err(|error| refused(error.to_string()))?;
        bytes += ready.record.payload.len() + header_bytes(&ready.record.headers);
        all.push(FollowUp { definition: ready.task.definition, task: ready.task.id, record: ready.record });
    }
    if bytes > limits::FOLLOW_UP_BYTES {
        let limit = limits::FOLLOW_UP_BYTES;
        return Err(format!("the follow-up tasks together have {bytes} bytes; the limit is {limit}"));
    }
    Ok(all)
}
