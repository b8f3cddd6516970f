//! The user's side of running a task: [`Worker`] and [`WorkerFactory`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::id::{AttemptId, DefinitionId, ResultSlot, TaskId, WorkerId};
use bellows_registry::record::Envelope;
use tokio_util::sync::CancellationToken;

use crate::definition::{PayloadOf, TaskDefinition};
use crate::envelope::trace::TraceParent;
use crate::outcome::TaskResult;
use crate::reports::Reports;

/// One attempt at one task.
///
/// A worker is built for each attempt and consumed by it: nothing leaks from one task to
/// the next.
pub trait Worker: Send + 'static {
    /// The kind of work it does.
    type Task: TaskDefinition;

    /// Does the work.
    ///
    /// # Guarantees
    /// At least once: after a crash or a lost lease a task runs again, with the same task
    /// id and another attempt id. At most one attempt's outcome is recorded.
    ///
    /// # Cancel safety
    /// When the time-out passes, the worker's lease is lost or its pod ends, the token of
    /// `context` fires, and after a short grace the future is dropped at its next `await`.
    fn process(
        self,
        context: TaskContext,
        payload: PayloadOf<Self::Task>,
    ) -> impl Future<Output = TaskResult<<Self::Task as TaskDefinition>::Callback>> + Send;
}

/// Builds a worker for each attempt. A closure is a factory.
pub trait WorkerFactory: Send + Sync + 'static {
    /// What it builds.
    type Worker: Worker;

    /// Builds the worker of one attempt.
    fn build(&self, worker_id: &WorkerId) -> Self::Worker;
}

impl<W: Worker, F: Fn(&WorkerId) -> W + Send + Sync + 'static> WorkerFactory for F {
    type Worker = W;

    fn build(&self, worker_id: &WorkerId) -> W {
        self(worker_id)
    }
}

/// What an attempt knows of itself.
#[derive(Debug, Clone)]
pub struct TaskContext {
    pub(crate) definition: DefinitionId,
    pub(crate) task: TaskId,
    pub(crate) slot: ResultSlot,
    pub(crate) attempt: AttemptId,
    pub(crate) number: u32,
    pub(crate) max_attempts: u32,
    pub(crate) worker: WorkerId,
    pub(crate) deadline: Instant,
    pub(crate) cancelled: CancellationToken,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) envelope: Envelope,
    pub(crate) trace: TraceParent,
    pub(crate) reports: Arc<Reports>,
}

impl TaskContext {
    /// The task: the same in every attempt. The key for your own idempotency.
    pub fn task_id(&self) -> TaskId {
        self.task
    }

    /// This attempt: another one each time.
    pub fn attempt_id(&self) -> AttemptId {
        self.attempt
    }

    /// The number of this attempt, from 1. Attempts that infrastructure ended are not
    /// counted.
    pub fn attempt(&self) -> u32 {
        self.number
    }

    /// The number of the last attempt there will be.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The worker that runs it.
    pub fn worker_id(&self) -> &WorkerId {
        &self.worker
    }

    /// When this attempt times out, by tokio's monotonic clock: for
    /// [`tokio::time::timeout_at`].
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time this attempt has left.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::instant())
    }

    /// Fires when the attempt should stop: time-out, lost lease, or the end of the pod.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Whether this worker still holds the task, as far as is known. What a handler does
    /// after this became `false` may be done again elsewhere.
    pub fn is_held(&self) -> bool {
        !self.cancelled.is_cancelled()
    }

    /// The payload's version as it was published; what the handler is given is of its own
    /// definition's.
    pub fn payload_version(&self) -> u32 {
        self.envelope.version
    }

    /// The payload's media type, as the publisher gave it.
    pub fn content_type(&self) -> &str {
        self.envelope.content_type()
    }

    /// This attempt's place in its trace: what to send as `traceparent` to others whom the
    /// handler asks. Tasks that the handler itself publishes carry it already; what it
    /// spawns does not know it, and is given it by [`Publish::traceparent`].
    ///
    /// [`Publish::traceparent`]: crate::Publish::traceparent
    pub fn traceparent(&self) -> TraceParent {
        self.trace
    }

    /// What the publisher attached, and its `traceparent`.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }
}
