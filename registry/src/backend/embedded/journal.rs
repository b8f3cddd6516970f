//! The way of revisions to the file: a queue, and one writer at a time that takes all
//! of it at once.
//!
//! The writer is a blocking job that ends when the queue is empty, so there is no task
//! to own, and under paused time the clock stands still while it writes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::file::File;
use crate::backend::memory::{Keeper, Made};
use crate::backend::{BackendError, Change, Revision};

/// Changes waiting for the disk, in bytes, from which on requests wait for it.
const FULL: usize = 32 * 1024 * 1024;

pub(super) struct Journal {
    path: PathBuf,
    file: File,
    queue: Mutex<Queue>,
    /// The newest revision that is on the disk.
    newest: watch::Sender<Revision>,
    /// Why nothing can be written any more.
    failed: OnceLock<String>,
}

#[derive(Default)]
struct Queue {
    made: Vec<Made>,
    bytes: usize,
    /// A writer is on its way, and will look at the queue once more before it ends.
    writing: bool,
}

impl Journal {
    pub(super) fn new(file: File, newest: watch::Sender<Revision>) -> Arc<Self> {
        let (path, failed) = (file.path().to_owned(), OnceLock::new());
        Arc::new(Self { path, file, queue: Mutex::default(), newest, failed })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn revision(&self) -> Revision {
        *self.newest.borrow()
    }

    /// An error once the file cannot be written any more.
    pub(super) fn usable(&self) -> Result<(), BackendError> {
        self.failed.get().map_or(Ok(()), |reason| Err(BackendError::unknown(reason)))
    }

    /// Waits until a revision is on the disk.
    pub(super) async fn kept(self: &Arc<Self>, revision: Revision) -> Result<(), BackendError> {
        self.until(|journal| journal.revision() >= revision).await
    }

    /// Waits while too much waits for the disk.
    pub(super) async fn room(self: &Arc<Self>) -> Result<(), BackendError> {
        self.usable()?;
        self.until(|journal| journal.queue().bytes < FULL).await
    }

    async fn until(self: &Arc<Self>, holds: impl Fn(&Self) -> bool) -> Result<(), BackendError> {
        let mut newest = self.newest.subscribe();
        loop {
            newest.mark_unchanged();
            if holds(self) {
                return Ok(());
            }
            self.usable()?;
            // The writer's runtime may have ended before the writer began.
            self.write_soon();
            // The sender is ours.
            let _ = newest.changed().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, made: Vec<Made>) {
        let mut queue = self.queue();
        queue.bytes += made.iter().flat_map(|(_, changes)| changes).map(bytes).sum::<usize>();
        queue.made.extend(made);
    }

    /// Starts a writer, unless there is one or there is nothing to write.
    fn write_soon(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut queue = self.queue();
        if queue.writing || queue.made.is_empty() {
            return;
        }
        queue.writing = true;
        drop(queue);
        let writer = Writer { journal: Arc::clone(self), state: State::Waiting };
        // Ends by itself, and tells by `newest` and `failed` what it did.
        drop(runtime.spawn_blocking(move || writer.run()));
    }

    /// Everything that waits; `None` if nothing does, and then no writer is under way.
    fn next(&self) -> Option<Vec<Made>> {
        let mut queue = self.queue();
        queue.bytes = 0;
        queue.writing = !queue.made.is_empty();
        queue.writing.then(|| std::mem::take(&mut queue.made))
    }

    fn fail(&self, why: impl std::fmt::Display) {
        let path = self.path.display();
        let reason = format!("{path} cannot be written any more: {why}; open it again to go on");
        tracing::error!(file = %path, error = %why, "the registry's file cannot be written any more");
        // The first reason is the one.
        let _ = self.failed.set(reason);
        // Wakes whoever waits.
        self.newest.send_modify(|_| {});
    }
}

fn bytes(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete { key, .. } => key.len(),
    }
}

/// A blocking job that writes until nothing waits.
struct Writer {
    journal: Arc<Journal>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Waiting,
    Writing,
    Done,
}

impl Writer {
    fn run(mut self) {
        self.state = State::Writing;
        while let Some(made) = self.journal.next() {
            let Some(last) = made.last().map(|(revision, _)| *revision) else { continue };
            if let Err(error) = self.journal.file.write(&made) {
                // `writing` stays: nobody tries again.
                self.journal.fail(error);
                break;
            }
            self.journal.newest.send_replace(last);
        }
        self.state = State::Done;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self.state {
            // The runtime ended first; whoever waits starts another.
            State::Waiting => self.journal.queue().writing = false,
            State::Writing => self.journal.fail("the writer panicked"),
            State::Done => {}
        }
    }
}

/// The journal as the store in memory knows it.
pub(super) struct Handle(Arc<Journal>);

impl Handle {
    pub(super) fn new(journal: &Arc<Journal>) -> Self {
        Self(Arc::clone(journal))
    }
}

impl Keeper for Handle {
    fn keep(&self, made: Vec<Made>) {
        if made.is_empty() || self.0.usable().is_err() {
            return;
        }
        self.0.take(made);
        self.0.write_soon();
    }

    fn usable(&self) -> Result<(), BackendError> {
        self.0.usable()
    }
}
