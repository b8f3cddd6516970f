//! What can go wrong for a publisher and a waiter, sorted by what they can do about it.

use std::time::Duration;

use bellows_registry::backend::BackendError;
use bellows_registry::id::{DefinitionId, IdError, TaskId};
use bellows_registry::record::{AttemptError, ChoiceError, DecodeError, Ended};

use crate::envelope::codec::CodecError;
use crate::envelope::codecs::SealError;
use crate::refs::RawTaskRef;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A variable of the environment is not set.
    #[error("{name} is not set: {hint}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What to set it to.
        hint: &'static str,
    },
    /// A variable of the environment has a value that means nothing.
    #[error("{name}={value:?} {problem}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A name is not allowed.
    #[error("{0}")]
    Name(#[from] IdError),
    /// The registry's file cannot be opened: it is in use, damaged or not ours.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    File(#[from] bellows_registry::backend::embedded::OpenError),
    /// The system gives this process no thread for the SDK's own loops.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// An option's value is not allowed.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The backend refuses its configuration.
    #[error("the registry cannot be used as configured")]
    Backend(#[source] BackendError),
}

/// An option whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value:?} is not allowed: use {limit}")]
pub struct OptionError {
    /// Which option.
    pub option: &'static str,
    /// Its value, cut to 80 characters.
    pub value: String,
    /// What is allowed.
    pub limit: String,
}

/// Why a publish did not return a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody has defined this kind of work.
    #[error("there is no task definition {0}: apply its TaskDefinition first, or check the namespace")]
    NoSuchDefinition(DefinitionId),
    /// The definition takes no tasks now.
    #[error("task definition {0} takes no tasks now: its spec.mode is HoldAndDrain, or it is being deleted")]
    NotAccepting(DefinitionId),
    /// Another task holds the unique key, and the publish was to
    /// [fail](crate::OnConflict::Fail) then. Nothing was written.
    #[error("task {holder} holds the unique key")]
    Conflict {
        /// The task that holds it.
        holder: RawTaskRef,
    },
    /// A priority, fairness key or weight out of its range. Nothing was sent.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// Something is larger than its limit. Nothing was sent.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// What: the payload, the headers.
        what: &'static str,
        /// How large it is, in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// An option's value is not allowed. Nothing was sent.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Something is not allowed. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// A codec failed, or the object store for large payloads. Nothing was published.
    #[error("the payload cannot be sealed: {0}")]
    Codec(CodecError),
    /// The payload does not serialize. Nothing was sent.
    #[error("the payload cannot be encoded as JSON")]
    Encode(#[source] serde_json::Error),
    /// The registry did not take the task in time. It was certainly not published.
    #[error(
        "the registry took nothing within {after:?}, and the task is not published: can it be reached, and has it room? (on a cluster: etcd at BELLOWS_ETCD_ENDPOINTS)"
    )]
    Unavailable {
        /// How long it was tried.
        after: Duration,
        /// The last answer.
        #[source]
        last: BackendError,
    },
    /// No answer within the time: the task may be published, or may be still. Ask for
    /// `task` later ([`TaskRef::from_raw`](crate::TaskRef::from_raw)), or publish it
    /// [again](crate::Publish::again): it is then the same task. With `replace_pending` or
    /// `debounce` publish it anew instead, without `again`: its key finds the pending task.
    #[error("no answer within {after:?}: task {task} may or may not be published")]
    Unknown {
        /// The task, if it is.
        task: RawTaskRef,
        /// How long it was tried.
        after: Duration,
        /// The last answer.
        #[source]
        last: BackendError,
    },
}

impl From<SealError> for PublishError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLarge { bytes, limit } => Self::TooLarge { what: "the payload", bytes, limit },
            SealError::Codec(error) => Self::Codec(error),
        }
    }
}

/// Why waiting for a task gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The task ended without a result.
    #[error("{0}")]
    Failed(TaskFailed),
    /// The task never existed, or ended longer ago than its record is kept.
    #[error("task {0} is not known: it never existed, or its record is past its retention")]
    NotFound(TaskId),
    /// The time given for waiting is over. The task goes on.
    #[error("the task did not end within {0:?}")]
    TimedOut(Duration),
    /// The result is not what this program expects.
    #[error("the result of task {task} cannot be read as this program's type")]
    Decode {
        /// The task.
        task: TaskId,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The progress of the task is not what this program expects.
    #[error("the progress of task {task} cannot be read as this program's type")]
    Progress {
        /// The task.
        task: TaskId,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The result cannot be opened: this program lacks a codec or a key.
    #[error("the result of task {task} cannot be opened: {error}")]
    Codec {
        /// The task.
        task: TaskId,
        /// Names what is missing.
        error: CodecError,
    },
    /// The task's record cannot be read.
    #[error("the record of task {task} cannot be read")]
    Record {
        /// The task.
        task: TaskId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The registry does not answer, and did not for as long as waiters are patient.
    #[error("the registry does not answer")]
    Unavailable(#[source] BackendError),
}

/// How a task ended that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailed {
    /// The task.
    pub task: TaskId,
    /// How it ended.
    pub ended: Ended,
    /// The number of its last attempt.
    pub attempts: u32,
    /// What went wrong, oldest first; the last few.
    pub errors: Vec<AttemptError>,
}

impl std::fmt::Display for TaskFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.ended {
            Ended::Succeeded => "succeeded",
            Ended::Parked => "was parked",
            Ended::Cancelled => "was cancelled",
            Ended::Expired => "expired",
        };
        write!(f, "task {} {how} after {} attempts", self.task, self.attempts)?;
        if let Some(last) = self.errors.last() {
            write!(f, ": {}", last.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for TaskFailed {}
