//! A lock between processes, kept on a file that is removed again with the lock.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{IoContext, Result};

/// Held from its creation to its drop; the kernel frees it when the process dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    _held: Flock<File>,
}

impl FileLock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        loop {
            let file = open(path)?;
            let held = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .context(|| format!("lock {}", path.display()))?;
            if is_current(&held, path) {
                return Ok(Self { path: path.to_owned(), _held: held });
            }
        }
    }

    /// Takes the lock when nobody holds it.
    pub(crate) fn try_now(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) if is_current(&held, path) => Ok(Some(Self { path: path.to_owned(), _held: held })),
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed while still held: a waiter that then gets the old file sees that it is no longer the current one.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options.open(path).context(|| format!("open {}", path.display()))
}

fn is_current(held: &File, path: &Path) -> bool {
    match (held.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}
