//! The embedded backend keeps every promise of the waist, and its own: what was
//! acknowledged is there when the file is opened again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_registry::backend::embedded::{EmbeddedBackend, EmbeddedConfig, OpenError};
use bellows_registry::backend::memory::{MemoryBackend, MemoryConfig};
use bellows_registry::backend::{
    Backend, BackendError, Change, Entry, Op, PutLease, RangeRequest, Revision, Txn, TxnAnswer, WatchRequest,
};
use bellows_registry::key::KeyRange;
use bellows_registry::testkit::{Fault, Faulty, conformance, script};
use bytes::Bytes;
use futures::StreamExt;
use tempfile::TempDir;

mod judge;
use judge::judge;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// Where syncing costs nothing, if there is such a place.
    fn quick() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self(tempfile::tempdir_in(memory).unwrap()) } else { Self::new() }
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tasks.redb")
    }
}

async fn open(path: &Path) -> EmbeddedBackend {
    EmbeddedBackend::open(path).await.unwrap()
}

fn all() -> KeyRange {
    KeyRange::prefix("k")
}

async fn put(backend: &EmbeddedBackend, key: &str, value: &str, lease: PutLease) -> TxnAnswer {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    let txn = Txn { then: vec![Op::Put { key, value, lease }], ..Txn::default() };
    backend.txn(txn).await.unwrap()
}

async fn entries(backend: &EmbeddedBackend) -> (Revision, Vec<Entry>) {
    let found = backend.range(RangeRequest::new(all())).await.unwrap();
    (found.revision, found.entries)
}

async fn first_told(backend: &EmbeddedBackend, from: Revision) -> Result<Vec<Change>, BackendError> {
    let mut watch = backend.watch(WatchRequest { range: all(), from }).await?;
    let told = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap()?;
    Ok(told.changes)
}

#[tokio::test(start_paused = true)]
async fn embedded_keeps_every_promise_of_the_waist() {
    let folder = Folder::new();
    let report = conformance::run(&open(&folder.file()).await, "embedded").await;
    judge(&report);
}

#[tokio::test(start_paused = true)]
async fn a_faulty_embedded_backend_without_faults_keeps_every_promise() {
    let folder = Folder::quick();
    let report =
        conformance::run(&Faulty::new(open(&folder.file()).await, 1), "embedded behind faults").await;
    judge(&report);
}

#[tokio::test(start_paused = true)]
async fn embedded_answers_a_script_as_memory_does() {
    let folder = Folder::quick();
    let summary = script::run(&MemoryBackend::new(), &open(&folder.file()).await, 2, 3_000).await.unwrap();
    println!("{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_script_finds_an_embedded_backend_that_answers_otherwise() {
    let folder = Folder::quick();
    let faulty = Faulty::new(open(&folder.file()).await, 1);
    faulty.next_txn(|_| true, Fault::Refuse);
    script::run(&MemoryBackend::new(), &faulty, 1, 1_000).await.unwrap_err();
}

#[tokio::test]
async fn keys_values_and_revisions_are_there_when_it_is_opened_again() {
    let folder = Folder::new();
    let backend = open(&folder.file()).await;
    put(&backend, "k1", "one", PutLease::None).await;
    put(&backend, "k2", "two", PutLease::None).await;
    put(&backend, "k1", "one again", PutLease::None).await;
    put(&backend, "k3", "", PutLease::None).await;
    let gone = Txn { then: vec![Op::Delete(KeyRange::one("k2".into()))], ..Txn::default() };
    backend.txn(gone).await.unwrap();
    let (revision, before) = entries(&backend).await;
    drop(backend);
    let backend = open(&folder.file()).await;
    let (opened, after) = entries(&backend).await;
    assert_eq!(before, after);
    assert_eq!(after.iter().map(|entry| &*entry.value).collect::<Vec<_>>(), [&b"one again"[..], b""]);
    assert_eq!(opened, revision + 1, "an opening takes a revision of its own");
    assert_eq!(put(&backend, "k4", "", PutLease::None).await.revision, opened + 1);
}

#[tokio::test]
async fn what_hung_on_leases_vanishes_as_changes_of_the_opening() {
    let folder = Folder::new();
    let backend = open(&folder.file()).await;
    let lease = backend.grant(Duration::from_secs(60)).await.unwrap();
    put(&backend, "k-worker", "alive", PutLease::On(lease.id)).await;
    let last = put(&backend, "k-task", "", PutLease::None).await.revision;
    drop(backend);
    let backend = open(&folder.file()).await;
    let (revision, left) = entries(&backend).await;
    assert_eq!(left.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), [b"k-task"]);
    let deleted = Change::Delete { key: Bytes::from("k-worker"), revision };
    assert_eq!(first_told(&backend, last + 1).await.unwrap(), [deleted]);
    // The old lease is over, and its id is not somebody else's.
    let new = backend.grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(new.id, lease.id);
    assert!(matches!(backend.keep_alive(lease.id).await.unwrap_err(), BackendError::LeaseLost(_)));
}

#[tokio::test]
async fn history_begins_at_the_opening() {
    let folder = Folder::new();
    let backend = open(&folder.file()).await;
    let last = put(&backend, "k1", "", PutLease::None).await.revision;
    drop(backend);
    let backend = open(&folder.file()).await;
    let from_before = first_told(&backend, last).await.unwrap_err();
    assert!(matches!(from_before, BackendError::Compacted(first) if first == last + 1), "{from_before}");
    let at = RangeRequest { revision: Some(last), ..RangeRequest::new(all()) };
    assert!(matches!(backend.range(at).await.unwrap_err(), BackendError::Compacted(_)));
    let here = RangeRequest { revision: Some(last + 1), ..RangeRequest::new(all()) };
    assert_eq!(backend.range(here).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_open_is_refused_by_name() {
    let folder = Folder::new();
    let _first = open(&folder.file()).await;
    let config = EmbeddedConfig { patience: Duration::ZERO, ..EmbeddedConfig::default() };
    let refused = EmbeddedBackend::open_with(folder.file(), config).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("tasks.redb is in use: another process"), "{refused}");
}

#[tokio::test]
async fn an_opening_waits_for_a_predecessor_that_is_just_ending() {
    let folder = Folder::new();
    let first = open(&folder.file()).await;
    let (path, ending) = (folder.file(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(first);
    });
    let config = EmbeddedConfig { patience: Duration::from_secs(10), ..EmbeddedConfig::default() };
    let (second, ()) = tokio::join!(EmbeddedBackend::open_with(path, config), ending);
    second.unwrap();
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let text = "Dear diary, today I learnt about queues. ".repeat(1000);
    std::fs::write(folder.file(), &text).unwrap();
    let refused = EmbeddedBackend::open(folder.file()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);

    let other = folder.0.path().join("other.redb");
    let database = redb::Database::create(&other).unwrap();
    let txn = database.begin_write().unwrap();
    let table: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("numbers");
    txn.open_table(table).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(database);
    let refused = EmbeddedBackend::open(&other).await.unwrap_err();
    assert!(refused.to_string().contains("a database of another program"), "{refused}");
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_told_by_name() {
    let folder = Folder::new();
    let refused = EmbeddedBackend::open(folder.0.path().join("nowhere/tasks.redb")).await.unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
    assert!(refused.to_string().contains("nowhere/tasks.redb cannot be opened"), "{refused}");
}

#[tokio::test]
async fn a_file_of_a_later_format_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    drop(open(&folder.file()).await);
    let meta: redb::TableDefinition<'_, &str, i64> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(folder.file()).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert("format", 2).unwrap();
    txn.commit().unwrap();
    drop(database);
    let refused = EmbeddedBackend::open(folder.file()).await.unwrap_err();
    assert!(refused.to_string().contains("its format is 2, not 1"), "{refused}");
}

/// Fills a file and closes it properly: the end of its own runtime waits for the thread
/// that writes, which may close the file last.
async fn filled(path: &Path) {
    let path = path.to_owned();
    let fill = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let backend = open(&path).await;
            for n in 0..200 {
                put(&backend, &format!("k{n}"), &"value".repeat(50), PutLease::None).await;
            }
        });
    };
    tokio::task::spawn_blocking(fill).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_a_clear_error() {
    let folder = Folder::new();
    filled(&folder.file()).await;
    let sound = std::fs::read(folder.file()).unwrap();
    let used: Vec<usize> = (0..sound.len() / 4096)
        .filter(|page| sound[page * 4096..(page + 1) * 4096].windows(5).any(|bytes| bytes == b"value"))
        .collect();
    assert!(used.len() > 5, "the file holds the values in {} pages", used.len());
    let mut refusals = 0;
    for page in used {
        let mut damaged = sound.clone();
        let at = page * 4096 + 2000;
        damaged[at..at + 16].fill(0xAA);
        let file = folder.file().with_extension(page.to_string());
        std::fs::write(&file, &damaged).unwrap();
        match EmbeddedBackend::open(&file).await {
            Err(refused) => {
                assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
                refusals += 1;
            }
            // A page that was in use earlier, and is free now.
            Ok(backend) => assert_eq!(entries(&backend).await.1.len(), 200),
        }
    }
    assert!(refusals > 0, "no page that matters was damaged");
}

#[tokio::test]
async fn a_file_cut_short_is_refused_with_a_clear_error() {
    let folder = Folder::new();
    filled(&folder.file()).await;
    let sound = std::fs::read(folder.file()).unwrap();
    for length in [1, 100, 4096, 5000, sound.len() / 2] {
        std::fs::write(folder.file(), &sound[..length]).unwrap();
        let refused = EmbeddedBackend::open(folder.file()).await.unwrap_err();
        let clear = matches!(refused, OpenError::Damaged { .. } | OpenError::Foreign { .. });
        assert!(clear, "at {length}: {refused:?}");
    }
}

#[tokio::test]
async fn the_file_does_not_grow_with_what_came_and_went() {
    let folder = Folder::new();
    let memory = MemoryConfig { history: 1000, ..MemoryConfig::default() };
    let config = EmbeddedConfig { memory, ..EmbeddedConfig::default() };
    let backend = EmbeddedBackend::open_with(folder.file(), config).await.unwrap();
    let mut sizes = Vec::new();
    for round in 0..20 {
        let puts = (0..100).map(|n| {
            put(
                &backend,
                match n % 2 {
                    0 => "k-even",
                    _ => "k-odd",
                },
                "x",
                PutLease::None,
            )
        });
        futures::future::join_all(puts).await;
        for n in 0..20 {
            put(&backend, &format!("k{n}"), &"x".repeat(10_000), PutLease::None).await;
        }
        let gone = Txn { then: vec![Op::Delete(all())], ..Txn::default() };
        backend.txn(gone).await.unwrap();
        sizes.push((round, std::fs::metadata(folder.file()).unwrap().len()));
    }
    let (early, late) = (sizes[4].1, sizes[19].1);
    assert!(late <= early * 2, "{sizes:?}");
}
