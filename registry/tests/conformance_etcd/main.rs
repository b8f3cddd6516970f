//! The etcd backend keeps every promise of the waist, on a real etcd; and memory
//! answers a random script as etcd does.
//!
//! A test that cannot have an etcd fails and says so.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{
    Backend, BackendError, Changes, Class, Op, PutLease, RangeRequest, Revision, Txn, WatchRequest,
    WatchStream,
};
use bellows_registry::key::KeyRange;
use bellows_registry::testkit::{conformance, script};
use bellows_testbed::{EtcdOptions, EtcdServer};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};

#[path = "../judge/mod.rs"]
mod judge;
mod members;
use judge::judge;

/// A real etcd in a folder of its own.
struct Member {
    server: EtcdServer,
    _folder: tempfile::TempDir,
}

impl Member {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = EtcdServer::start(folder.path());
        let server = server.unwrap_or_else(|error| panic!("this test needs a real etcd: {error}"));
        Self { server, _folder: folder }
    }

    fn backend(&self) -> EtcdBackend {
        EtcdBackend::new(EtcdConfig::new([self.client_url()])).unwrap()
    }
}

impl Deref for Member {
    type Target = EtcdServer;

    fn deref(&self) -> &EtcdServer {
        &self.server
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut EtcdServer {
        &mut self.server
    }
}

#[tokio::test]
async fn etcd_keeps_every_promise_of_the_waist() {
    let member = Member::start();
    let report = conformance::run(&member.backend(), "etcd").await;
    judge(&report);
}

#[tokio::test]
async fn memory_answers_a_random_script_as_etcd_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("BELLOWS_SEED").unwrap_or(0xbe110);
    let steps = number("BELLOWS_STEPS").unwrap_or(20_000);
    let member = Member::start();
    let steps = usize::try_from(steps).unwrap();
    match script::run(&MemoryBackend::new(), &member.backend(), seed, steps).await {
        Ok(summary) => println!("{summary}"),
        Err(difference) => panic!("{difference}"),
    }
}

fn anything() -> RangeRequest {
    RangeRequest::new(KeyRange::prefix("k"))
}

fn put(key: &str, value: Bytes) -> Op {
    Op::Put { key: Bytes::from(key.to_owned()), value, lease: PutLease::None }
}

async fn write(backend: &EtcdBackend, key: &str) -> Result<Revision, BackendError> {
    let then = vec![put(key, Bytes::from_static(b"v"))];
    Ok(backend.txn(Txn { then, ..Txn::default() }).await?.revision)
}

async fn next(watch: &mut WatchStream) -> Result<Changes, BackendError> {
    let item = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    item.expect("a watch told nothing").expect("a watch ended without an error")
}

#[tokio::test]
async fn a_page_too_large_for_memory_is_answered_in_part() {
    let member = Member::start();
    let backend = member.backend();
    let value = Bytes::from(vec![b'v'; 1_000_000]);
    for n in 0..70 {
        let then = vec![put(&format!("k{n:02}"), value.clone())];
        backend.txn(Txn { then, ..Txn::default() }).await.unwrap();
    }
    let page = |limit| RangeRequest { limit, ..anything() };
    for limit in [100, 70] {
        let part = backend.range(page(limit)).await.unwrap();
        assert!(part.more && part.entries.len() == limit / 4, "{} of {limit}", part.entries.len());
    }
    let whole = backend.range(page(60)).await.unwrap();
    assert!(whole.more && whole.entries.len() == 60);
    let error = backend.range(anything()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "all of it was asked for, and a part is not all: {error}");
}

#[tokio::test]
async fn a_silent_watch_tells_how_far_it_is_complete() {
    let member = Member::start();
    let mut config = EtcdConfig::new([member.client_url()]);
    config.progress = Duration::from_millis(100);
    let backend = EtcdBackend::new(config).unwrap();
    let from = write(&backend, "other").await.unwrap();
    let mut watch = backend.watch(WatchRequest { range: KeyRange::prefix("k"), from }).await.unwrap();
    let newest = write(&backend, "other").await.unwrap();
    loop {
        let told = next(&mut watch).await.unwrap();
        assert!(told.changes.is_empty() && told.complete <= newest);
        if told.complete == newest {
            break;
        }
    }
}

#[tokio::test]
async fn a_renewal_that_nobody_waited_for_does_not_answer_the_next_one() {
    let member = Member::start();
    let backend = member.backend();
    let lease = backend.grant(Duration::from_secs(30)).await.unwrap();
    backend.keep_alive(lease.id).await.unwrap();
    for _ in 0..20 {
        // Polled once, so that the request is on its way, and dropped.
        assert!(backend.keep_alive(lease.id).now_or_never().is_none());
    }
    backend.revoke(lease.id).await.unwrap();
    assert_eq!(backend.keep_alive(lease.id).await.unwrap_err().class(), Class::LeaseLost);
}

#[tokio::test]
async fn a_full_store_makes_puts_unknown_and_lets_deletes_through() {
    let folder = tempfile::tempdir().unwrap();
    let options = EtcdOptions::new().arg("--quota-backend-bytes=4194304");
    let member = EtcdServer::start_with(folder.path(), options)
        .unwrap_or_else(|error| panic!("this test needs a real etcd: {error}"));
    let backend = EtcdBackend::new(EtcdConfig::new([member.client_url()])).unwrap();
    let value = Bytes::from(vec![b'v'; 500_000]);
    let mut written = 0;
    let error = loop {
        let then = vec![put(&format!("k{written}"), value.clone())];
        match backend.txn(Txn { then, ..Txn::default() }).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the quota is not kept");
    };
    println!("full after {written} puts: {error}");
    assert_eq!(error.class(), Class::Unknown);
    let then = vec![Op::Delete(KeyRange::prefix("k"))];
    backend.txn(Txn { then, ..Txn::default() }).await.unwrap();
}

/// The facts that the assembling of whole revisions is built on, seen without it. If
/// this test fails after an update of etcd, read `backend/etcd/assemble.rs` again.
#[tokio::test]
async fn fragments_end_inside_a_revision_and_headers_run_ahead() {
    let member = Member::start();
    let backend = member.backend();
    let value = Bytes::from(vec![b'v'; 14_000]);
    let mut newest = 0;
    for _ in 0..4 {
        let then = (0..100).map(|n| put(&format!("k{n:03}"), value.clone())).collect();
        newest = backend.txn(Txn { then, ..Txn::default() }).await.unwrap().revision;
    }
    let (inside, ahead) = raw_watch(member.client_url(), "k", newest).await;
    println!("fragments that end inside a revision: {inside}; headers ahead of their changes: {ahead}");
    assert!(inside > 0 && ahead > 0);
    for _ in 0..1500 {
        newest = write(&backend, "many").await.unwrap();
    }
    let (_, ahead) = raw_watch(member.client_url(), "many", newest).await;
    assert!(ahead > 0, "a catch-up of 1500 revisions came with an honest header");
}

/// Reads a prefix from the beginning with the bare client; counts the messages that end
/// inside a revision, and those whose header names a revision not told yet.
async fn raw_watch(url: &str, prefix: &str, newest: Revision) -> (usize, usize) {
    let client = etcd_client::Client::connect([url], None).await.unwrap();
    let mut client = client.watch_client().max_decoding_message_size(64 << 20);
    let options = etcd_client::WatchOptions::new().with_prefix().with_start_revision(1).with_fragment();
    let mut watch = client.watch(prefix, Some(options)).await.unwrap();
    let (mut inside, mut ahead, mut fragment_end) = (0, 0, None);
    loop {
        let message = watch.message().await.unwrap().unwrap();
        let revisions: Vec<_> =
            message.events().iter().map(|event| event.kv().unwrap().mod_revision()).collect();
        let (Some(first), Some(last)) = (revisions.first(), revisions.last()) else { continue };
        inside += usize::from(fragment_end == Some(*first));
        ahead += usize::from(message.header().unwrap().revision() > *last);
        fragment_end = message.0.fragment.then_some(*last);
        if *last == newest && !message.0.fragment {
            return (inside, ahead);
        }
    }
}
