//! What only memory promises; the rest is in the conformance suite.

use bytes::Bytes;

use super::*;
use crate::backend::{Change, Changes, Op, PutLease};
use crate::key::KeyRange;

fn put(key: &str, lease: PutLease) -> Op {
    Op::Put { key: Bytes::from(key.to_owned()), value: Bytes::from_static(b"v"), lease }
}

async fn write(backend: &MemoryBackend, key: &str, lease: PutLease) -> Revision {
    let txn = Txn { then: vec![put(key, lease)], ..Txn::default() };
    backend.txn(txn).await.unwrap().revision
}

async fn watch_all(backend: &MemoryBackend, from: Revision) -> WatchStream {
    backend.watch(WatchRequest { range: KeyRange::prefix("k"), from }).await.unwrap()
}

async fn next(stream: &mut WatchStream) -> Result<Changes, BackendError> {
    tokio::time::timeout(Duration::from_secs(60), stream.next()).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_of_an_expiry_though_nobody_calls() {
    let backend = MemoryBackend::new();
    let lease = backend.grant(Duration::from_secs(5)).await.unwrap();
    write(&backend, "k1", PutLease::On(lease.id)).await;
    write(&backend, "k2", PutLease::On(lease.id)).await;
    let mut stream = watch_all(&backend, 4).await;
    let start = clock::instant();
    let told = next(&mut stream).await.unwrap();
    assert_eq!(clock::instant() - start, Duration::from_secs(5));
    assert_eq!(told.complete, 4);
    assert!(told.changes.iter().all(|change| matches!(change, Change::Delete { revision: 4, .. })));
    assert_eq!(told.changes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_lease_lives_on_and_an_ended_one_is_lost() {
    let backend = MemoryBackend::new();
    let lease = backend.grant(Duration::from_millis(2500)).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(3));
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(backend.keep_alive(lease.id).await.unwrap(), lease.ttl);
    }
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(matches!(backend.keep_alive(lease.id).await, Err(BackendError::LeaseLost(id)) if id == lease.id));
}

#[tokio::test]
async fn a_watcher_that_falls_behind_the_history_must_relist() {
    let backend = MemoryBackend::with_config(MemoryConfig { history: 10, ..MemoryConfig::default() });
    let mut stream = watch_all(&backend, 2).await;
    for n in 0..100 {
        write(&backend, &format!("k{}", n % 3), PutLease::None).await;
    }
    assert!(matches!(next(&mut stream).await, Err(BackendError::Compacted(_))));
    assert!(stream.next().await.is_none());
    let store = backend.shared.lock();
    assert!(store.remembered() <= 10 + 3, "{}", store.remembered());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_tells_how_far_it_is_complete() {
    let backend = MemoryBackend::new();
    let first = write(&backend, "k", PutLease::None).await;
    let mut stream = watch_all(&backend, first + 1).await;
    let other = write(&backend, "other", PutLease::None).await;
    let told = next(&mut stream).await.unwrap();
    assert_eq!(told, Changes { complete: other, changes: Vec::new() });
}

#[tokio::test]
async fn compacting_forgets_deleted_keys_and_keeps_live_ones() {
    let backend = MemoryBackend::new();
    write(&backend, "k1", PutLease::None).await;
    let old = write(&backend, "k2", PutLease::None).await;
    let gone = Txn { then: vec![Op::Delete(KeyRange::one(Bytes::from("k1")))], ..Txn::default() };
    let newest = backend.txn(gone).await.unwrap().revision;
    backend.compact(newest).unwrap();
    let mut request = RangeRequest::new(KeyRange::prefix("k"));
    assert_eq!(backend.range(request.clone()).await.unwrap().entries.len(), 1);
    request.revision = Some(old);
    assert!(matches!(backend.range(request).await, Err(BackendError::Compacted(at)) if at == newest));
}
