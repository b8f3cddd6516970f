//! A task before it is published: its payload and what was chosen for it.
//!
//! The options are written once, for [`Publish`](crate::Publish) and [`NewTask`]. All of
//! them are checked before a byte leaves; nothing here sends.

mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bellows_registry::clock::WallMillis;
use bellows_registry::id::{DefinitionId, ResultSlot, TaskId};
use bellows_registry::record::{
    Applied, Delay, Envelope, HeldUntil, TaskOptions, TaskRecord, Unique, UniqueKey, idempotent, limits,
};
use bytes::Bytes;
use serde::Serialize;

use crate::definition::{PayloadOf, PublishStrategy, TaskDefinition};
use crate::envelope::trace::{self, TraceParent};
use crate::envelope::{content, headers};
use crate::error::PublishError;
use crate::refs::RawTaskRef;
use crate::turn::Turn;

pub(crate) use options::task_options;

/// What a publish does whose unique key another task holds.
///
/// Nothing is written then. Only if an earlier request of the same call went unanswered may
/// that one be carried out late, once the key is free: it is then a task of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// It answers the handle of the task that holds the key.
    #[default]
    ReturnExisting,
    /// It fails with [`PublishError::Conflict`].
    Fail,
}

/// A key as its user gave it, as JSON.
type Key = Result<Vec<u8>, serde_json::Error>;

/// The one way in which a task may refer to others of its kind.
#[derive(Debug, Default)]
pub(crate) enum Claim {
    #[default]
    None,
    /// The key makes the id: the same task for ever.
    Idempotent(Key),
    /// The only one until it has ended.
    Unique(Key),
    /// The only one until it has begun; a later one takes its place.
    Pending(Key),
    /// More than one of them was asked for.
    Mixed,
}

/// A task's payload and options.
pub(crate) struct Draft<T: TaskDefinition> {
    pub(crate) payload: PayloadOf<T>,
    pub(crate) chosen: Chosen,
}

/// The options of a task.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) delay: Duration,
    pub(crate) ttl: Option<Duration>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    pub(crate) id: Option<TaskId>,
    pub(crate) again: Option<RawTaskRef>,
    pub(crate) claim: Claim,
    pub(crate) on_conflict: OnConflict,
    pub(crate) turn: Turn,
}

/// A task whose payload is encoded.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) payload: Bytes,
    /// What was done to it already.
    pub(crate) codecs: Vec<Applied>,
    /// The version of its shape.
    pub(crate) version: u32,
    /// The names that its definition had before.
    pub(crate) aliases: &'static [&'static str],
    /// The attempt whose handler publishes it, if one does.
    pub(crate) published_by: Option<TraceParent>,
    pub(crate) chosen: Chosen,
}

/// A task that can be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) task: RawTaskRef,
    pub(crate) record: TaskRecord,
    pub(crate) on_conflict: OnConflict,
    /// Whether the id was made for this publish: then nobody else has it.
    pub(crate) fresh: bool,
}

/// What a client lends to its drafts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk {
    /// Where the results of this process go.
    pub(crate) slot: ResultSlot,
    /// The largest payload as it is handed in, in bytes.
    pub(crate) max_body: usize,
    pub(crate) now: WallMillis,
}

/// Longer is no delay but a mistake.
const MAX_DELAY: Duration = Duration::from_secs(366 * 24 * 3600);

impl<T: TaskDefinition> Draft<T> {
    pub(crate) fn new(payload: PayloadOf<T>) -> Self {
        Self { payload, chosen: Chosen::default() }
    }

    pub(crate) fn encode(self) -> Result<Encoded, PublishError> {
        let payload = serde_json::to_vec(&self.payload).map_err(PublishError::Encode)?;
        let (version, aliases, published_by) = (T::VERSION, T::ALIASES, trace::current());
        let (payload, codecs, chosen) = (payload.into(), Vec::new(), self.chosen);
        Ok(Encoded { payload, codecs, version, aliases, published_by, chosen })
    }
}

impl Chosen {
    pub(crate) fn claim(&mut self, claim: Claim) {
        self.claim = match self.claim {
            Claim::None => claim,
            _ => Claim::Mixed,
        };
    }
}

pub(crate) fn key(key: &(impl Serialize + ?Sized)) -> Key {
    serde_json::to_vec(key)
}

fn invalid(text: String) -> PublishError {
    PublishError::Invalid(text)
}

fn checked(what: &'static str, key: Key) -> Result<Vec<u8>, PublishError> {
    let key = key.map_err(|error| invalid(format!("{what} cannot be encoded as JSON: {error}")))?;
    if key.len() > limits::KEY {
        return Err(PublishError::TooLarge { what, bytes: key.len(), limit: limits::KEY });
    }
    Ok(key)
}

impl Encoded {
    /// Checks all that can be checked before a byte leaves. `fresh` makes a new id.
    pub(crate) fn ready(
        self,
        definition: DefinitionId,
        desk: Desk,
        fresh: impl FnOnce() -> TaskId,
    ) -> Result<Ready, PublishError> {
        let Self { payload, codecs, version, aliases, published_by, chosen } = self;
        check_size(&payload, desk.max_body)?;
        let Chosen { delay, ttl, headers, content_type, id, again, claim, on_conflict, turn } = chosen;
        content_type.as_deref().map_or(Ok(()), content::check)?;
        let envelope = Envelope { content_type, version, codecs };
        let mut options = TaskOptions {
            envelope: envelope.stored(),
            ttl: ttl_of(ttl, delay, desk.now)?,
            ..TaskOptions::default()
        };
        turn.choose(&mut options)?;
        let mut named = None;
        match claim {
            Claim::None => {}
            Claim::Idempotent(key) => {
                named = Some(idempotent(&definition, &checked("the idempotency key", key)?));
            }
            Claim::Unique(key) => options.unique = Some(unique(HeldUntil::Ended, key)?),
            // The task that it named may be another's, with another payload.
            Claim::Pending(_) if again.is_some() => {
                return Err(invalid(
                    "replace_pending and debounce exclude again: publish it anew, without again".to_owned(),
                ));
            }
            Claim::Pending(key) => options.unique = Some(unique(HeldUntil::Begun, key)?),
            Claim::Mixed => {
                return Err(invalid(
                    "idempotency_key, unique and replace_pending (or debounce) exclude each other: \
                     choose one, once"
                        .to_owned(),
                ));
            }
        }
        if named.is_some() && (id.is_some() || again.is_some()) {
            return Err(invalid(
                "an idempotency key chooses the task's id: it cannot be given too".to_owned(),
            ));
        }
        let is_fresh = named.is_none() && id.is_none() && again.is_none();
        let task = match again {
            Some(again) if !is_of(&again, &definition, aliases) => {
                return Err(invalid(format!("task {again} is not of {definition}")));
            }
            Some(again) => again,
            None => {
                let (id, slot) = named.unwrap_or_else(|| (id.unwrap_or_else(fresh), desk.slot));
                RawTaskRef { definition, id, slot }
            }
        };
        if task.id.is_singleton() {
            return Err(invalid("a published task cannot have the singleton's id".to_owned()));
        }
        let headers = headers::checked(headers, published_by, task.id)?;
        let delay = delay_of(delay, desk.now)?;
        let record = TaskRecord { slot: task.slot, published: desk.now, delay, headers, options, payload };
        Ok(Ready { task, record, on_conflict, fresh: is_fresh })
    }
}

fn unique(until: HeldUntil, key: Key) -> Result<Unique, PublishError> {
    Ok(Unique { key: UniqueKey::of(until, &checked("the unique key", key)?), until })
}

fn delay_of(delay: Duration, now: WallMillis) -> Result<Option<Delay>, PublishError> {
    if delay > MAX_DELAY {
        return Err(invalid(format!("delay is {delay:?}; the limit is {MAX_DELAY:?}")));
    }
    Ok((!delay.is_zero()).then(|| Delay::from_now(delay, now)))
}

fn ttl_of(ttl: Option<Duration>, delay: Duration, now: WallMillis) -> Result<Option<Delay>, PublishError> {
    if let Some(ttl) = ttl.filter(|ttl| *ttl <= delay || *ttl > MAX_DELAY) {
        return Err(invalid(format!(
            "ttl is {ttl:?}; it must be longer than the delay ({delay:?}) and at most {MAX_DELAY:?}"
        )));
    }
    Ok(ttl.map(|ttl| Delay::from_now(ttl, now)))
}

fn check_size(payload: &Bytes, limit: usize) -> Result<(), PublishError> {
    let bytes = payload.len();
    if bytes > limit {
        return Err(PublishError::TooLarge { what: "the payload", bytes, limit });
    }
    Ok(())
}

/// Whether the task is of this definition, or was published under a name that it had before.
fn is_of(task: &RawTaskRef, definition: &DefinitionId, aliases: &[&str]) -> bool {
    let same_name = task.definition.name == definition.name;
    let name = task.definition.name.as_str();
    task.definition.namespace == definition.namespace && (same_name || aliases.contains(&name))
}

pub(crate) fn header_bytes(headers: &BTreeMap<String, String>) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// A task that is not published yet: for [`Bellows::publish_many`](crate::Bellows::publish_many),
/// [`Bellows::publish_stream`](crate::Bellows::publish_stream) and
/// [`TaskSuccess::and_publish_task`](crate::TaskSuccess::and_publish_task).
#[must_use = "a task is published by handing it on"]
pub struct NewTask<T: TaskDefinition> {
    pub(crate) draft: Draft<T>,
}

impl<T: TaskDefinition<Trigger: PublishStrategy>> NewTask<T> {
    /// A task with this payload, due at once.
    pub fn new(payload: PayloadOf<T>) -> Self {
        Self { draft: Draft::new(payload) }
    }

    task_options!();
}

impl<T: TaskDefinition> fmt::Debug for NewTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A payload may be secret.
        f.debug_struct("NewTask").field("name", &T::NAME).finish_non_exhaustive()
    }
}
