//! Publishing: a builder that is a future.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bellows_registry::backend::coalesce::Written;
use bellows_registry::backend::{BackendError, Class};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::id::{DefinitionId, IdError, TaskId};
use bellows_registry::record::{Envelope, HeldUntil, TaskRecord};
use bellows_registry::txn::{self, Holder, Published, Replaced};
use tokio::time::{sleep, timeout_at};

use crate::client::Bellows;
use crate::definition::{PayloadOf, PublishStrategy, TaskDefinition};
use crate::draft::{Desk, Draft, Encoded, OnConflict, Ready, task_options};
use crate::envelope::codec::About;
use crate::error::PublishError;
use crate::handle::TaskHandle;
use crate::refs::{RawTaskRef, TaskRef};

/// A task about to be published. Await it to publish.
///
/// # Guarantees
/// `Ok` means durable: the task is not lost while the registry keeps its data. A publish
/// whose answer is lost is sent again under the same task id, and is one task.
///
/// # Errors
/// See [`PublishError`]. Only [`PublishError::Unknown`] leaves the outcome open; it names
/// the task.
///
/// # Cancel safety
/// Dropping the future leaves the outcome open. To be able to publish the same task again,
/// choose its id beforehand with [`Publish::as_task`] or [`Publish::idempotency_key`].
#[must_use = "a task is published when this is awaited"]
pub struct Publish<'a, T: TaskDefinition> {
    client: &'a Bellows,
    draft: Draft<T>,
}

impl<T: TaskDefinition> std::fmt::Debug for Publish<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish").field("delay", &self.draft.chosen.delay).finish_non_exhaustive()
    }
}

/// What became of a publish that returned a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Publication {
    /// It made the task.
    Created,
    /// The very task was there already, by its id or its idempotency key, waiting, running
    /// or ended. After a lost answer it may have been made by this call all the same.
    Already,
    /// Another task holds the unique key; it is that task's handle.
    Existing,
    /// It took the place of a pending task, whose id it has.
    Replaced,
}

impl<'a, T: TaskDefinition<Trigger: PublishStrategy>> Publish<'a, T> {
    pub(crate) fn new(client: &'a Bellows, payload: PayloadOf<T>) -> Self {
        Self { client, draft: Draft::new(payload) }
    }

    task_options!();
}

impl<'a, T: TaskDefinition<Trigger: PublishStrategy>> IntoFuture for Publish<'a, T> {
    type Output = Result<TaskHandle<T>, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, draft } = self;
        Box::pin(async move { publish(client, draft.encode()?).await })
    }
}

/// Publishes a task of this kind.
pub(crate) async fn publish<T: TaskDefinition>(
    client: &Bellows,
    task: Encoded,
) -> Result<TaskHandle<T>, PublishError> {
    let shared = &client.shared;
    let invalid = |error: IdError| PublishError::Invalid(error.to_string());
    let definition = client.definition::<T>().map_err(invalid)?;
    let max_body = shared.options.codecs.raw_limit(shared.options.max_body);
    let desk = Desk { slot: shared.slot, max_body, now: clock::wall() };
    let ready = task.ready(definition, desk, || shared.entropy.task_id())?;
    let mut sending = Sending::new(client, &ready);
    let sent = sending.run().await;
    #[cfg(feature = "object-store")]
    sending.tidy(&sent).await;
    let (task, publication) = sent?;
    Ok(TaskHandle::published(client.clone(), TaskRef::from_raw(task), publication))
}

type Sent = (RawTaskRef, Publication);

/// One publish, sent until an answer says what became of it, or the time is over.
struct Sending<'a> {
    client: &'a Bellows,
    ready: &'a Ready,
    deadline: Instant,
    /// The pending task whose place it is to take.
    holder: Option<Holder>,
    /// The record as it is written, and under which id.
    sealed: Option<(TaskId, TaskRecord)>,
    /// Whether a request may have been carried out whose answer was lost.
    maybe_sent: bool,
}

impl<'a> Sending<'a> {
    fn new(client: &'a Bellows, ready: &'a Ready) -> Self {
        let deadline = clock::instant() + client.shared.options.publish_timeout.min(clock::FAR);
        Self { client, ready, deadline, holder: None, sealed: None, maybe_sent: false }
    }

    async fn run(&mut self) -> Result<Sent, PublishError> {
        self.seal_for(self.ready.task.id).await?;
        // Putting a large payload elsewhere takes its own time.
        self.deadline = clock::instant() + self.client.shared.options.publish_timeout.min(clock::FAR);
        let mut waits = Waits::spread_by(self.ready.task.id.to_string().as_bytes());
        loop {
            let last = match self.send().await {
                Ok(Some(sent)) => return sent,
                Ok(None) => continue, // somebody else was faster: look again
                Err(error) => error,
            };
            // An earlier try may have been taken all the same: then nothing is certain.
            if last.class() == Class::Invalid && !self.maybe_sent {
                return Err(PublishError::Invalid(last.to_string()));
            }
            self.maybe_sent |= last.class() != Class::NotApplied;
            let wait = waits.after_failure();
            if clock::instant() + wait >= self.deadline {
                return Err(self.given_up(last));
            }
            tracing::debug!(task = %self.ready.task.id, error = %last, "a publish is sent again");
            sleep(wait).await;
        }
    }

    /// Sends it once. `None`: the answer calls for another request.
    async fn send(&mut self) -> Result<Option<Result<Sent, PublishError>>, BackendError> {
        let (shared, task) = (&self.client.shared, &self.ready.task);
        let id = self.holder.as_ref().map_or(task.id, |holder| holder.task);
        let record = match self.seal_for(id).await {
            Ok(record) => record,
            Err(error) => return Ok(Some(Err(error))),
        };
        let row = match &self.holder {
            None => txn::publish(&shared.space, &task.definition, task.id, &record),
            Some(holder) => txn::replace(&shared.space, &task.definition, holder, &record),
        };
        let written = timeout_at(self.deadline, shared.writer().send(row)).await;
        let answer = match written.unwrap_or_else(|_| Err(BackendError::unknown("no answer in time")))? {
            Written::Answer(answer) => answer,
            Written::Deposed => return Err(BackendError::unknown("a publish has no fence to lose")),
        };
        let sent = |publication| Ok(Some(Ok((task.clone(), publication))));
        if let Some(holder) = self.holder {
            return match Replaced::of(&answer, &holder) {
                Replaced::Done => Ok(Some(Ok((self.task_of(&holder), Publication::Replaced)))),
                Replaced::Changed => {
                    self.holder = None;
                    Ok(None)
                }
                Replaced::Closed => Ok(Some(Err(self.closed().await))),
            };
        }
        match Published::of(&answer) {
            Published::Created => sent(Publication::Created),
            // By an earlier request of this call, whose answer was lost.
            Published::Already if self.ready.fresh => sent(Publication::Created),
            Published::Already => sent(Publication::Already),
            Published::Held(holder) => Ok(self.held(holder)),
            Published::Unreadable => Ok(Some(Err(PublishError::Invalid(
                "the unique key's holder was written by a newer version".to_owned(),
            )))),
            Published::Closed => Ok(Some(Err(self.closed().await))),
        }
    }

    /// The record as it is written under this id. A cipher binds a payload to its task, so
    /// that one which takes another's place is sealed anew.
    async fn seal_for(&mut self, id: TaskId) -> Result<TaskRecord, PublishError> {
        match &self.sealed {
            Some((sealed_for, record)) if *sealed_for == id => return Ok(record.clone()),
            #[cfg(feature = "object-store")]
            Some(_) => self.forget().await,
            _ => {}
        }
        let (options, plain) = (&self.client.shared.options, &self.ready.record);
        let about = About::payload(&self.ready.task.definition, id);
        let sealed = options.codecs.seal_payload(&about, plain.payload.clone(), options.max_body).await?;
        let mut record = plain.clone();
        record.options.envelope =
            Envelope { codecs: sealed.codecs, ..plain.options.envelope().clone() }.stored();
        record.payload = sealed.body;
        self.sealed = Some((id, record.clone()));
        Ok(record)
    }

    /// Deletes the object of a payload that was certainly not published.
    #[cfg(feature = "object-store")]
    async fn tidy(&self, sent: &Result<Sent, PublishError>) {
        let written = match sent {
            Ok((_, publication)) => !matches!(publication, Publication::Existing),
            Err(error) => matches!(error, PublishError::Unknown { .. }),
        };
        if !written {
            self.forget().await;
        }
    }

    #[cfg(feature = "object-store")]
    async fn forget(&self) {
        let Some((id, record)) = &self.sealed else { return };
        let about = About::payload(&self.ready.task.definition, *id);
        let codecs = &record.options.envelope().codecs;
        self.client.shared.options.codecs.forget(&about, codecs, &record.payload).await;
    }

    /// Another task holds the unique key.
    fn held(&mut self, holder: Holder) -> Option<Result<Sent, PublishError>> {
        if self.ready.record.options.unique.is_some_and(|unique| unique.until == HeldUntil::Begun) {
            self.holder = Some(holder);
            return None;
        }
        let task = self.task_of(&holder);
        Some(match self.ready.on_conflict {
            OnConflict::ReturnExisting => Ok((task, Publication::Existing)),
            OnConflict::Fail => Err(PublishError::Conflict { holder: task }),
        })
    }

    fn task_of(&self, holder: &Holder) -> RawTaskRef {
        RawTaskRef { definition: self.ready.task.definition.clone(), id: holder.task, slot: holder.slot }
    }

    fn given_up(&self, last: BackendError) -> PublishError {
        let after = self.client.shared.options.publish_timeout;
        if !self.maybe_sent {
            return PublishError::Unavailable { after, last };
        }
        let task = self.holder.as_ref().map(|holder| self.task_of(holder));
        PublishError::Unknown { task: task.unwrap_or_else(|| self.ready.task.clone()), after, last }
    }

    /// The definition takes nothing: because it is not there, or because it says so?
    async fn closed(&self) -> PublishError {
        let definition: DefinitionId = self.ready.task.definition.clone();
        let found = timeout_at(self.deadline, self.client.policy_revision(&definition)).await;
        match found.unwrap_or_else(|_| Err(BackendError::unknown("no answer in time"))) {
            Ok(revision) if revision > 0 => PublishError::NotAccepting(definition),
            Ok(_) => PublishError::NoSuchDefinition(definition),
            // It may not look.
            Err(error) if error.class() == Class::Invalid => PublishError::NoSuchDefinition(definition),
            // The publish was refused, so much is certain; why is not.
            Err(last) => {
                PublishError::Unavailable { after: self.client.shared.options.publish_timeout, last }
            }
        }
    }
}
