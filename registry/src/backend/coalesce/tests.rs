//! Moves that travel together are answered as if each had travelled alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{
    Backend, Is, Lease, LeaseId, Op, PutLease, RangeAnswer, RangeRequest, Revision, Txn, WatchRequest,
    WatchStream,
};
use crate::testkit::{Fault, Faulty, touches};

/// A backend whose transactions wait for a permit each.
#[derive(Debug)]
struct Gated {
    inner: MemoryBackend,
    gate: Semaphore,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    requests: AtomicUsize,
}

impl Gated {
    fn new(permits: usize) -> Arc<Self> {
        let [at_once, most_at_once, requests] = [(); 3].map(|()| AtomicUsize::new(0));
        Arc::new(Self {
            inner: MemoryBackend::new(),
            gate: Semaphore::new(permits),
            at_once,
            most_at_once,
            requests,
        })
    }
}

impl Backend for Gated {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        self.inner.range(request)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        async move {
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            let result = self.inner.txn(txn).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            result
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        self.inner.watch(request)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        self.inner.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.inner.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.inner.revoke(lease)
    }
}

fn put(key: &str, is: Is) -> Move {
    let key = Bytes::from(key.to_owned());
    let put = Op::Put { key: key.clone(), value: Bytes::new(), lease: PutLease::None };
    Move { compares: vec![Compare { key, is }], then: vec![put], otherwise: Vec::new() }
}

fn writer(backend: DynBackend) -> Writer {
    Writer::new(backend, None, WriterConfig::default())
}

/// Whether the move's compares held, and at which revision.
fn verdict(result: Result<Written, BackendError>) -> (bool, Revision) {
    match result.unwrap() {
        Written::Answer(answer) => (answer.succeeded, answer.revision),
        Written::Deposed => panic!("nothing was compared around the moves"),
    }
}

#[tokio::test]
async fn moves_that_wait_together_share_a_request() {
    let writer = writer(Arc::new(MemoryBackend::new()));
    let keys: Vec<_> = (0..300).map(|n| format!("k{n}")).collect();
    let answers = join_all(keys.iter().map(|key| writer.send(put(key, Is::Absent)))).await;
    let verdicts: Vec<_> = answers.into_iter().map(verdict).collect();
    assert!(verdicts.iter().all(|(held, _)| *held));
    let requests = verdicts.iter().map(|(_, revision)| *revision - 1).max().unwrap();
    assert!((3..=8).contains(&requests), "300 moves took {requests} requests");
}

#[tokio::test(start_paused = true)]
async fn two_requests_are_on_their_way_and_senders_wait_when_the_queue_is_full() {
    let backend = Gated::new(0);
    let config = WriterConfig { queue: 8, in_flight: 2 };
    let writer = Arc::new(Writer::new(backend.clone(), None, config));
    let mut senders = JoinSet::new();
    for n in 0..100 {
        let writer = Arc::clone(&writer);
        senders.spawn(async move { verdict(writer.send(put(&format!("k{n}"), Is::Absent)).await).0 });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(backend.requests.load(Ordering::SeqCst), 2);
    assert_eq!(writer.queue.capacity(), 0, "the queue is full");
    backend.gate.add_permits(1000);
    assert!(senders.join_all().await.into_iter().all(|held| held));
    assert_eq!(backend.most_at_once.load(Ordering::SeqCst), 2);
    assert!(backend.requests.load(Ordering::SeqCst) <= 20);
}

#[tokio::test]
async fn a_lost_fence_fails_only_its_own_move() {
    let writer = writer(Arc::new(MemoryBackend::new()));
    verdict(writer.send(put("taken", Is::Absent)).await);
    let keys = ["a", "taken", "b"];
    let answers = join_all(keys.map(|key| writer.send(put(key, Is::Absent)))).await;
    let held: Vec<_> = answers.into_iter().map(|answer| verdict(answer).0).collect();
    assert_eq!(held, [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn moves_of_one_key_go_one_after_the_other_in_their_order() {
    let backend = Gated::new(1000);
    let writer = writer(backend.clone());
    let moves = [put("k", Is::Absent), put("k", Is::Present), put("k", Is::Present), put("k", Is::Absent)];
    let answers = join_all(moves.map(|row| writer.send(row))).await;
    let verdicts: Vec<_> = answers.into_iter().map(verdict).collect();
    assert_eq!(verdicts, [(true, 2), (true, 3), (true, 4), (false, 4)]);
    assert_eq!(backend.most_at_once.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_move_that_is_refused_does_not_fail_its_neighbours() {
    let writer = writer(Arc::new(MemoryBackend::new()));
    let lost = Op::Put {
        key: Bytes::from_static(b"leased"),
        value: Bytes::new(),
        lease: PutLease::On(LeaseId(999)),
    };
    let refused = Move { then: vec![lost], ..Move::default() };
    let answers = join_all([put("a", Is::Absent), refused, put("b", Is::Absent)].map(|row| writer.send(row)));
    let answers = answers.await;
    assert!(matches!(answers[1], Err(BackendError::LeaseLost(LeaseId(999)))));
    assert!(answers[0].is_ok() && answers[2].is_ok());
}

#[tokio::test]
async fn a_failed_outer_compare_deposes_every_move() {
    let backend = Arc::new(MemoryBackend::new());
    let term = Compare { key: Bytes::from_static(b"leader"), is: Is::At(7) };
    let writer = Writer::new(backend.clone(), Some(term), WriterConfig::default());
    let answers = join_all([put("a", Is::Absent), put("b", Is::Absent)].map(|row| writer.send(row))).await;
    assert!(answers.into_iter().all(|answer| matches!(answer, Ok(Written::Deposed))));
    assert_eq!(backend.revision(), 1);
}

#[tokio::test]
async fn an_unknown_outcome_is_told_to_every_move_of_the_request() {
    let backend = Faulty::new(MemoryBackend::new(), 1);
    backend.next_txn(touches("a"), Fault::LoseAnswer);
    let writer = writer(Arc::new(backend));
    let answers = join_all([put("a", Is::Absent), put("b", Is::Absent)].map(|row| writer.send(row))).await;
    let classes = answers.into_iter().map(|answer| answer.unwrap_err().class());
    assert!(classes.eq([Class::Unknown, Class::Unknown]));
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_is_waiting() {
    let backend = Gated::new(0);
    let writer = writer(backend.clone());
    for key in ["a", "b", "c"] {
        // Polled once, so that the move is in the queue, and dropped.
        assert!(writer.send(put(key, Is::Absent)).now_or_never().is_none());
    }
    backend.gate.add_permits(10);
    writer.close().await;
    let all = RangeRequest::new(crate::key::KeyRange { start: "a".into(), end: "z".into() });
    assert_eq!(backend.inner.range(all).await.unwrap().entries.len(), 3);
}
