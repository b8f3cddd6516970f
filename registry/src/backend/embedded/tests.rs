//! What only a file promises, on a disk that can fail: nothing acknowledged is lost when
//! the power goes, and nothing is told after a write failed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use redb::StorageBackend;

use super::*;
use crate::backend::{Change, Op, PutLease};
use crate::entropy::Entropy;
use crate::key::KeyRange;

/// A disk in memory that knows what is synced, and whose power can go.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync: any of them may reach the disk before the power goes.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// No byte fits any more.
    full: bool,
    /// Syncs fail.
    broken: bool,
    syncs: u64,
}

impl Disk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What is on the disk if the power goes now: what is synced, and any part of the rest.
    fn after_power_cut(&self, entropy: &Entropy) -> Self {
        let state = self.state();
        let mut left = state.synced.clone();
        left.resize(state.now.len().max(left.len()), 0);
        for (at, data) in &state.unsynced {
            for (sector, bytes) in data.chunks(512).enumerate() {
                if entropy.bits64().is_multiple_of(2) {
                    let at = at + sector * 512;
                    left[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        let state = State { now: left.clone(), synced: left, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let found = state.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.now.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(io::Error::other("the disk is gone"));
        }
        state.syncs += 1;
        state.synced = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.now[at..at + data.len()].copy_from_slice(data);
        state.unsynced.push((at, data.to_vec()));
        Ok(())
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<(), redb::BackendError> {
        Ok(())
    }
}

fn open(disk: &Disk) -> EmbeddedBackend {
    let (file, kept) = File::open_on(disk.clone(), Path::new("disk.redb")).unwrap();
    EmbeddedBackend::over(file, kept, MemoryConfig::default())
}

fn put(key: &str, value: u64) -> Txn {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_string()));
    Txn { then: vec![Op::Put { key, value, lease: PutLease::None }], ..Txn::default() }
}

async fn values(backend: &EmbeddedBackend) -> BTreeMap<String, u64> {
    let found = backend.range(RangeRequest::new(KeyRange::prefix("k"))).await.unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    found.entries.iter().map(|entry| (text(&entry.key), text(&entry.value).parse().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_or_told_is_lost_when_the_power_goes() {
    for seed in 0..40 {
        let entropy = Entropy::seeded(seed);
        let disk = Disk::default();
        let backend = open(&disk);
        // What was answered to writers, and what a watch has told.
        let known = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (backend, known) = (backend.clone(), Arc::clone(&known));
            writers.spawn(async move {
                for count in 1.. {
                    let key = format!("k{writer}");
                    backend.txn(put(&key, count)).await.unwrap();
                    let mut known = known.lock().unwrap();
                    let value = known.entry(key).or_default();
                    *value = count.max(*value);
                }
            });
        }
        let mut watch = backend
            .watch(WatchRequest { range: KeyRange::prefix("k"), from: backend.revision() + 1 })
            .await
            .unwrap();
        let mut told = 0;
        while told < 50 + entropy.bits64() % 100 {
            for change in watch.next().await.unwrap().unwrap().changes {
                let Change::Put(entry) = change else { panic!("nothing was deleted") };
                let count = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let key = String::from_utf8(entry.key.to_vec()).unwrap();
                let mut known = known.lock().unwrap();
                let value = known.entry(key).or_default();
                *value = (*value).max(count);
                told += 1;
            }
        }
        // In this order: what is known now was on the disk before the power went.
        let known = known.lock().unwrap().clone();
        let left = disk.after_power_cut(&entropy);
        writers.shutdown().await;
        let after = values(&open(&left)).await;
        for (key, value) in known {
            assert!(after.get(&key).is_some_and(|found| *found >= value), "seed {seed}: {key} of {after:?}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_makes_outcomes_unknown_and_is_told_by_name() {
    let disk = Disk::default();
    let backend = open(&disk);
    backend.txn(put("k1", 1)).await.unwrap();
    let mut watch = backend
        .watch(WatchRequest { range: KeyRange::prefix("k"), from: backend.revision() + 1 })
        .await
        .unwrap();
    disk.state().full = true;
    let unknown = backend.txn(put("k1", 2)).await.unwrap_err();
    assert_eq!(unknown.class(), crate::backend::Class::Unknown);
    assert!(unknown.to_string().contains("disk.redb cannot be written any more"), "{unknown}");
    // What is only in memory is not told, by no way.
    watch.next().await.unwrap().unwrap_err();
    backend.range(RangeRequest::new(KeyRange::prefix("k"))).await.unwrap_err();
    // Space alone does not help: memory is ahead of the file.
    disk.state().full = false;
    backend.txn(put("k1", 3)).await.unwrap_err();
    backend.keep_alive(LeaseId(1)).await.unwrap_err();
    drop((backend, watch));
    assert_eq!(values(&open(&disk)).await, BTreeMap::from([("k1".to_owned(), 1)]));
}

#[tokio::test]
async fn a_sync_that_fails_acknowledges_nothing() {
    let disk = Disk::default();
    let backend = open(&disk);
    backend.txn(put("k1", 1)).await.unwrap();
    disk.state().broken = true;
    let all = futures::future::join_all((2..10).map(|n| backend.txn(put("k1", n)))).await;
    assert!(all.iter().all(Result::is_err));
    let left = disk.after_power_cut(&Entropy::seeded(1));
    assert!(values(&open(&left)).await["k1"] >= 1);
}

#[tokio::test]
async fn requests_that_wait_together_share_a_sync() {
    let disk = Disk::default();
    let backend = open(&disk);
    let before = disk.state().syncs;
    let all = futures::future::join_all((0..500).map(|n| backend.txn(put(&format!("k{n}"), n)))).await;
    assert!(all.iter().all(Result::is_ok));
    let syncs = disk.state().syncs - before;
    assert!(syncs < 50, "{syncs} syncs for 500 transactions");
}
