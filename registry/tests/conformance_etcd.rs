//! The etcd backend keeps every promise of the waist, on a real etcd; and memory
//! answers a random script as etcd does.
//!
//! A test that cannot have an etcd fails and says so.

use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{
    Backend, BackendError, Changes, Class, Op, PutLease, RangeRequest, Revision, Txn, WatchRequest,
    WatchStream,
};
use bellows_registry::clock;
use bellows_registry::key::KeyRange;
use bellows_registry::testkit::{conformance, script};
use bellows_testbed::{EtcdCluster, EtcdOptions, EtcdServer};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};

mod judge;
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

/// A URL of a port that was free a moment ago.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
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

fn impatient(endpoints: &[&str]) -> EtcdBackend {
    let mut config = EtcdConfig::new(endpoints.iter().copied());
    config.connect_timeout = Duration::from_millis(300);
    config.request_timeout = Duration::from_millis(600);
    EtcdBackend::new(config).unwrap()
}

/// The time-outs of [`impatient`], on a machine that is busy with something else.
const BOUND: Duration = Duration::from_secs(4);

/// Every call fails as unknown, within a bound.
async fn all_calls_end(backend: &EtcdBackend, bound: Duration) {
    let request = WatchRequest { range: KeyRange::prefix("k"), from: 1 };
    let lease = bellows_registry::backend::LeaseId(7);
    for call in 0..6 {
        let start = clock::instant();
        let failed = match call {
            0 => backend.range(anything()).await.map(|_| ()),
            1 => write(backend, "k").await.map(|_| ()),
            2 => backend.watch(request.clone()).await.map(|_| ()),
            3 => backend.grant(Duration::from_secs(5)).await.map(|_| ()),
            4 => backend.keep_alive(lease).await.map(|_| ()),
            _ => backend.revoke(lease).await,
        };
        let error = failed.expect_err("there is nobody to answer");
        assert_eq!(error.class(), Class::Unknown, "call {call}: {error}");
        assert!(start.elapsed() < bound, "call {call} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_member_that_is_not_there_is_an_error_and_no_hang() {
    let nobody = nobody();
    all_calls_end(&impatient(&[&nobody]), BOUND).await;
    // A listener that never answers: the connection opens, and then nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    all_calls_end(&impatient(&[&silent]), BOUND).await;
}

#[tokio::test]
async fn a_member_that_is_gone_is_passed_over() {
    let member = Member::start();
    let nobody = nobody();
    for _ in 0..8 {
        // Each begins at a member of its own choice. Whoever is gone refuses at once, whatever
        // the time-outs are.
        let backend = EtcdBackend::new(EtcdConfig::new([nobody.as_str(), member.client_url()])).unwrap();
        for _ in 0..5 {
            write(&backend, "k").await.unwrap();
            backend.grant(Duration::from_secs(5)).await.unwrap();
        }
        let mut watch = backend.watch(WatchRequest { range: KeyRange::prefix("k"), from: 1 }).await.unwrap();
        assert!(!next(&mut watch).await.unwrap().changes.is_empty());
    }
}

#[tokio::test]
async fn a_frozen_member_is_an_error_and_the_same_backend_works_when_it_thaws() {
    let member = Member::start();
    let backend = impatient(&[member.client_url()]);
    let (lease, _) = in_the_end(|| backend.grant(Duration::from_secs(60))).await;
    in_the_end(|| backend.keep_alive(lease.id)).await;
    in_the_end(|| write(&backend, "k")).await;
    member.pause().unwrap();
    all_calls_end(&backend, BOUND).await;
    let renewal = backend.keep_alive(lease.id).await.unwrap_err();
    assert_eq!(renewal.class(), Class::Unknown, "{renewal}");
    member.resume().unwrap();
    in_the_end(|| write(&backend, "k")).await;
    let (ttl, _) = in_the_end(|| backend.keep_alive(lease.id)).await;
    assert!(ttl >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_watch_of_a_frozen_member_ends() {
    let member = Member::start();
    let mut config = EtcdConfig::new([member.client_url()]);
    config.ping = (Duration::from_secs(1), Duration::from_millis(500));
    let backend = EtcdBackend::new(config).unwrap();
    let from = write(&backend, "k").await.unwrap();
    let mut watch = backend.watch(WatchRequest { range: KeyRange::prefix("k"), from }).await.unwrap();
    next(&mut watch).await.unwrap();
    member.pause().unwrap();
    let start = clock::instant();
    assert_eq!(next(&mut watch).await.unwrap_err().class(), Class::Unknown);
    assert!(start.elapsed() < 2 * BOUND, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_watch_ends_with_its_member_and_another_one_resumes() {
    let mut member = Member::start();
    let backend = member.backend();
    let lease = backend.grant(Duration::from_secs(60)).await.unwrap();
    backend.keep_alive(lease.id).await.unwrap();
    let first = write(&backend, "k1").await.unwrap();
    let range = KeyRange::prefix("k");
    let mut watch = backend.watch(WatchRequest { range: range.clone(), from: first }).await.unwrap();
    let complete = next(&mut watch).await.unwrap().complete;
    assert_eq!(complete, first);
    member.restart().unwrap();
    assert_eq!(next(&mut watch).await.unwrap_err().class(), Class::Unknown);
    assert!(watch.next().await.is_none());
    let start = clock::instant();
    let second = loop {
        match write(&backend, "k2").await {
            Ok(revision) => break revision,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(10)),
        }
    };
    let request = WatchRequest { range, from: complete + 1 };
    let mut resumed = loop {
        match backend.watch(request.clone()).await {
            Ok(watch) => break watch,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(10)),
        }
    };
    assert_eq!(next(&mut resumed).await.unwrap().complete, second);
    while backend.keep_alive(lease.id).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
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

/// Calls until it works; gives the answer and how long that took.
async fn in_the_end<T>(call: impl AsyncFn() -> Result<T, BackendError>) -> (T, Duration) {
    let start = clock::instant();
    loop {
        match call().await {
            Ok(answer) => return (answer, start.elapsed()),
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "still failing: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_cluster_that_loses_its_leader_is_served_by_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = EtcdCluster::start(folder.path())
        .unwrap_or_else(|error| panic!("this test needs three real etcd members: {error}"));
    let mut config = EtcdConfig::new(cluster.client_urls());
    config.request_timeout = Duration::from_secs(1);
    let backend = EtcdBackend::new(config).unwrap();
    let (lease, _) = in_the_end(|| backend.grant(Duration::from_secs(60))).await;
    in_the_end(|| backend.keep_alive(lease.id)).await;
    let (from, _) = in_the_end(|| write(&backend, "k1")).await;
    for round in 0..2 {
        let leader = cluster.leader().unwrap();
        if round == 0 {
            cluster.member(leader).kill().unwrap();
        } else {
            cluster.member(leader).pause().unwrap();
        }
        let (revision, took) = in_the_end(|| write(&backend, "k2")).await;
        println!("writes again {took:?} after the leader was lost");
        let (_, took) = in_the_end(|| backend.keep_alive(lease.id)).await;
        println!("renews again {took:?} later");
        let watched = async || {
            let request = WatchRequest { range: KeyRange::prefix("k"), from };
            let mut watch = backend.watch(request).await?;
            while next(&mut watch).await?.complete < revision {}
            Ok::<_, BackendError>(())
        };
        // One that is cut off while a leader is missing is opened again.
        let ((), took) = in_the_end(watched).await;
        println!("has watched it all {took:?} later");
        if round == 0 {
            cluster.member(leader).restart().unwrap();
        } else {
            cluster.member(leader).resume().unwrap();
        }
    }
}

#[tokio::test]
async fn a_watch_on_a_member_without_a_leader_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = EtcdCluster::start(folder.path())
        .unwrap_or_else(|error| panic!("this test needs three real etcd members: {error}"));
    let backend = impatient(&[&cluster.client_urls()[0]]);
    let (from, _) = in_the_end(|| write(&backend, "k")).await;
    let watching = async || {
        let mut watch = backend.watch(WatchRequest { range: KeyRange::prefix("k"), from }).await?;
        next(&mut watch).await?;
        Ok::<_, BackendError>(watch)
    };
    let (mut watch, _) = in_the_end(watching).await;
    cluster.member(1).pause().unwrap();
    cluster.member(2).pause().unwrap();
    let error = next(&mut watch).await.unwrap_err();
    println!("cut off with: {error}");
    let start = clock::instant();
    let result = write(&backend, "k").await;
    assert!(result.is_err() && start.elapsed() < BOUND);
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
