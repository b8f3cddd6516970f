//! What a handler reports while it runs: the handler's side.
//!
//! Nothing here waits for the registry but a checkpoint, whose caller wants to know. What is
//! reported is written by the dispatcher, beside the handler.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bellows_registry::record::limits;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};

use crate::worker::TaskContext;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It is larger than its limit. Nothing was sent.
    #[error("{what} has {bytes} bytes; the limit is {limit}: store it elsewhere and report where")]
    TooLarge {
        /// What: the progress, the checkpoint.
        what: &'static str,
        /// How large it is, in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It does not serialize. Nothing was sent.
    #[error("{what} cannot be encoded as JSON")]
    Encode {
        /// What: the progress, the checkpoint.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The attempt is over, or its task is somebody else's by now: nothing was kept.
    #[error("the attempt does not hold its task any more")]
    NotHeld,
    /// The registry refuses it, and will go on refusing.
    #[error("the registry refuses the checkpoint: {0}")]
    Refused(String),
    /// What an earlier attempt kept cannot be read as this program's type, or not at all.
    #[error("the last checkpoint cannot be read: {0}")]
    Unreadable(String),
}

/// A checkpoint to be kept, and who waits for it.
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) value: Bytes,
    pub(crate) kept: oneshot::Sender<Result<(), ReportError>>,
}

/// The last checkpoint, as far as this attempt knows.
#[derive(Clone, Default)]
pub(crate) enum Last {
    #[default]
    None,
    Kept(Bytes),
    /// A record that this version cannot read.
    Unreadable(String),
}

/// The handler's side of its reports. Clones of a context share it.
pub(crate) struct Reports {
    progress: watch::Sender<Option<String>>,
    saves: mpsc::Sender<Save>,
    last: Arc<Mutex<Last>>,
}

/// The dispatcher's side.
pub(crate) struct Inbox {
    pub(crate) progress: watch::Receiver<Option<String>>,
    pub(crate) saves: mpsc::Receiver<Save>,
    pub(crate) last: Arc<Mutex<Last>>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reports") // what is reported may be secret
    }
}

impl Reports {
    /// Both sides, for an attempt that finds this checkpoint.
    pub(crate) fn of(last: Last) -> (Arc<Self>, Inbox) {
        let (progress, shown) = watch::channel(None);
        let (saves, saved) = mpsc::channel(1);
        let last = Arc::new(Mutex::new(last));
        let inbox = Inbox { progress: shown, saves: saved, last: Arc::clone(&last) };
        (Arc::new(Self { progress, saves, last }), inbox)
    }

    fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// As JSON, within its limit.
fn encoded<T: Serialize>(what: &'static str, value: &T, limit: usize) -> Result<String, ReportError> {
    let text = serde_json::to_string(value).map_err(|source| ReportError::Encode { what, source })?;
    if text.len() > limit {
        return Err(ReportError::TooLarge { what, bytes: text.len(), limit });
    }
    Ok(text)
}

impl TaskContext {
    /// Shows how far this attempt is, to whoever watches the task
    /// ([`TaskHandle::progress`](crate::TaskHandle::progress)).
    ///
    /// Never waits: the newest value is written, at most once a second, while the handler
    /// goes on. What is reported between two writes, or in the last second of an attempt,
    /// may not be seen by anybody. It is gone when the attempt ends.
    ///
    /// # Errors
    /// [`ReportError::TooLarge`] beyond 1 KiB of JSON, and [`ReportError::Encode`].
    pub fn progress<P: Serialize>(&self, progress: &P) -> Result<(), ReportError> {
        let text = encoded("the progress", progress, limits::PROGRESS)?;
        self.reports.progress.send_replace(Some(text));
        Ok(())
    }

    /// Keeps a value for the task's next attempt, in place of the one kept before.
    ///
    /// # Guarantees
    /// `Ok` means durable: the next attempt finds this value, or a later one of this
    /// attempt, whatever becomes of this worker. An attempt that lost its task keeps
    /// nothing. The value ends with the task; that of a singleton stays from run to run.
    ///
    /// A burst of ten is written at once; then this waits so that there is one a second.
    ///
    /// # Errors
    /// [`ReportError::TooLarge`] beyond 16 KiB of JSON, [`ReportError::Encode`], and
    /// [`ReportError::NotHeld`] once the task is no longer this attempt's: stop then. A
    /// registry that does not answer is no error: it is tried until the attempt ends.
    ///
    /// # Cancel safety
    /// A future that is dropped leaves open which of the two values is kept.
    pub async fn checkpoint<C: Serialize>(&self, value: &C) -> Result<(), ReportError> {
        let (save, kept) = self.save(value)?;
        self.reports.saves.send(save).await.map_err(|_| ReportError::NotHeld)?;
        kept.await.unwrap_or(Err(ReportError::NotHeld))
    }

    /// [`TaskContext::checkpoint`] for the plain functions of
    /// [`Tasks::with_blocking_fn`](crate::Tasks::with_blocking_fn). An `async` function awaits
    /// [`TaskContext::checkpoint`], also under `#[task(blocking = true)]`.
    ///
    /// # Errors
    /// As [`TaskContext::checkpoint`].
    ///
    /// # Panics
    /// In async code, that under `#[task(blocking = true)]` included.
    pub fn checkpoint_blocking<C: Serialize>(&self, value: &C) -> Result<(), ReportError> {
        let (save, kept) = self.save(value)?;
        self.reports.saves.blocking_send(save).map_err(|_| ReportError::NotHeld)?;
        kept.blocking_recv().unwrap_or(Err(ReportError::NotHeld))
    }

    fn save<C: Serialize>(
        &self,
        value: &C,
    ) -> Result<(Save, oneshot::Receiver<Result<(), ReportError>>), ReportError> {
        let value = encoded("the checkpoint", value, limits::CHECKPOINT)?;
        let (kept, answer) = oneshot::channel();
        Ok((Save { value: value.into(), kept }, answer))
    }

    /// The value kept last: by this attempt, or else by an earlier one. `None` if none
    /// was.
    ///
    /// # Errors
    /// [`ReportError::Unreadable`] if it is not what this program expects, such as that of
    /// a newer version of it. Whether to begin anew is yours to decide.
    pub fn last_checkpoint<C: DeserializeOwned>(&self) -> Result<Option<C>, ReportError> {
        match self.reports.last() {
            Last::None => Ok(None),
            Last::Kept(value) => {
                let read = serde_json::from_slice(&value);
                read.map(Some).map_err(|error| ReportError::Unreadable(error.to_string()))
            }
            Last::Unreadable(why) => Err(ReportError::Unreadable(why)),
        }
    }
}
