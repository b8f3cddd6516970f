//! How an attempt ends, as data.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellows_registry::clock::{self, WallMillis};

use crate::follow_up::Asked;

/// What [`Worker::process`](crate::Worker::process) returns.
pub type TaskResult<C> = Result<TaskSuccess<C>, TaskError>;

/// The attempt did its work.
#[derive(Debug)]
pub struct TaskSuccess<C> {
    pub(crate) callback: C,
    pub(crate) again: Option<Duration>,
    pub(crate) follow_ups: Vec<Asked>,
}

impl<C> TaskSuccess<C> {
    /// Done: the task succeeds with this result.
    pub fn done(callback: C) -> Self {
        Self { callback, again: None, follow_ups: Vec::new() }
    }

    /// Done for now. A singleton runs again after this time, but not sooner than after a
    /// second; for a published task it is the same as [`TaskSuccess::done`].
    pub fn run_again_after(callback: C, wait: Duration) -> Self {
        Self { callback, again: Some(wait), follow_ups: Vec::new() }
    }

    /// Done for now, and again at this time by the worker's clock; else as
    /// [`TaskSuccess::run_again_after`].
    pub fn run_again_at(callback: C, time: SystemTime) -> Self {
        Self::run_again_after(callback, until(time))
    }
}

impl<C> From<C> for TaskSuccess<C> {
    fn from(callback: C) -> Self {
        Self::done(callback)
    }
}

/// The attempt did not do its work, and what is to become of the task.
///
/// `?` on any error makes one that means *retry with the definition's back-off*. It
/// does not implement [`Error`] itself, so that a verdict survives `?`.
pub struct TaskError {
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
}

/// The other name of [`TaskError`], for those who build one on purpose.
pub type TaskFailure = TaskError;

/// What is to become of a task whose attempt did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Counts an attempt; again after the definition's back-off.
    Retry,
    /// Counts an attempt; again after this time.
    RetryAfter(Duration),
    /// Counts no attempt; again after this time.
    Snooze(Duration),
    /// Final: kept until a person replays it.
    Park,
    /// Final: nobody wants the result any more.
    Cancel,
}

impl Verdict {
    /// Whether it says more than that something went wrong.
    pub(crate) fn is_meant(self) -> bool {
        match self {
            Self::Retry | Self::RetryAfter(_) => false,
            Self::Snooze(_) | Self::Park | Self::Cancel => true,
        }
    }
}

impl TaskError {
    fn new(verdict: Verdict, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { verdict, text: chain(error.into().as_ref()) }
    }

    /// The attempt failed; try again after the definition's back-off.
    pub fn retry(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Retry, error)
    }

    /// The attempt failed; try again after this time.
    pub fn retry_after(wait: Duration, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::RetryAfter(wait), error)
    }

    /// The attempt failed; try again at this time by the worker's clock, at once if it has
    /// passed.
    pub fn retry_at(time: SystemTime, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::retry_after(until(time), error)
    }

    /// The attempt failed; try again at once. It counts: `maxAttempts` still bounds it.
    pub fn retry_immediately(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::RetryAfter(Duration::ZERO), error)
    }

    /// Not now: run again after this time, at most a year. Costs no attempt.
    ///
    /// A handler that snoozes for nothing does not spin: the first snooze of a task takes
    /// 10 ms at least, and the least doubles with each one, up to a second.
    pub fn snooze(wait: Duration) -> Self {
        Self { verdict: Verdict::Snooze(wait), text: "snoozed".to_owned() }
    }

    /// Not now: run again at this time by the worker's clock; else as
    /// [`TaskError::snooze`].
    pub fn snooze_until(time: SystemTime) -> Self {
        Self::snooze(until(time))
    }

    /// Give the task up: trying again cannot help. It is kept until a person replays it.
    pub fn park(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Park, error)
    }

    /// End the task without a result: it is no longer wanted.
    pub fn cancel(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Cancel, reason)
    }

    /// The error's text, with its causes.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.verdict, self.text)
    }
}

/// How long it is until this time, by this machine's clock; nothing if it has passed.
pub(crate) fn until(time: SystemTime) -> Duration {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMillis::default().plus(since_epoch).since(clock::wall())
}

/// An error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors repeat their cause in their own words already.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses() -> Result<u32, TaskError> {
        Ok("x".parse::<u32>()?)
    }

    fn with_context() -> Result<(), TaskError> {
        Err(anyhow::anyhow!("inner").context("outer"))?;
        Ok(())
    }

    fn keeps_a_verdict() -> Result<(), TaskError> {
        Err(TaskError::park("never"))?;
        Ok(())
    }

    #[test]
    fn a_question_mark_means_retry_and_keeps_the_whole_story() {
        assert_eq!(parses().unwrap_err().verdict, Verdict::Retry);
        assert_eq!(with_context().unwrap_err().text(), "outer: inner");
    }

    #[test]
    fn a_verdict_survives_a_question_mark() {
        assert_eq!(keeps_a_verdict().unwrap_err().verdict, Verdict::Park);
    }
}
