//! Members that are not there, that freeze, go, or are cut off from the others.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::backend::{Backend, BackendError, Class, DynBackend, WatchRequest};
use bellows_registry::clock;
use bellows_registry::key::KeyRange;
use bellows_registry::session::Session;
use bellows_testbed::EtcdCluster;
use futures::StreamExt;

use super::{Member, anything, next, write};

/// A URL of a port that was free a moment ago.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
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

/// Whichever of the two that may be used has its lease connection is frozen in one of the rounds.
#[tokio::test]
async fn a_session_outlives_the_member_that_renews_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = EtcdCluster::start(folder.path())
        .unwrap_or_else(|error| panic!("this test needs three real etcd members: {error}"));
    let leader = cluster.leader().unwrap();
    let followers: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    let urls = cluster.client_urls();
    let config = EtcdConfig::new(followers.iter().map(|member| urls[*member].as_str()));
    let backend: DynBackend = Arc::new(EtcdBackend::new(config).unwrap());
    let ttl = Duration::from_secs(6);
    let (session, _) = in_the_end(|| Session::open(Arc::clone(&backend), ttl)).await;
    let lost = session.lost();
    for member in followers {
        cluster.member(member).pause().unwrap();
        let start = clock::instant();
        while start.elapsed() < 2 * ttl {
            session.tick();
            assert!(!lost.is_cancelled(), "lost after {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        cluster.member(member).resume().unwrap();
    }
    assert!(session.is_healthy());
}
