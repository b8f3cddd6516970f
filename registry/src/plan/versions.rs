//! Tasks whose payload some versions of the worker could not read: they are kept for other
//! versions, for a while.
//!
//! During a roll-out a task of the new version may come to a worker of the old one. Rather
//! than to fail there again and again, it waits for a worker that may know better; and if
//! none comes in time, whoever gets it parks it.

use std::time::Duration;

use tokio::time::Instant;

use crate::record::WorkerRecord;
use crate::view::Task;

/// How long a task waits for a worker of another version.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The versions that a task is not given to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Avoided<'a> {
    versions: &'a [String],
    until: Option<Instant>,
}

impl<'a> Avoided<'a> {
    pub(super) fn of(task: &'a Task, now: Instant) -> Self {
        let tried = task.undecodable_by();
        let until = task.due().filter(|_| !tried.is_empty()).map(|due| due + PATIENCE);
        match until.filter(|until| now < *until) {
            Some(until) => Self { versions: tried, until: Some(until) },
            None => Self { versions: &[], until: None },
        }
    }

    /// Whether any worker will do.
    pub(super) fn is_none(&self) -> bool {
        self.versions.is_empty()
    }

    /// Whether a worker may be able to read it. One that does not say its version may.
    pub(super) fn allows(&self, worker: &WorkerRecord) -> bool {
        worker.version.as_ref().is_none_or(|version| !self.versions.contains(version))
    }

    /// When any worker will do.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}
