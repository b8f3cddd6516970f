//! A task before it is published: its payload and what was chosen for it.
//!
//! The options are written once, for [`Publish`](crate::Publish) and [`NewTask`]. All of
//! them are checked before a byte leaves; nothing here sends.

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

/// The options of a task, for a type with a `draft`.
macro_rules! task_options {
    () => {
        /// The task becomes due only after this time, at most a year.
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self.draft.chosen.delay = delay;
            self
        }

        /// The task becomes due at this time by this machine's clock, at most a year from
        /// now; at once if it has passed. In place of a `delay`.
        pub fn at(self, time: std::time::SystemTime) -> Self {
            self.delay(crate::outcome::until(time))
        }

        /// How long the task may wait for an attempt to begin, counted from now: longer
        /// than the delay, and at most a year. After that it ends as
        /// [`Ended::Expired`](crate::Ended::Expired), without a result. A running attempt
        /// does not expire; a task that waits for its next attempt does.
        ///
        /// The assigner counts from when it saw the task appear; only what it finds when
        /// it begins to lead goes by the publisher's clock.
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.draft.chosen.ttl = Some(ttl);
            self
        }

        /// Attaches a header that the handler sees. At most 32, and 4 KiB together; names as
        /// in HTTP, values without control characters.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.draft.chosen.headers.insert(name.into(), value.into());
            self
        }

        /// The place in a trace that the attempts belong to: W3C's `traceparent`, as text or
        /// as a [`TraceParent`](crate::TraceParent). The same as the header of that name.
        ///
        /// By default a task published by a handler belongs to that handler's trace, and any
        /// other begins a trace of its own, whose id is the task's.
        pub fn traceparent(self, parent: impl Into<String>) -> Self {
            self.header(crate::envelope::trace::TRACEPARENT, parent)
        }

        /// The media type of the payload. Payloads are JSON: `application/json`, the
        /// default, or one that ends in `+json`.
        pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
            self.draft.chosen.content_type = Some(media_type.into());
            self
        }

        /// How urgent the task is among those with the same fairness key: 1 (least) to 9
        /// (most), 5 by default. A level is worth ten minutes of waiting, so that none starves.
        pub fn priority(mut self, level: u8) -> Self {
            self.draft.chosen.turn.priority = Some(level);
            self
        }

        /// The fairness key: keys take turns, and limits per key count by it. A tenant, an
        /// account, a host; 1 to 128 bytes. Tasks without one are one key together.
        pub fn key(mut self, key: impl Into<String>) -> Self {
            self.draft.chosen.turn.key = Some(key.into());
            self
        }

        /// How many slots of one worker the task takes, 1 to 1000; 1 by default. It waits
        /// for ever while no worker has so many.
        pub fn weight(mut self, slots: u32) -> Self {
            self.draft.chosen.turn.weight = Some(slots);
            self
        }

        /// Publishes under this id, chosen by you. Publishing again with the same id on the
        /// same client is the same task; elsewhere, use `again`.
        pub fn as_task(mut self, id: bellows_registry::id::TaskId) -> Self {
            self.draft.chosen.id = Some(id);
            self
        }

        /// Publishes a task once more whose publish ended in
        /// [`PublishError::Unknown`](crate::PublishError::Unknown), here or in another
        /// process, now or after a restart. It is the same task: nothing happens if it is
        /// published already or has ended, as long as its record is kept.
        pub fn again(mut self, task: &crate::RawTaskRef) -> Self {
            self.draft.chosen.again = Some(task.clone());
            self
        }

        /// The key chooses the task: whoever publishes under it, from wherever, means the
        /// same task, for as long as that waits, runs, is parked or its terminal record is
        /// kept. The first one counts: a later payload under the same key is not looked at,
        /// and [`TaskHandle::publication`](crate::TaskHandle::publication) says `Already`.
        ///
        /// The key is anything that serializes, at most 1 KiB as JSON, and counts within
        /// the definition. Excludes `unique` and `replace_pending`.
        pub fn idempotency_key(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Idempotent(crate::draft::key(&key)));
            self
        }

        /// At most one task of this key is active in the definition: it holds the key from
        /// its publish until it has ended, and while it is parked. What a publish does that
        /// finds it held is said by `on_conflict`. Once the key is free, a new task may
        /// take it: the record of the one before it does not matter.
        ///
        /// The key is anything that serializes, at most 1 KiB as JSON. Let it not contain a
        /// `HashMap`: that has no order. Excludes `idempotency_key` and `replace_pending`.
        pub fn unique(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Unique(crate::draft::key(&key)));
            self
        }

        /// As `unique`, with a key of chosen fields of the payload.
        ///
        /// ```
        /// # use bellows_sdk::prelude::*;
        /// # use bellows_sdk::NewTask;
        /// # #[derive(Serialize, Deserialize)]
        /// # struct Sync { user: u64, why: String }
        /// # struct SyncUser;
        /// # impl TaskDefinition for SyncUser {
        /// #     const NAME: &'static str = "sync-user";
        /// #     type Callback = ();
        /// #     type Trigger = PublishTrigger<Sync>;
        /// # }
        /// let task = NewTask::<SyncUser>::new(Sync { user: 7, why: "login".into() });
        /// let task = task.unique_by(|sync| sync.user); // one for each user, whatever the reason
        /// ```
        pub fn unique_by<K: serde::Serialize>(
            mut self,
            key: impl FnOnce(&crate::definition::PayloadOf<T>) -> K,
        ) -> Self {
            let key = crate::draft::key(&key(&self.draft.payload));
            self.draft.chosen.claim(crate::draft::Claim::Unique(key));
            self
        }

        /// What happens if another task holds the key of `unique`. Default: its handle is
        /// returned.
        pub fn on_conflict(mut self, what: crate::OnConflict) -> Self {
            self.draft.chosen.on_conflict = what;
            self
        }

        /// At most one task of this key is pending in the definition: as long as it has not
        /// been given to a worker, a later publish under the key takes its place, with its
        /// own payload, headers and delay, and the id stays. Once it has begun, a later
        /// publish is a task of its own, so that the last payload is always run.
        ///
        /// The key is as that of `unique`, but in a room of its own: the two never meet.
        /// Excludes `unique` and `idempotency_key`. A replacement whose answer is lost and
        /// whose task begins meanwhile may be published once more.
        pub fn replace_pending(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Pending(crate::draft::key(&key)));
            self
        }

        /// Runs when no other publish under this key has come for so long: as
        /// `replace_pending` with a `delay`. Publishes that never pause put it off for ever.
        pub fn debounce(self, key: impl serde::Serialize, wait: std::time::Duration) -> Self {
            self.replace_pending(key).delay(wait)
        }
    };
}
pub(crate) use task_options;

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
