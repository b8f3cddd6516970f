//! The file: a redb database with the newest state of every key, and how far it goes.
//!
//! Blocking; called from blocking threads only. Knows nothing of queues and watchers.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableTable, StorageBackend, StorageError, Table, TableDefinition,
    WriteTransaction,
};

use super::OpenError;
use crate::backend::memory::{Kept, Made};
use crate::backend::{Change, Entry, Revision};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");

/// What is written in `META`.
const FORMAT: &str = "format";
const REVISION: &str = "revision";
/// Raised by each opening; the upper half of lease ids.
const OPENINGS: &str = "openings";

/// The format that this version reads and writes.
const VERSION: i64 = 1;

/// Pages kept in memory besides the entries themselves.
const CACHE: usize = 16 * 1024 * 1024;

pub(super) struct File {
    path: PathBuf,
    database: Database,
}

/// What went wrong while the open file was read or written.
pub(super) type Failure = redb::Error;

impl File {
    /// Opens or makes the file, and reads what it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), OpenError> {
        let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source: Box::new(source) };
        let new = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(io)?;
        let storage = FileBackend::new(file).map_err(|error| refused(path, error))?;
        let opened = Self::open_on(storage, path)?;
        if new && let Some(folder) = path.parent() {
            // A file whose name is not on the disk is lost with everything in it.
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(opened)
    }

    /// As [`File::open`], on any storage; `path` is its name.
    pub(super) fn open_on(storage: impl StorageBackend, path: &Path) -> Result<(Self, Kept), OpenError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(storage).map_err(|error| refused(path, error))?;
        let kept = begin(&database).map_err(|error| error.named(path))?;
        Ok((Self { path: path.to_owned(), database }, kept))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes revisions, all or none of them, and returns when they are on the disk.
    pub(super) fn write(&self, made: &[Made]) -> Result<(), Failure> {
        let txn = self.database.begin_write()?;
        {
            let mut entries = txn.open_table(ENTRIES)?;
            let mut meta = txn.open_table(META)?;
            for (revision, changes) in made {
                for change in changes {
                    apply(&mut entries, change)?;
                }
                meta.insert(REVISION, revision)?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

fn apply(entries: &mut Table<'_, &'static [u8], &'static [u8]>, change: &Change) -> Result<(), StorageError> {
    match change {
        Change::Put(entry) => entries.insert(entry.key.as_ref(), row(entry).as_slice())?,
        Change::Delete { key, .. } => entries.remove(key.as_ref())?,
    };
    Ok(())
}

/// Begins a life: takes a revision for it, in which everything goes that hung on leases.
fn begin(database: &Database) -> Result<Kept, Unread> {
    let txn = database.begin_write()?;
    let kept = begin_in(&txn)?;
    txn.commit()?;
    Ok(kept)
}

fn begin_in(txn: &WriteTransaction) -> Result<Kept, Unread> {
    let foreign = txn.list_tables()?.count() > 0;
    let mut meta = txn.open_table(META)?;
    let found =
        |name: &str| -> Result<Option<i64>, StorageError> { Ok(meta.get(name)?.map(|row| row.value())) };
    let revision = match (found(FORMAT)?, found(REVISION)?) {
        (None, None) if !foreign => 1, // as etcd's: the empty store is revision 1
        (Some(VERSION), Some(revision)) => revision + 1,
        (Some(format), _) => return Err(Unread::Foreign(format!("its format is {format}, not {VERSION}"))),
        (None, _) => return Err(Unread::Foreign("it is a database of another program".to_owned())),
    };
    let openings = found(OPENINGS)?.unwrap_or(0) + 1;
    let (mut entries, mut changes) = (Vec::new(), Vec::new());
    let mut table = txn.open_table(ENTRIES)?;
    for row in table.iter()? {
        let (key, value) = row?;
        let entry = read(key.value(), value.value())?;
        match entry.leased {
            true => changes.push(Change::Delete { key: entry.entry.key, revision }),
            false => entries.push(entry.entry),
        }
    }
    for change in &changes {
        apply(&mut table, change)?;
    }
    for (name, value) in [(FORMAT, VERSION), (REVISION, revision), (OPENINGS, openings)] {
        meta.insert(name, value)?;
    }
    Ok(Kept { revision, changes, entries, first_lease: (openings << 32) + 1 })
}

/// An entry as stored: whether it hangs on a lease, its revisions, its value.
fn row(entry: &Entry) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEAD + entry.value.len());
    row.push(u8::from(entry.lease.is_some()));
    row.extend_from_slice(&entry.create_revision.to_be_bytes());
    row.extend_from_slice(&entry.mod_revision.to_be_bytes());
    row.extend_from_slice(&entry.value);
    row
}

/// Bytes of a row before the value.
const HEAD: usize = 1 + 8 + 8;

struct Stored {
    entry: Entry,
    leased: bool,
}

fn read(key: &[u8], row: &[u8]) -> Result<Stored, Unread> {
    let short = || Unread::Damaged(format!("a row has {} bytes, fewer than {HEAD}", row.len()).into());
    let (leased, rest) = row.split_first().ok_or_else(short)?;
    let (create, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (modified, value) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let entry = Entry {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        create_revision: Revision::from_be_bytes(*create),
        mod_revision: Revision::from_be_bytes(*modified),
        lease: None,
    };
    Ok(Stored { entry, leased: *leased == 1 })
}

/// Why the contents could not be read.
enum Unread {
    Foreign(String),
    Damaged(super::Source),
    Io(super::Source),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        match error.into() {
            error @ redb::Error::Corrupted(_) => Self::Damaged(Box::new(error)),
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Foreign(error.to_string()),
            other => Self::Io(Box::new(other)),
        }
    }
}

impl Unread {
    fn named(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Foreign(problem) => OpenError::Foreign { path, problem },
            Self::Damaged(source) => OpenError::Damaged { path, source },
            Self::Io(source) => OpenError::Io { path, source },
        }
    }
}

/// Why the database did not open.
fn refused(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::UpgradeRequired(version) => {
            OpenError::Foreign { path, problem: format!("its file format is {version}") }
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            OpenError::Foreign { path, problem: error.to_string() }
        }
        DatabaseError::Storage(error @ StorageError::Corrupted(_)) => {
            OpenError::Damaged { path, source: Box::new(error) }
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, source: Box::new(error) }
        }
        other => OpenError::Io { path, source: Box::new(other) },
    }
}
