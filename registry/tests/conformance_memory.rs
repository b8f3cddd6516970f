//! The in-memory backend keeps every promise of the waist.

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::testkit::{Faulty, conformance, script};

mod judge;
use judge::judge;

#[tokio::test(start_paused = true)]
async fn memory_keeps_every_promise_of_the_waist() {
    let report = conformance::run(&MemoryBackend::new(), "memory").await;
    judge(&report);
}

#[tokio::test(start_paused = true)]
async fn a_faulty_backend_without_faults_keeps_every_promise() {
    let report = conformance::run(&Faulty::new(MemoryBackend::new(), 1), "memory behind faults").await;
    judge(&report);
}

#[tokio::test(start_paused = true)]
async fn a_script_gives_the_same_answers_twice() {
    let (left, right) = (MemoryBackend::new(), MemoryBackend::new());
    let summary = script::run(&left, &right, 1, 5_000).await.unwrap();
    println!("{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_script_finds_a_backend_that_answers_otherwise() {
    let (left, right) = (MemoryBackend::new(), Faulty::new(MemoryBackend::new(), 1));
    right.next_txn(|_| true, bellows_registry::testkit::Fault::Refuse);
    let difference = script::run(&left, &right, 1, 5_000).await.unwrap_err();
    assert!(difference.to_string().contains("seed 1"), "{difference}");
}

#[tokio::test(start_paused = true)]
async fn a_script_finds_a_watch_that_misses_a_change() {
    let (left, right) = (MemoryBackend::new(), Faulty::new(MemoryBackend::new(), 1));
    right.hide_next_change("/script/");
    let difference = script::run(&left, &right, 1, 5_000).await.unwrap_err();
    assert!(difference.to_string().contains("watch"), "{difference}");
}
