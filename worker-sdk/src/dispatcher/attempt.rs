//! One attempt: a straight line from the assignment to its answered outcome.
//!
//! One line is logged when it begins (`attempt began`) and one when it ends
//! (`attempt ended`; `attempt not begun` if it was handed back before), at level info:
//!
//! | field | meaning |
//! |---|---|
//! | `task`, `attempt`, `worker` | the ids |
//! | `number` | the number of the attempt, from 1 |
//! | `outcome` | as the label `outcome` of `bellows_worker_attempts_total` |
//! | `error` | the handler's own words, or ours; nothing of a payload that does not decode |
//! | `recorded` | whether the registry took the outcome: `yes`, or why not |
//! | `millis` | how long the handler took |

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::coalesce::Writer;
use bellows_registry::backend::{DynBackend, RangeRequest};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{AssignmentRecord, Cancellation, Record, TaskRecord};
use bellows_registry::txn::AttemptRef;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

#[cfg(feature = "object-store")]
use super::ending::Ending;
use super::ending::{Attempt, End};
use super::reporter::{self, Found, Reporter};
use super::sending::record_end;
use super::slots::{Occupied, Slots};
use crate::envelope::codec::About;
use crate::envelope::codecs::Codecs;
#[cfg(feature = "object-store")]
use crate::envelope::codecs::refers;
use crate::envelope::run as around;
use crate::envelope::trace::{self, TraceParent};
use crate::metrics::Metrics;
use crate::middleware::{self, Stack};
use crate::reports::Reports;
use crate::tasks::{Call, Kind, Ran};
use crate::worker::TaskContext;

/// Why an attempt is to stop before its handler has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is not.
    No,
    /// The worker ends: hand the task back.
    HandBack,
    /// The session is lost: hand nothing back; what is in hand already is sent (law 14).
    Lost,
    /// The assignment is gone: it is somebody else's task now.
    Withdrawn,
    /// Somebody asked to cancel the task.
    Cancelled,
}

/// A handler that was told to stop may take so long to do it.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What every attempt of a session shares.
pub(crate) struct Stage {
    pub(crate) backend: DynBackend,
    pub(crate) space: Keyspace,
    pub(crate) writer: Writer,
    pub(crate) kind: Kind,
    pub(crate) stack: Stack,
    pub(crate) slots: Arc<Slots>,
    /// Where handlers run: the user's runtime.
    pub(crate) users: Handle,
    pub(crate) max_body: usize,
    /// The version of this program, if it was told.
    pub(crate) version: Option<String>,
    pub(crate) codecs: Codecs,
    pub(crate) metrics: Metrics,
}

/// Runs one assigned task to its end.
pub(crate) async fn run(
    stage: Arc<Stage>,
    at: AttemptRef,
    record: AssignmentRecord,
    mut stop: watch::Receiver<Stop>,
) {
    let ready = tokio::select! {
        biased;
        stopped = stopped(&mut stop) => Err(stopped),
        ready = ready(&stage, &at, &record) => ready,
    };
    let Ready { payload, found, slot } = match ready {
        Ok(ready) => ready,
        Err(Stop::HandBack) => return end_unbegun(stage, at, record, End::HandedBack, &stop).await,
        Err(Stop::Cancelled) => {
            let end = End::Cancelled(Cancellation::NotRunning);
            return end_unbegun(stage, at, record, end, &stop).await;
        }
        Err(_) => return,
    };
    let started = clock::now();
    tracing::info!(
        task = %at.task, attempt = %at.attempt, number = record.number, worker = %at.worker,
        "attempt began"
    );
    stage.metrics.started(stage.kind.name);
    let (reports, inbox) = Reports::of(found.last.clone());
    let reporter = Reporter::new(&stage, &at, &record, inbox, &found);
    let running = Running { stage: &stage, at: &at, record: &record, slot, reports };
    let end = running.handle(payload.clone(), &mut stop, reporter).await;
    stage.metrics.ended(stage.kind.name);
    let now = clock::now();
    let attempt = Attempt {
        at: &at,
        record: &record,
        payload: &payload,
        started: started.wall,
        now: now.wall,
        max_body: stage.max_body,
        version: stage.version.as_deref(),
    };
    let took = now.instant - started.instant;
    let (outcome, error, recorded) = match end {
        Some(end) => {
            let (ending, recorded) = record_end(&stage, &attempt, end, &stop).await;
            #[cfg(feature = "object-store")]
            forget(&stage, &at, &record, &payload, &ending, recorded).await;
            (ending.word, ending.error, recorded)
        }
        None => ("abandoned", None, "no: the task is no longer this worker's"),
    };
    stage.metrics.outcome(stage.kind.name, outcome, took);
    tracing::info!(
        task = %at.task, attempt = %at.attempt, number = record.number, worker = %at.worker,
        outcome, error, recorded, millis = took.as_millis() as u64,
        "attempt ended"
    );
}

/// Deletes the object of a payload that nobody will read again. A parked task keeps its
/// own, for the replay.
#[cfg(feature = "object-store")]
async fn forget(
    stage: &Arc<Stage>,
    at: &AttemptRef,
    record: &AssignmentRecord,
    payload: &Bytes,
    ending: &Ending,
    recorded: &str,
) {
    let codecs = record.options.envelope().codecs.clone();
    let over = matches!(ending.word, "succeeded" | "cancelled") && recorded == "yes";
    if !over || !refers(&codecs) {
        return;
    }
    let (about, body) = (About::payload(&at.definition, at.task), payload.clone());
    let known = stage.codecs.clone();
    // On the user's runtime, where the store's connections are.
    let deleting = stage.users.spawn(async move { known.forget(&about, &codecs, &body).await });
    let _ = tokio::time::timeout(GRACE, AbortOnDropHandle::new(deleting)).await;
}

/// Ends an attempt that was never begun.
async fn end_unbegun(
    stage: Arc<Stage>,
    at: AttemptRef,
    record: AssignmentRecord,
    end: End,
    stop: &watch::Receiver<Stop>,
) {
    let now = clock::wall();
    let attempt = Attempt {
        at: &at,
        record: &record,
        payload: &Bytes::new(),
        started: now,
        now,
        max_body: stage.max_body,
        version: stage.version.as_deref(),
    };
    let (ending, recorded) = record_end(&stage, &attempt, end, stop).await;
    tracing::info!(
        task = %at.task, attempt = %at.attempt, number = record.number, worker = %at.worker,
        outcome = ending.word, recorded, millis = 0, "attempt not begun"
    );
}

/// What an attempt needs to begin.
struct Ready {
    payload: Bytes,
    found: Found,
    slot: Arc<Occupied>,
}

/// Waits for a slot, the payload, and what an earlier attempt kept. Answers why not, if not.
async fn ready(stage: &Arc<Stage>, at: &AttemptRef, record: &AssignmentRecord) -> Result<Ready, Stop> {
    // The assigner counts slots; these also count handlers that did not stop in time, and
    // are closed when the worker drains. Who was given a task before it heard of a stuck
    // slot gets it back.
    let slot = tokio::select! {
        biased;
        slot = stage.slots.take() => slot.ok_or(Stop::HandBack)?,
        () = stage.slots.any_stuck() => return Err(Stop::HandBack),
    };
    let payload = payload(stage, at, record).await.ok_or(Stop::Withdrawn)?;
    let found = if record.has_checkpoint { reporter::find(stage, at).await } else { Found::default() };
    Ok(Ready { payload, found, slot })
}

/// Waits until the attempt is to stop.
async fn stopped(stop: &mut watch::Receiver<Stop>) -> Stop {
    match stop.wait_for(|stop| *stop != Stop::No).await {
        Ok(stop) => *stop,
        Err(_) => Stop::Lost, // the dispatcher is gone
    }
}

/// The payload: in the assignment, or read from the task. `None` if the task is gone, or
/// of a newer format: then the assigner takes it back in time.
async fn payload(stage: &Stage, at: &AttemptRef, record: &AssignmentRecord) -> Option<Bytes> {
    if record.inline {
        return Some(record.payload.clone());
    }
    let path = stage.space.path(&Key::Task(at.definition.clone(), at.task));
    let mut waits = Waits::spread_by(&path);
    loop {
        match stage.backend.range(RangeRequest::new(KeyRange::one(path.clone()))).await {
            Ok(found) => {
                return match TaskRecord::decode(&found.entries.first()?.value) {
                    Ok(task) => Some(task.payload),
                    Err(error) => {
                        tracing::error!(task = %at.task, %error, "a task cannot be read");
                        None
                    }
                };
            }
            Err(error) => tracing::debug!(%error, task = %at.task, "the payload is read again"),
        }
        sleep(waits.after_failure()).await;
    }
}

/// An attempt whose handler runs.
struct Running<'a> {
    stage: &'a Arc<Stage>,
    at: &'a AttemptRef,
    record: &'a AssignmentRecord,
    slot: Arc<Occupied>,
    reports: Arc<Reports>,
}

impl Running<'_> {
    /// Runs the handler on the user's runtime, and writes what it reports. `None`: the task
    /// is no longer ours, and nothing is to be written.
    async fn handle(
        self,
        payload: Bytes,
        stop: &mut watch::Receiver<Stop>,
        reporter: Reporter<'_>,
    ) -> Option<End> {
        let deadline = clock::instant() + self.record.timeout.get();
        let cancelled = CancellationToken::new();
        let slot = Arc::clone(&self.slot);
        let parent = trace::parent(self.record, self.at.task);
        let own = parent.attempt(self.at.attempt);
        let span = trace::span(self.at, self.record, parent);
        let call = Call { context: self.context(deadline, cancelled.clone(), own), payload, slot };
        let (stack, codecs) = (self.stage.stack.clone(), self.stage.codecs.clone());
        let about = About::payload(&self.at.definition, self.at.task);
        let handler = around::run(codecs, stack, about, call, self.stage.max_body);
        let running = self.stage.users.spawn(trace::within(own, handler).instrument(span));
        // Whoever drops this attempt drops its handler.
        let mut running = AbortOnDropHandle::new(running);
        let mut reporting = std::pin::pin!(reporter.run());
        let stopped = tokio::select! {
            biased; // an outcome in hand comes first (law 14)
            ran = &mut running => return Some(self.ended(end_of(ran), &cancelled)),
            stop = stopped(stop) => Some(stop),
            () = sleep_until(deadline) => None,
            never = &mut reporting => match never {},
        };
        cancelled.cancel();
        let ran = tokio::select! {
            biased;
            ran = &mut running => Some(ran),
            () = sleep(GRACE) => None,
            never = &mut reporting => match never {}, // it may save what it has
        };
        if ran.is_none() {
            // Dropped at its next `await`, and its slot is stuck until then; a thread's,
            // until its code returns.
            running.abort();
            self.slot.stick();
        }
        match (stopped, ran) {
            // What ends the task for good is in hand: the cancel came too late.
            (Some(Stop::Cancelled), Some(Ok(ran))) if ran.is_final() => Some(End::Ran(ran)),
            (Some(Stop::Cancelled), Some(_)) => Some(End::Cancelled(Cancellation::Stopped)),
            (Some(Stop::Cancelled), None) => Some(End::Cancelled(Cancellation::Unstopped)),
            // An outcome in hand is sent, whatever happened meanwhile: its fence decides.
            (_, Some(Ok(ran))) if ran.is_meant() => Some(End::Ran(ran)),
            (None, _) => Some(End::TimedOut),
            // A handler that was told to stop and failed did not fail by itself.
            (Some(Stop::HandBack), _) => Some(End::HandedBack),
            (Some(_), _) => None,
        }
    }

    /// The attempt has ended. A layer may have left its handler behind, on a thread of its own:
    /// that is told to stop, and has the slot until it does.
    fn ended(&self, end: End, cancelled: &CancellationToken) -> End {
        cancelled.cancel();
        if Arc::strong_count(&self.slot) > 1 {
            self.slot.stick();
        }
        end
    }

    fn context(&self, deadline: Instant, cancelled: CancellationToken, trace: TraceParent) -> TaskContext {
        TaskContext {
            definition: self.at.definition.clone(),
            task: self.at.task,
            slot: self.record.slot,
            attempt: self.at.attempt,
            number: self.record.number,
            max_attempts: self.record.max_attempts,
            worker: self.at.worker.clone(),
            deadline,
            cancelled,
            headers: self.record.headers.clone(),
            envelope: self.record.options.envelope().clone(),
            trace,
            reports: Arc::clone(&self.reports),
        }
    }
}

fn end_of(ran: Result<Ran, JoinError>) -> End {
    match ran {
        Ok(ran) => End::Ran(ran),
        Err(error) if error.is_panic() => {
            // A layer's: the handler's is caught within.
            End::Panicked(middleware::said(&*error.into_panic()))
        }
        // The user's runtime is shutting down under us.
        Err(_) => End::HandedBack,
    }
}
