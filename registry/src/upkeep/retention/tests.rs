//! What retention owes: nothing early, everything in the end, and no read that is not due.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, Op, PutLease, Txn};
use crate::id::{DefinitionId, ResultSlot, TaskId};
use crate::record::{Ended, Tally};

struct Scene {
    store: Arc<MemoryBackend>,
    space: Keyspace,
    pieces: Pieces,
    now: WallMillis,
}

impl Scene {
    fn new() -> Self {
        let space = Keyspace::default();
        let pieces = Pieces::of(&space);
        Self { store: Arc::new(MemoryBackend::new()), space, pieces, now: WallMillis(1_000_000) }
    }

    /// Writes a terminal record that is kept for so many seconds.
    async fn ends(&self, bits: u128, kept: u64) {
        let record = OutcomeRecord {
            ended: Ended::Succeeded,
            attempt: 1,
            attempt_id: None,
            worker: None,
            published: self.now,
            started: self.now,
            finished: self.now,
            expires: self.now.plus(Duration::from_secs(kept)),
            cancellation: None,
            tally: Tally::default(),
            codecs: Vec::new(),
            result: Bytes::from_static(b"done"),
        };
        let def = DefinitionId::new("media", "resize").unwrap();
        let key = self.space.path(&Key::Outcome(def, ResultSlot::from_bits(1), TaskId::from_bits(bits)));
        let put = Op::Put { key, value: record.encode(), lease: PutLease::None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }

    async fn left(&self) -> usize {
        self.store.range(RangeRequest::new(self.space.all_outcomes_range())).await.unwrap().entries.len()
    }

    async fn pass_after(&mut self, seconds: u64) -> usize {
        self.now = self.now.plus(Duration::from_secs(seconds));
        let backend: DynBackend = self.store.clone();
        self.pieces.pass(&backend, &self.space, self.now).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn records_go_when_their_time_is_over_and_not_before() {
    let mut scene = Scene::new();
    for bits in 1..=120 {
        scene.ends(bits, if bits % 3 == 0 { 130 } else { 1000 }).await;
    }
    assert_eq!((scene.pass_after(30).await, scene.left().await), (0, 120));
    assert_eq!((scene.pass_after(99).await, scene.left().await), (0, 120));
    assert_eq!((scene.pass_after(30).await, scene.left().await), (40, 80));
    scene.ends(500, 120).await; // written since
    assert_eq!((scene.pass_after(150).await, scene.left().await), (1, 80));
    assert_eq!((scene.pass_after(1000).await, scene.left().await), (80, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_due_is_not_read_again() {
    let mut scene = Scene::new();
    for bits in 1..=120 {
        scene.ends(bits, 1000).await;
    }
    scene.pass_after(30).await;
    assert_eq!(scene.pieces.next.len(), 3, "120 records are three pages");
    let start = scene.pieces.all.start.clone();
    let at = |seconds| scene.now.plus(Duration::from_secs(seconds));
    assert_eq!(scene.pieces.due(&start, at(119)), None);
    assert!(scene.pieces.due(&start, at(120)).is_some(), "what was written since may be due");
}

#[tokio::test(start_paused = true)]
async fn pieces_that_have_emptied_are_joined() {
    let mut scene = Scene::new();
    for bits in 1..=400 {
        scene.ends(bits, 130).await;
    }
    scene.pass_after(30).await;
    assert_eq!(scene.pieces.next.len(), 8);
    assert_eq!(scene.pass_after(130).await, 400);
    scene.pass_after(130).await;
    assert_eq!(scene.pieces.next.len(), 1);
}
