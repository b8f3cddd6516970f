//! Sends how an attempt ended until an answer says what became of it.
//!
//! What is written is decided in [`super::ending`], and whether it counts by its fence.

use std::time::Duration;

use bellows_registry::backend::coalesce::{Writer, Written};
use bellows_registry::backend::{BackendError, Class};
use bellows_registry::backoff::Waits;
use bellows_registry::clock;
use bellows_registry::txn::{AttemptRef, Settled, closed_target};
use tokio::sync::watch;
use tokio::time::sleep;

use super::attempt::{Stage, Stop};
use super::ending::{Attempt, End, Ending};

/// An outcome is sent for so long once its assignment is over, as far as this worker knows:
/// it may have been recorded by an earlier try that nobody answered. While the assignment
/// stands nobody else has the task, and there is no end to it but that of the drain.
const PATIENCE: Duration = Duration::from_secs(600);

/// Writes how an attempt ended. A success whose follow-up tasks are not taken is none: then
/// the attempt failed.
pub(super) async fn record_end(
    stage: &Stage,
    attempt: &Attempt<'_>,
    end: End,
    stop: &watch::Receiver<Stop>,
) -> (Ending, &'static str) {
    let ending = attempt.end(&stage.space, end);
    match send(&stage.writer, &ending, attempt.at, stop).await {
        Ok(recorded) => (ending, recorded),
        Err(text) => {
            let ending = attempt.end(&stage.space, End::FollowUpRefused(text));
            let recorded = send(&stage.writer, &ending, attempt.at, stop).await;
            (ending, recorded.unwrap_or("no: refused"))
        }
    }
}

/// Sends an outcome until an answer says what became of it: the fence decides, not we.
/// Fails with the reason if a task that it publishes is not taken: then nothing is written.
async fn send(
    writer: &Writer,
    ending: &Ending,
    at: &AttemptRef,
    stop: &watch::Receiver<Stop>,
) -> Result<&'static str, String> {
    let mut over_since = None;
    let mut waits = Waits::spread_by(at.attempt.to_string().as_bytes());
    let mut unanswered = false;
    loop {
        let error = match writer.send(ending.row.clone()).await {
            Ok(Written::Answer(answer)) => {
                if let Some(target) = closed_target(&answer, at.attempt, &ending.follow_ups) {
                    return Err(format!(
                        "a follow-up task was not taken: {target} does not exist or takes no tasks now"
                    ));
                }
                return Ok(match Settled::of(&answer, at.attempt) {
                    Settled::Done | Settled::Already => "yes",
                    Settled::Fenced if unanswered => "at an earlier try, or not at all",
                    Settled::Fenced => "no: the task is no longer this worker's",
                });
            }
            Ok(Written::Deposed) => BackendError::unknown("an outcome has no outer fence"),
            Err(error) => error,
        };
        if error.class() == Class::Invalid && !ending.follow_ups.is_empty() && !unanswered {
            // This worker may not publish to their definition, for instance.
            return Err(format!("the registry refuses the follow-up tasks: {error}"));
        }
        if error.class() == Class::Invalid {
            tracing::error!(task = %at.task, %error, "the registry refuses an outcome");
            return Ok("no: refused");
        }
        unanswered |= error.class() != Class::NotApplied;
        if matches!(*stop.borrow(), Stop::Lost | Stop::Withdrawn)
            && clock::instant() >= *over_since.get_or_insert_with(clock::instant) + PATIENCE
        {
            tracing::error!(task = %at.task, %error, "an outcome is given up");
            return Ok("unknown");
        }
        sleep(waits.after_failure()).await;
    }
}
