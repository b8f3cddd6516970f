//! Asking the assigner to do something about a task: cancel it.
//!
//! A request is one small key, `c/<task>`, which the assigner acts on and deletes (law 7).
//! Whoever asked then reads off the task's own records what became of it, so that the
//! answer is the one that the registry keeps, whoever else asked or settled meanwhile.

use std::time::Duration;

use bellows_registry::backend::coalesce::Written;
use bellows_registry::backend::{BackendError, Class, RangeRequest};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{Ask, Cancellation, DecodeError, Ended, OutcomeRecord, RequestRecord};
use bellows_registry::txn::{self, Asked};
use tokio::time::{sleep, timeout, timeout_at};

use crate::client::Bellows;
use crate::definition::{PublishTrigger, TaskDefinition};
use crate::error::WaitError;
use crate::handle::{TaskHandle, TaskStatus};
use crate::refs::{RawTaskRef, TaskRef};
use crate::results::Follow;

/// What became of a [cancel](TaskHandle::cancel).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// No handler ran: the task was waiting, and never will run.
    WasWaiting,
    /// Its handler was told and stopped within its grace of two seconds.
    Stopped,
    /// Its handler was told and did not stop within its grace. Whatever it comes to is
    /// refused, but what it does outside of the registry may go on for a while.
    NotStopped,
    /// The task ended before, or its handler brought it to an end although it was told:
    /// this is how, and it stays so.
    TooLate(Box<OutcomeRecord>),
    /// The task never existed, or ended longer ago than its record is kept.
    NotFound,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is not allowed. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// Nobody has acted on it in time. It may stand, and will then be acted on later:
    /// ask again to learn what became of it.
    #[error("nobody acted on the request within {0:?}; it may stand, and is then acted on later")]
    Unanswered(Duration),
    /// The task's record cannot be read.
    #[error("the record of task {task} cannot be read")]
    Record {
        /// The task.
        task: bellows_registry::id::TaskId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The registry refuses the request, or did not answer in time. The request may stand.
    #[error("the registry does not answer")]
    Unavailable(#[source] BackendError),
}

/// A task whose kind does not matter.
pub(crate) struct Any;

impl TaskDefinition for Any {
    const NAME: &'static str = "any";
    type Callback = ();
    type Trigger = PublishTrigger<()>;
}

impl<T: TaskDefinition> TaskHandle<T> {
    /// Cancels the task, from whatever process.
    ///
    /// # Expected flow
    /// A waiting task ends now. A running one's handler is told by its
    /// [token](crate::TaskContext::cancelled), within the latency of a signal, and has two
    /// seconds to stop. It does not run again, whatever becomes of its worker.
    ///
    /// # Guarantees
    /// A cancel and the task's own end have one winner, and every caller is told which. A
    /// result once recorded is never overwritten. Cancelling again is harmless and gives
    /// the same answer.
    ///
    /// # Errors
    /// [`RequestError::Unanswered`] if nobody acts on it within
    /// [`Options::request_timeout`](crate::Options::request_timeout).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request standing, if it was sent.
    pub async fn cancel(&self) -> Result<Cancelled, RequestError> {
        self.client().cancel(self.to_ref().raw()).await
    }
}

impl Bellows {
    /// Cancels a task whose kind this program does not know; else as
    /// [`TaskHandle::cancel`].
    ///
    /// # Errors
    /// As there; [`RequestError::Invalid`] for the task of a singleton, which is there as
    /// long as its definition.
    pub async fn cancel(&self, task: &RawTaskRef) -> Result<Cancelled, RequestError> {
        let handle = self.task::<Any>(TaskRef::from_raw(task.clone()));
        let asking = Asking::new(self, task)?;
        loop {
            if asking.ask(Ask::Cancel).await? {
                return asking.in_time(async { handle.outcome().await.map(cancelled) }).await;
            }
            match asking.in_time(handle.status()).await? {
                TaskStatus::Ended(record) => return Ok(cancelled(*record)),
                TaskStatus::NotFound => return Ok(Cancelled::NotFound),
                // It came back meanwhile: somebody replayed it.
                TaskStatus::Waiting { .. } | TaskStatus::Running { .. } => {}
            }
        }
    }
}

/// Reads off the terminal record who has won.
fn cancelled(record: OutcomeRecord) -> Cancelled {
    match (record.ended, record.cancellation) {
        (Ended::Cancelled, Some(Cancellation::NotRunning)) => Cancelled::WasWaiting,
        (Ended::Cancelled, Some(Cancellation::Stopped)) => Cancelled::Stopped,
        (Ended::Cancelled, Some(Cancellation::Unstopped)) => Cancelled::NotStopped,
        _ => Cancelled::TooLate(Box::new(record)),
    }
}

/// One caller's way of asking about one task, within its time.
pub(crate) struct Asking<'a> {
    client: &'a Bellows,
    task: &'a RawTaskRef,
    deadline: Instant,
}

/// A signal may be lost (law 12): then a request that stands is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl<'a> Asking<'a> {
    pub(crate) fn new(client: &'a Bellows, task: &'a RawTaskRef) -> Result<Self, RequestError> {
        if task.id.is_singleton() {
            let text = "the task of a singleton is there as long as its definition: delete that";
            return Err(RequestError::Invalid(text.to_owned()));
        }
        Ok(Self { client, task, deadline: deadline(client) })
    }

    /// Asks until an answer says that the request stands, or that there is nothing to act
    /// on. Sent again after an unknown outcome: it is then the same request.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<bool, RequestError> {
        let shared = &self.client.shared;
        let mut waits = Waits::spread_by(self.task.id.to_string().as_bytes());
        loop {
            let record = RequestRecord { ask, asked: clock::wall() };
            let row = txn::ask(&shared.space, &self.task.definition, self.task.id, &record);
            let answer = timeout_at(self.deadline, shared.writer().send(row)).await;
            match answer.map_err(|_| self.unanswered())? {
                Ok(Written::Answer(answer)) => match Asked::of(&answer, ask) {
                    Asked::Standing => return Ok(true),
                    Asked::Nothing => return Ok(false),
                    Asked::Occupied => self.until_acted_on().await?,
                },
                Ok(Written::Deposed) => {} // a request has no fence to lose
                Err(error) if error.class() == Class::Invalid => {
                    return Err(RequestError::Unavailable(error));
                }
                Err(error) => {
                    let wait = waits.after_failure();
                    if clock::instant() + wait >= self.deadline {
                        return Err(RequestError::Unavailable(error));
                    }
                    sleep(wait).await;
                }
            }
        }
    }

    /// Waits until no request about the task stands.
    pub(crate) async fn until_acted_on(&self) -> Result<(), RequestError> {
        let shared = &self.client.shared;
        let key = shared.space.path(&Key::Request(self.task.definition.clone(), self.task.id));
        let range = KeyRange::one(key.clone());
        // Subscribe before you look (law 13): one watch for all requests of a definition.
        let all = shared.space.requests_range(&self.task.definition);
        let place = shared.results.subscribe(all, Follow::UntilGone, key);
        let gone = async {
            loop {
                match shared.backend.range(RangeRequest::new(range.clone())).await {
                    Ok(found) if found.entries.is_empty() => return,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a request is looked at again"),
                }
                let _ = timeout(LOOK_AGAIN, place.woken()).await;
            }
        };
        timeout_at(self.deadline, gone).await.map_err(|_| self.unanswered())
    }

    /// Waits for a look at the task, within the time.
    pub(crate) async fn in_time<O>(
        &self,
        look: impl Future<Output = Result<O, WaitError>>,
    ) -> Result<O, RequestError>
    where
        O: Outlived,
    {
        match timeout_at(self.deadline, look).await.map_err(|_| self.unanswered())? {
            Ok(seen) => Ok(seen),
            Err(WaitError::Record { task, source }) => Err(RequestError::Record { task, source }),
            Err(WaitError::Unavailable(error)) => Err(RequestError::Unavailable(error)),
            Err(_) => Ok(O::not_found()),
        }
    }

    /// Reads, again and again until there is an answer.
    pub(crate) async fn read<O, F>(&self, call: impl FnMut() -> F) -> Result<O, RequestError>
    where
        F: Future<Output = Result<O, BackendError>>,
    {
        read(self.deadline, call).await
    }

    fn unanswered(&self) -> RequestError {
        RequestError::Unanswered(self.client.shared.options.request_timeout)
    }
}

/// When a request that is made now is given up.
pub(crate) fn deadline(client: &Bellows) -> Instant {
    clock::instant() + client.shared.options.request_timeout.min(clock::FAR)
}

/// Reads, again and again until there is an answer or the time is over.
pub(crate) async fn read<O, F>(deadline: Instant, mut call: impl FnMut() -> F) -> Result<O, RequestError>
where
    F: Future<Output = Result<O, BackendError>>,
{
    let mut waits = Waits::spread_by(b"read");
    loop {
        let error = match timeout_at(deadline, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => BackendError::unknown("no answer in time"),
        };
        let wait = waits.after_failure();
        if error.class() == Class::Invalid || clock::instant() + wait >= deadline {
            return Err(RequestError::Unavailable(error));
        }
        sleep(wait).await;
    }
}

/// What has a word for a task that is not known.
pub(crate) trait Outlived {
    fn not_found() -> Self;
}

impl Outlived for Cancelled {
    fn not_found() -> Self {
        Self::NotFound
    }
}

impl Outlived for TaskStatus {
    fn not_found() -> Self {
        Self::NotFound
    }
}
