//! The embedded backend: memory, and one durable file that keeps it.
//!
//! One semantics, not a third: what a request does is decided by the in-memory store.
//! Here its effect is written to the file, and only then is anyone told: an answer, a
//! read and a watch all wait until the revision they show is on the disk.
//!
//! # Guarantees
//! As the trait asks, and across restarts: what was acknowledged is there again, under
//! the same revisions, and no revision or lease id that anyone was told of is used again.
//! Requests that wait together are written together, with one `fsync`.
//!
//! # What an opening does
//! Leases do not outlive the process: keys that hang on one (live workers) are deleted
//! by the opening, in one revision of its own. History begins there: reads and watches
//! from before it answer [`BackendError::Compacted`].
//!
//! # Assumptions
//! Everything fits into memory. `fsync` does what it says. One process at a time; a
//! second one is refused by the file's lock.
//!
//! # Errors
//! A write that fails (no space, a broken disk) makes the outcome unknown of everything
//! that waits for it, and of every later request: nothing more is told by this process,
//! since memory is ahead of the file. Opening the file again shows what was kept.

mod file;
mod journal;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use self::file::File;
use self::journal::Journal;
use super::memory::{MemoryBackend, MemoryConfig};
use super::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Revision, Txn, TxnAnswer, WatchRequest,
    WatchStream, limits,
};
use crate::clock;

/// What can be set of an [`EmbeddedBackend`].
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// As of the store in memory.
    pub memory: MemoryConfig,
    /// How long to wait for another process to close the file. Long enough for one that
    /// is just ending.
    pub patience: Duration,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { memory: MemoryConfig::default(), patience: Duration::from_secs(2) }
    }
}

/// Why a file could not be opened as a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it open.
    #[error(
        "{} is in use: another process (or another client in this one) has it open; \
         only one at a time can", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written there.
    #[error(
        "{} is damaged and was left as it is: restore it from a backup, or move it away \
         to begin with an empty registry", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: Source,
    },
    /// It was written by something else, or by a later version.
    #[error("{} is not a registry of this version of Bellows: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: String,
    },
    /// The system refuses.
    #[error("{} cannot be opened", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: Source,
    },
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A registry in one file. Clones share it; the file is closed with the last of them and
/// of their watches.
#[derive(Clone)]
pub struct EmbeddedBackend {
    memory: MemoryBackend,
    journal: Arc<Journal>,
}

impl fmt::Debug for EmbeddedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBackend").field("path", &self.journal.path()).finish_non_exhaustive()
    }
}

/// How long to wait before asking again for a file that is in use.
const RETRY: Duration = Duration::from_millis(20);

impl EmbeddedBackend {
    /// Opens a file, or makes it (readable by its owner only; the folder must exist).
    /// Reads all of it and checks every page.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that cannot be opened is left as it is.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the file locked for as long as reading it takes.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, EmbeddedConfig::default()).await
    }

    /// As [`EmbeddedBackend::open`], set up.
    pub async fn open_with(path: impl AsRef<Path>, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let give_up = clock::instant() + config.patience;
        loop {
            let again = path.clone();
            match Self::blocking(&path, move || File::open(&again)).await {
                Err(OpenError::InUse { .. }) if clock::instant() < give_up => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
                Ok((file, kept)) => return Ok(Self::over(file, kept, config.memory)),
            }
        }
    }

    /// Opening reads the disk, and a library may panic over a damaged one.
    async fn blocking<T: Send + 'static>(
        path: &Path,
        open: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
    ) -> Result<T, OpenError> {
        tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| {
            Err(OpenError::Damaged { path: path.to_owned(), source: Box::new(error) })
        })
    }

    fn over(file: File, kept: super::memory::Kept, config: MemoryConfig) -> Self {
        let newest = watch::Sender::new(kept.revision);
        let journal = Journal::new(file, newest.clone());
        let keeper = journal::Handle::new(&journal);
        Self { memory: MemoryBackend::kept(kept, newest, Arc::new(keeper), config), journal }
    }

    /// Forgets history before `revision`: older reads and watches then answer
    /// [`BackendError::Compacted`]. The file holds no history.
    pub fn compact(&self, revision: Revision) -> Result<(), BackendError> {
        self.memory.compact(revision)
    }

    /// The newest revision that is kept.
    pub fn revision(&self) -> Revision {
        self.journal.revision()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.journal.path()
    }

    /// Waits until a revision is on the disk: then it may be told.
    async fn kept(&self, revision: Revision) -> Result<(), BackendError> {
        let waiting = tokio::time::timeout(limits::REQUEST_TIMEOUT, self.journal.kept(revision));
        waiting.await.unwrap_or_else(|_| {
            let path = self.path().display();
            Err(BackendError::unknown(format!("{path} was not written in time")))
        })
    }
}

impl Backend for EmbeddedBackend {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        async move {
            self.journal.usable()?;
            let answer = self.memory.range(request).await?;
            self.kept(answer.revision).await?;
            Ok(answer)
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        async move {
            self.journal.room().await?;
            let answer = self.memory.txn(txn).await?;
            // Also where it wrote nothing: it may have seen what is not yet kept.
            self.kept(answer.revision).await?;
            Ok(answer)
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        async move {
            self.journal.usable()?;
            self.memory.watch(request).await
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        async move {
            self.journal.usable()?;
            self.memory.grant(ttl).await
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        async move {
            self.journal.usable()?;
            self.memory.keep_alive(lease).await
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            self.journal.room().await?;
            self.memory.revoke(lease).await?;
            self.kept(self.memory.revision()).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
