//! Parked tasks: listing them, running them again, removing them.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bellows_registry::backend::{Entry, OpAnswer, RangeRequest};
use bellows_registry::clock::WallMillis;
use bellows_registry::id::TaskId;
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Ask, AttemptError, Envelope, OutcomeRecord, ParkedRecord, Record, Tally};
use bellows_registry::txn;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::client::Bellows;
use crate::definition::{PayloadOf, TaskDefinition};
use crate::envelope::codec::About;
use crate::envelope::undecodable::{PayloadError, Undecodable};
use crate::handle::TaskHandle;
use crate::refs::{RawTaskRef, TaskRef};
use crate::requests::{self, Asking, RequestError};
use crate::tasks::read;

/// What became of a [replay](TaskHandle::replay).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// It is waiting again, with fresh attempts, or further on already.
    Again {
        /// Which life of the task this is: the first replay begins life 1.
        life: u32,
    },
    /// It is not parked: it waits, runs, or ended otherwise. Nothing was done.
    NotParked,
    /// It never existed, or its record is past its retention, or somebody removed it.
    NotFound,
}

/// What became of a [purge](TaskHandle::purge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purged {
    /// It is gone, and its terminal record with it.
    Removed,
    /// It is not parked: it waits, runs, or ended otherwise. Nothing was done.
    NotParked,
    /// It never existed, or its record is past its retention, or somebody removed it.
    NotFound,
}

/// A parked task as it was read: what it was to do, and why it is here.
pub struct ParkedTask<T> {
    client: Bellows,
    task: TaskRef<T>,
    record: ParkedRecord,
}

impl<T> std::fmt::Debug for ParkedTask<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A payload may be secret.
        f.debug_struct("ParkedTask")
            .field("task", &self.task)
            .field("reason", &self.record.tally.errors.last())
            .finish()
    }
}

impl<T: TaskDefinition> ParkedTask<T> {
    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// The task as plain data: for [`Bellows::task`], and with it to replay or to purge it.
    pub fn to_ref(&self) -> TaskRef<T> {
        self.task.clone()
    }

    /// When it was parked, by its worker's clock.
    pub fn parked_at(&self) -> WallMillis {
        self.record.parked
    }

    /// When it is removed unless it is replayed before.
    pub fn expires(&self) -> WallMillis {
        self.record.expires()
    }

    /// What happened to it in this life.
    pub fn tally(&self) -> &Tally {
        &self.record.tally
    }

    /// What went wrong, oldest first: the last few attempts, of earlier lives too.
    pub fn errors(&self) -> &[AttemptError] {
        &self.record.tally.errors
    }

    /// Why it is parked: what went wrong last.
    pub fn reason(&self) -> Option<&AttemptError> {
        self.record.tally.errors.last()
    }

    /// What its publisher attached.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.record.task.headers
    }

    /// Its payload, as a handler would get it: with codecs undone, and brought to this
    /// program's version.
    ///
    /// # Errors
    /// If this program cannot read it, which may be why it is parked; or lacks a codec or a
    /// key, or the object that holds it.
    pub async fn payload(&self) -> Result<PayloadOf<T>, PayloadError> {
        let task = &self.record.task;
        let envelope = task.options.envelope.as_deref().unwrap_or(Envelope::PLAIN);
        let about = About::payload(&self.task.raw().definition, self.id());
        let codecs = &self.client.shared.options.codecs;
        let opened = codecs.open(&about, &envelope.codecs, task.payload.clone()).await;
        let payload = opened.map_err(|error| PayloadError(Undecodable::Codec(error)))?;
        read::<T>(envelope, &payload).map_err(PayloadError)
    }
}

/// The parked tasks of one kind, page by page, in the order of their ids.
///
/// ```no_run
/// # use bellows_sdk::prelude::*;
/// # async fn example<T: TaskDefinition>(bellows: Bellows) -> anyhow::Result<()> {
/// let mut parked = bellows.parked::<T>();
/// loop {
///     let page = parked.next_page().await?;
///     if page.is_empty() {
///         break;
///     }
///     for task in page {
///         println!("{}: {:?}", task.id(), task.reason());
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ParkedTasks<'a, T> {
    client: &'a Bellows,
    page: usize,
    after: Option<TaskId>,
    kind: PhantomData<fn() -> T>,
}

/// Tasks of a page, unless somebody says otherwise.
const PAGE: usize = 20;
/// Tasks of a page at most. A page is read at once, with all payloads.
const MAX_PAGE: usize = 200;
/// Requests of one caller under way at once.
const AT_ONCE: usize = 32;

impl Bellows {
    /// The parked tasks of one kind: asks nothing before the first page.
    pub fn parked<T: TaskDefinition>(&self) -> ParkedTasks<'_, T> {
        ParkedTasks { client: self, page: PAGE, after: None, kind: PhantomData }
    }

    /// Replays a task whose kind this program does not know; else as
    /// [`TaskHandle::replay`].
    pub async fn replay(&self, task: &RawTaskRef) -> Result<Replayed, RequestError> {
        let asking = Asking::new(self, task)?;
        let mut parked_in = None;
        loop {
            let life = match self.look_aside(&asking, task).await? {
                Aside::Parked { life } if parked_in.is_none_or(|before| before == life) => life,
                Aside::Parked { life } => return Ok(Replayed::Again { life }),
                Aside::Elsewhere { life } if parked_in.is_some_and(|before| before < life) => {
                    return Ok(Replayed::Again { life });
                }
                Aside::Elsewhere { .. } => return Ok(Replayed::NotParked),
                Aside::Nowhere => return Ok(Replayed::NotFound),
            };
            parked_in = Some(life);
            if asking.ask(Ask::Replay).await? {
                asking.until_acted_on().await?;
            }
        }
    }

    /// Purges a task whose kind this program does not know; else as [`TaskHandle::purge`].
    pub async fn purge(&self, task: &RawTaskRef) -> Result<Purged, RequestError> {
        let asking = Asking::new(self, task)?;
        let mut asked = false;
        loop {
            match self.look_aside(&asking, task).await? {
                Aside::Parked { .. } => {}
                Aside::Elsewhere { .. } => return Ok(Purged::NotParked),
                Aside::Nowhere if asked => return Ok(Purged::Removed),
                Aside::Nowhere => return Ok(Purged::NotFound),
            }
            if asking.ask(Ask::Purge).await? {
                asked = true;
                asking.until_acted_on().await?;
            }
        }
    }

    async fn look_aside(&self, asking: &Asking<'_>, task: &RawTaskRef) -> Result<Aside, RequestError> {
        let look = || txn::look(&self.shared.space, &task.definition, task.id, task.slot);
        let answer = asking.read(|| self.shared.backend.txn(look())).await?;
        let found = |at: usize| match answer.answers.get(at) {
            Some(OpAnswer::Get(entries)) => entries.first(),
            _ => None,
        };
        let unreadable = |source| RequestError::Record { task: task.id, source };
        if let Some(entry) = found(txn::look::PARKED) {
            let record = ParkedRecord::decode(&entry.value).map_err(unreadable)?;
            return Ok(Aside::Parked { life: record.tally.life });
        }
        if let Some(entry) = found(txn::look::OUTCOME) {
            let record = OutcomeRecord::decode(&entry.value).map_err(unreadable)?;
            return Ok(Aside::Elsewhere { life: record.tally.life });
        }
        if found(txn::look::TASK).is_none() {
            return Ok(Aside::Nowhere);
        }
        let tally = found(txn::look::TALLY).map(|entry| Tally::decode(&entry.value)).transpose();
        Ok(Aside::Elsewhere { life: tally.map_err(unreadable)?.map_or(0, |tally| tally.life) })
    }
}

/// Where a task is, as far as replaying and purging go.
enum Aside {
    Parked { life: u32 },
    Elsewhere { life: u32 },
    Nowhere,
}

impl<T: TaskDefinition> TaskHandle<T> {
    /// Runs the task again, if it is parked: under the same id, with its payload as it was
    /// published, with fresh attempts. What went wrong before stays to be read, and a
    /// [ttl](crate::Publish::ttl) begins anew.
    ///
    /// # Guarantees
    /// A replay begins one life, in which again at most one attempt is recorded. Its
    /// terminal record takes the place of the parked one's.
    ///
    /// Who waits for the task while it is replayed goes on waiting for the outcome of the
    /// life that is current when it looks. Who was told already that the task is parked
    /// must wait anew.
    ///
    /// # Errors
    /// [`RequestError::Unanswered`] if nobody acts on it within
    /// [`Options::request_timeout`](crate::Options::request_timeout).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request standing, if it was sent.
    pub async fn replay(&self) -> Result<Replayed, RequestError> {
        self.client().replay(self.to_ref().raw()).await
    }

    /// Removes the task and its terminal record for good, if it is parked.
    ///
    /// # Errors
    /// As [`TaskHandle::replay`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request standing, if it was sent.
    pub async fn purge(&self) -> Result<Purged, RequestError> {
        self.client().purge(self.to_ref().raw()).await
    }
}

impl<T: TaskDefinition> ParkedTasks<'_, T> {
    /// How many tasks a page has, 1 to 200. A page is held in memory with all payloads.
    pub fn page_size(mut self, tasks: usize) -> Self {
        self.page = tasks.clamp(1, MAX_PAGE);
        self
    }

    /// The next page; an empty one is the end. A task that is parked meanwhile may be on a
    /// later page, or on none. One that cannot be read is left out.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] for a name that is not allowed,
    /// [`RequestError::Unavailable`] if the registry does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future skips nothing: the page comes next time.
    pub async fn next_page(&mut self) -> Result<Vec<ParkedTask<T>>, RequestError> {
        let shared = &self.client.shared;
        let def = self.client.definition::<T>().map_err(|error| RequestError::Invalid(error.to_string()))?;
        loop {
            let mut range = shared.space.parked_range(&def);
            if let Some(after) = self.after {
                let last = shared.space.path(&Key::Parked(def.clone(), after));
                range.start = Bytes::from([&last[..], b"\0"].concat());
            }
            let page = self.read(range).await?;
            let Some(Key::Parked(_, last)) = page.last().and_then(|e| shared.space.parse(&e.key).ok()) else {
                return Ok(Vec::new());
            };
            self.after = Some(last);
            let tasks: Vec<_> = page.iter().filter_map(|entry| self.task(entry)).collect();
            if !tasks.is_empty() {
                return Ok(tasks);
            }
        }
    }

    async fn read(&self, range: KeyRange) -> Result<Vec<Entry>, RequestError> {
        let request = RangeRequest { range, revision: None, limit: self.page };
        let backend = &self.client.shared.backend;
        let until = requests::deadline(self.client);
        let answer = requests::read(until, || backend.range(request.clone())).await?;
        Ok(answer.entries)
    }

    fn task(&self, entry: &Entry) -> Option<ParkedTask<T>> {
        let Ok(Key::Parked(definition, id)) = self.client.shared.space.parse(&entry.key) else { return None };
        let record = ParkedRecord::decode(&entry.value).ok()?;
        let raw = RawTaskRef { definition, id, slot: record.task.slot };
        Some(ParkedTask { client: self.client.clone(), task: TaskRef::from_raw(raw), record })
    }

    /// Replays every task from here on; answers how many. Bounded in memory and in what is
    /// under way at once. Those that park again at once are not replayed once more.
    ///
    /// # Errors
    /// The first that a page or a replay gives; what was replayed until then stays so.
    pub async fn replay_all(mut self) -> Result<usize, RequestError> {
        let mut replayed = 0;
        loop {
            let page = self.next_page().await?;
            if page.is_empty() {
                return Ok(replayed);
            }
            let client = self.client;
            let each = page.iter().map(|task| client.replay(task.task.raw()));
            let done = stream::iter(each).buffer_unordered(AT_ONCE);
            let again = done.try_filter(|one| std::future::ready(matches!(one, Replayed::Again { .. })));
            replayed += again.try_fold(0, |sum, _| std::future::ready(Ok(sum + 1))).await?;
        }
    }

    /// Removes every task from here on; answers how many. Else as
    /// [`ParkedTasks::replay_all`].
    ///
    /// # Errors
    /// The first that a page or a purge gives; what was removed until then stays so.
    pub async fn purge_all(mut self) -> Result<usize, RequestError> {
        let mut removed = 0;
        loop {
            let page = self.next_page().await?;
            if page.is_empty() {
                return Ok(removed);
            }
            let client = self.client;
            let each = page.iter().map(|task| client.purge(task.task.raw()));
            let done = stream::iter(each).buffer_unordered(AT_ONCE);
            let gone = done.try_filter(|one| std::future::ready(*one == Purged::Removed));
            removed += gone.try_fold(0, |sum, _| std::future::ready(Ok(sum + 1))).await?;
        }
    }
}
