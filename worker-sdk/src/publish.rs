//! Publishing: a builder that is a future.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bellows_registry::backend::coalesce::Written;
use bellows_registry::backend::{BackendError, Class};
use bellows_registry::backoff::Waits;
use bellows_registry::clock;
use bellows_registry::id::{DefinitionId, IdError, TaskId};
use bellows_registry::record::{Delay, TaskRecord, limits};
use bellows_registry::txn::{self, Published};
use bytes::Bytes;
use tokio::time::{sleep, timeout_at};

use crate::client::Bellows;
use crate::definition::{PayloadOf, PublishStrategy, TaskDefinition};
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
/// choose its id beforehand with [`Publish::as_task`].
#[must_use = "a task is published when this is awaited"]
pub struct Publish<'a, T> {
    client: &'a Bellows,
    payload: Result<Bytes, serde_json::Error>,
    delay: Duration,
    headers: BTreeMap<String, String>,
    id: Option<TaskId>,
    again: Option<RawTaskRef>,
    kind: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Publish<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish").field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl<'a, T: TaskDefinition<Trigger: PublishStrategy>> Publish<'a, T> {
    pub(crate) fn new(client: &'a Bellows, payload: &PayloadOf<T>) -> Self {
        let payload = serde_json::to_vec(payload).map(Bytes::from);
        Self {
            client,
            payload,
            delay: Duration::ZERO,
            headers: BTreeMap::new(),
            id: None,
            again: None,
            kind: PhantomData,
        }
    }

    /// The task becomes due only after this time.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Attaches a header that the handler sees. At most 32, and 4 KiB together.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Publishes under this id, chosen by you. Publishing again with the same id on the
    /// same client is the same task; elsewhere, use [`Publish::again`].
    pub fn as_task(mut self, id: TaskId) -> Self {
        self.id = Some(id);
        self
    }

    /// Publishes a task once more whose publish ended in
    /// [`PublishError::Unknown`], here or in another process, now or after a restart. It
    /// is the same task: nothing happens if it is published already or has ended, as long
    /// as its record is kept.
    pub fn again(mut self, task: &RawTaskRef) -> Self {
        self.again = Some(task.clone());
        self
    }

    async fn publish(self) -> Result<TaskHandle<T>, PublishError> {
        let client = self.client;
        let definition = client.definition::<T>().map_err(|error: IdError| invalid(&error))?;
        let raw = match &self.again {
            Some(again) if again.definition != definition => {
                return Err(PublishError::Invalid(format!("task {again} is not of {definition}")));
            }
            Some(again) => again.clone(),
            None => {
                let id = self.id.unwrap_or_else(|| client.shared.entropy.task_id());
                RawTaskRef { definition, id, slot: client.shared.slot }
            }
        };
        if raw.id.is_singleton() {
            return Err(PublishError::Invalid("a published task cannot have the singleton's id".to_owned()));
        }
        let record = TaskRecord { slot: raw.slot, ..self.record()? };
        send(client, &raw, &record).await?;
        Ok(TaskHandle::new(client.clone(), TaskRef::from_raw(raw)))
    }

    /// Checks all that can be checked before a byte leaves.
    fn record(self) -> Result<TaskRecord, PublishError> {
        let payload = self.payload.map_err(PublishError::Encode)?;
        let too_large = |what, bytes, limit| Err(PublishError::TooLarge { what, bytes, limit });
        let max_body = self.client.shared.options.max_body;
        if payload.len() > max_body {
            return too_large("the payload", payload.len(), max_body);
        }
        if self.headers.len() > limits::HEADERS {
            return Err(PublishError::Invalid(format!(
                "{} headers are attached; the limit is {}",
                self.headers.len(),
                limits::HEADERS
            )));
        }
        let header_bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if header_bytes > limits::HEADER_BYTES {
            return too_large("the headers together", header_bytes, limits::HEADER_BYTES);
        }
        let mut record = self.client.task_record(payload);
        record.headers = self.headers;
        if !self.delay.is_zero() {
            if self.delay > MAX_DELAY {
                return Err(PublishError::Invalid(format!(
                    "delay is {:?}; the limit is {MAX_DELAY:?}",
                    self.delay
                )));
            }
            record.delay = Some(Delay::from_now(self.delay, clock::wall()));
        }
        Ok(record)
    }
}

/// Longer is no delay but a mistake.
const MAX_DELAY: Duration = Duration::from_secs(366 * 24 * 3600);

impl<'a, T: TaskDefinition<Trigger: PublishStrategy>> IntoFuture for Publish<'a, T> {
    type Output = Result<TaskHandle<T>, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

fn invalid(error: &IdError) -> PublishError {
    PublishError::Invalid(error.to_string())
}

/// Sends the same publish until an answer says what became of it, or the time is over.
async fn send(client: &Bellows, task: &RawTaskRef, record: &TaskRecord) -> Result<(), PublishError> {
    let shared = &client.shared;
    let after = shared.options.publish_timeout;
    let deadline = clock::instant() + after;
    let mut waits = Waits::spread_by(task.id.to_string().as_bytes());
    let mut maybe_sent = false;
    loop {
        let row = txn::publish(&shared.space, &task.definition, task.id, record);
        let answer = timeout_at(deadline, shared.writer().send(row)).await;
        let last = match answer {
            Ok(Ok(Written::Answer(answer))) => match Published::of(&answer) {
                Published::Created | Published::Already => return Ok(()),
                Published::Closed => return Err(closed(client, &task.definition).await),
            },
            Ok(Ok(Written::Deposed)) => BackendError::unknown("a publish has no fence to lose"),
            // An earlier try may have been taken all the same: then nothing is certain.
            Ok(Err(error)) if error.class() == Class::Invalid && !maybe_sent => {
                return Err(PublishError::Invalid(error.to_string()));
            }
            Ok(Err(error)) => error,
            Err(_) => BackendError::unknown("no answer in time"),
        };
        maybe_sent |= last.class() != Class::NotApplied;
        let wait = waits.after_failure();
        if clock::instant() + wait >= deadline {
            return Err(if maybe_sent {
                PublishError::Unknown { task: task.clone(), after, last }
            } else {
                PublishError::Unavailable { after, last }
            });
        }
        tracing::debug!(task = %task.id, error = %last, "a publish is sent again");
        sleep(wait).await;
    }
}

/// The definition takes nothing: because it is not there, or because it says so?
async fn closed(client: &Bellows, definition: &DefinitionId) -> PublishError {
    match client.policy_revision(definition).await {
        Ok(revision) if revision > 0 => PublishError::NotAccepting(definition.clone()),
        _ => PublishError::NoSuchDefinition(definition.clone()),
    }
}
