//! A task and the way to its result.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bellows_registry::backend::{BackendError, Class, OpAnswer, TxnAnswer};
use bellows_registry::backoff::Waits;
use bellows_registry::clock;
use bellows_registry::id::{AttemptId, WorkerId};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Ended, OutcomeRecord, ParkedRecord, Record, Tally};
use bellows_registry::txn;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::client::Bellows;
use crate::definition::TaskDefinition;
use crate::envelope::codec::About;
use crate::error::{TaskFailed, WaitError};
use crate::publish::Publication;
use crate::refs::TaskRef;
use crate::results::Follow;
use crate::waiting;

/// A waiter looks again after so long without a signal: a watch is a hint, and may have
/// lost one (law 12).
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// A published task. Await it for its result; drop it, and the task goes on.
///
/// # Errors
/// See [`WaitError`]. A task that ended without a result is [`WaitError::Failed`].
///
/// # Cancel safety
/// Waiting can be given up and begun again, here or in another process.
pub struct TaskHandle<T> {
    pub(crate) client: Bellows,
    pub(crate) task: TaskRef<T>,
    publication: Option<Publication>,
}

impl<T> std::fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskHandle({:?})", self.task)
    }
}

/// The other name of [`TaskHandle`].
pub type AwaitableTask<T> = TaskHandle<T>;

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskStatus {
    /// It waits: for its time, for a free slot, or for its next attempt.
    Waiting {
        /// What happened to it so far.
        tally: Tally,
    },
    /// It was given to a worker, which runs it or is about to.
    Running {
        /// What happened to it before.
        tally: Tally,
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// It ended.
    Ended(Box<OutcomeRecord>),
    /// It never existed, or ended longer ago than its record is kept.
    NotFound,
}

impl TaskStatus {
    /// What happened to the task so far; `None` if it is not found.
    pub fn tally(&self) -> Option<&Tally> {
        match self {
            Self::Waiting { tally } | Self::Running { tally, .. } => Some(tally),
            Self::Ended(record) => Some(&record.tally),
            Self::NotFound => None,
        }
    }
}

impl<T: TaskDefinition> TaskHandle<T> {
    pub(crate) fn new(client: Bellows, task: TaskRef<T>) -> Self {
        Self { client, task, publication: None }
    }

    pub(crate) fn published(client: Bellows, task: TaskRef<T>, publication: Publication) -> Self {
        Self { client, task, publication: Some(publication) }
    }

    /// What the publish came to that returned this handle: whether it made the task or
    /// found it. `None` for a handle that was made from a [`TaskRef`].
    pub fn publication(&self) -> Option<Publication> {
        self.publication
    }

    pub(crate) fn client(&self) -> &Bellows {
        &self.client
    }

    /// The task as plain data, to be saved.
    pub fn to_ref(&self) -> TaskRef<T> {
        self.task.clone()
    }

    /// The task's id.
    pub fn id(&self) -> bellows_registry::id::TaskId {
        self.task.id()
    }

    /// Looks once: where the task is now. All of it is read in one transaction, so that a
    /// task on its way from one state to the next is seen in one of the two.
    ///
    /// To tell waiting from running it reads the names of all of the definition's running
    /// tasks: ask when somebody wants to know, and wait rather than ask again and again.
    ///
    /// # Errors
    /// [`WaitError::Unavailable`], or [`WaitError::Record`] if its record is of a newer
    /// format.
    pub async fn status(&self) -> Result<TaskStatus, WaitError> {
        let (shared, raw) = (&self.client.shared, self.task.raw());
        let look = txn::look_around(&shared.space, &raw.definition, raw.id, raw.slot);
        let answer = shared.backend.txn(look).await.map_err(WaitError::Unavailable)?;
        self.read(&answer)
    }

    /// As [`TaskHandle::status`], but a running task is taken for a waiting one: cheap.
    pub(crate) async fn glance(&self) -> Result<TaskStatus, WaitError> {
        let answer = self.look().await.map_err(WaitError::Unavailable)?;
        self.read(&answer)
    }

    /// Looks once: the result if the task has ended, `None` if it has not.
    ///
    /// # Errors
    /// As waiting for it.
    pub async fn try_result(&self) -> Result<Option<T::Callback>, WaitError> {
        match self.glance().await? {
            TaskStatus::Waiting { .. } | TaskStatus::Running { .. } => Ok(None),
            TaskStatus::NotFound => Err(WaitError::NotFound(self.id())),
            TaskStatus::Ended(record) => self.conclude(*record).await.map(Some),
        }
    }

    /// Waits at most so long.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] when the time is over; the task goes on.
    pub async fn wait_timeout(&self, time: Duration) -> Result<T::Callback, WaitError> {
        timeout(time, self.wait()).await.unwrap_or(Err(WaitError::TimedOut(time)))
    }

    /// Waits for the terminal record: how the task ended, when, where, and its result as
    /// it is written, before any codec is undone.
    ///
    /// # Errors
    /// As waiting for the result, but for [`WaitError::Failed`] and [`WaitError::Decode`].
    pub async fn outcome(&self) -> Result<OutcomeRecord, WaitError> {
        let raw = std::slice::from_ref(self.task.raw());
        let shared = &self.client.shared;
        let mut following = waiting::following(&shared.space, shared.slot, raw);
        self.outcome_by(following.remove(0), &Semaphore::new(1)).await
    }

    /// Waits for the terminal record by following a range that holds its key. `looks`
    /// bounds how many look at a time.
    pub(crate) async fn outcome_by(
        &self,
        (range, follow): (KeyRange, Follow),
        looks: &Semaphore,
    ) -> Result<OutcomeRecord, WaitError> {
        let shared = &self.client.shared;
        let raw = self.task.raw();
        let key = shared.space.path(&Key::Outcome(raw.definition.clone(), raw.slot, raw.id));
        // Subscribe before you look (law 13).
        let place = shared.results.subscribe(range, follow, key);
        let mut waits = Waits::spread_by(raw.id.to_string().as_bytes());
        let mut silent_since = None;
        loop {
            let turn = looks.acquire().await;
            let looked = self.look().await;
            drop(turn);
            match looked {
                Ok(answer) => match self.read(&answer)? {
                    TaskStatus::Ended(record) => return Ok(*record),
                    TaskStatus::NotFound => return Err(WaitError::NotFound(raw.id)),
                    TaskStatus::Waiting { .. } | TaskStatus::Running { .. } => {}
                },
                Err(error) if error.class() == Class::Invalid => return Err(WaitError::Unavailable(error)),
                Err(error) => {
                    let since = *silent_since.get_or_insert_with(clock::instant);
                    if clock::instant() - since >= shared.options.wait_patience {
                        return Err(WaitError::Unavailable(error));
                    }
                    sleep(waits.after_failure()).await;
                    continue;
                }
            }
            silent_since = None;
            waits.succeeded();
            // Over is as good as woken: one looks again.
            let _ = timeout(LOOK_AGAIN, place.woken()).await;
        }
    }

    async fn wait(&self) -> Result<T::Callback, WaitError> {
        let record = self.outcome().await?;
        self.conclude(record).await
    }

    async fn look(&self) -> Result<TxnAnswer, BackendError> {
        let (shared, raw) = (&self.client.shared, self.task.raw());
        shared.backend.txn(txn::look(&shared.space, &raw.definition, raw.id, raw.slot)).await
    }

    fn read(&self, answer: &TxnAnswer) -> Result<TaskStatus, WaitError> {
        let found = |at: usize| match answer.answers.get(at) {
            Some(OpAnswer::Get(entries)) => entries.first(),
            _ => None,
        };
        if let Some(entry) = found(txn::look::OUTCOME) {
            let record = OutcomeRecord::decode(&entry.value);
            return match record {
                Ok(record) => Ok(TaskStatus::Ended(Box::new(record))),
                Err(source) => Err(WaitError::Record { task: self.id(), source }),
            };
        }
        if let Some(entry) = found(txn::look::PARKED) {
            // It is kept for longer than its terminal record.
            return match ParkedRecord::decode(&entry.value) {
                Ok(parked) => Ok(TaskStatus::Ended(Box::new(outcome_of(parked)))),
                Err(source) => Err(WaitError::Record { task: self.id(), source }),
            };
        }
        if found(txn::look::TASK).is_none() {
            return Ok(TaskStatus::NotFound);
        }
        let tally = found(txn::look::TALLY).and_then(|entry| Tally::decode(&entry.value).ok());
        let tally = tally.unwrap_or_default();
        Ok(match self.assigned(answer) {
            Some((worker, attempt)) => TaskStatus::Running { tally, worker, attempt },
            None => TaskStatus::Waiting { tally },
        })
    }

    /// Who has the task, if that was asked.
    fn assigned(&self, answer: &TxnAnswer) -> Option<(WorkerId, AttemptId)> {
        let Some(OpAnswer::Get(keys)) = answer.answers.get(txn::look::ASSIGNMENTS) else { return None };
        keys.iter().find_map(|entry| match self.client.shared.space.parse(&entry.key) {
            Ok(Key::Assignment(_, worker, task, attempt)) if task == self.id() => Some((worker, attempt)),
            _ => None,
        })
    }

    pub(crate) async fn conclude(&self, record: OutcomeRecord) -> Result<T::Callback, WaitError> {
        if record.ended == Ended::Succeeded {
            let about = About::result(&self.task.raw().definition, self.id());
            let opened = self.client.shared.options.codecs.open(&about, &record.codecs, record.result).await;
            let result = opened.map_err(|error| WaitError::Codec { task: self.id(), error })?;
            return serde_json::from_slice(&result)
                .map_err(|source| WaitError::Decode { task: self.id(), source });
        }
        Err(WaitError::Failed(TaskFailed {
            task: self.id(),
            ended: record.ended,
            attempts: record.attempt,
            errors: record.tally.errors,
        }))
    }
}

/// What a parked task still tells of how it ended.
fn outcome_of(parked: ParkedRecord) -> OutcomeRecord {
    OutcomeRecord {
        ended: Ended::Parked,
        attempt: parked.tally.attempts,
        attempt_id: None,
        worker: None,
        published: parked.task.published,
        started: parked.parked,
        finished: parked.parked,
        expires: parked.expires(),
        cancellation: None,
        tally: parked.tally,
        codecs: Vec::new(),
        result: bytes::Bytes::new(),
    }
}

impl<T: TaskDefinition> IntoFuture for TaskHandle<T> {
    type Output = Result<T::Callback, WaitError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.wait().await })
    }
}
