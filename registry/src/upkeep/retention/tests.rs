//! What retention owes: nothing early, everything in the end, and no read that is not due.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backend::hooked::Hooked;
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
        self.ends_at(bits, self.now.plus(Duration::from_secs(kept))).await;
    }

    async fn ends_at(&self, bits: u128, expires: WallMillis) {
        let record = OutcomeRecord {
            ended: Ended::Succeeded,
            attempt: 1,
            attempt_id: None,
            worker: None,
            published: self.now,
            started: self.now,
            finished: self.now,
            expires,
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

    /// What a pass removes that comes so much later.
    async fn pass_after(&mut self, seconds: u64) -> usize {
        self.wait(seconds).await;
        self.pass().await.removed
    }

    async fn wait(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.now = self.now.plus(time);
        tokio::time::advance(time).await;
    }

    async fn pass(&mut self) -> Passed {
        let backend: DynBackend = self.store.clone();
        let now = Now { instant: clock::instant(), wall: self.now };
        self.pieces.pass(&backend, &self.space, &now).await.unwrap()
    }

    /// The passes of half a minute, as the leader makes them.
    async fn half_a_minute(&mut self) {
        let mut more = true;
        for _ in 0..30 {
            if more {
                more = self.pass().await.more;
            }
            self.wait(1).await;
        }
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
    assert_eq!((scene.pass_after(150).await, scene.left().await), (0, 81), "nobody saw how old it is");
    assert_eq!((scene.pass_after(120).await, scene.left().await), (1, 80));
    assert_eq!((scene.pass_after(1000).await, scene.left().await), (80, 0));
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_cannot_be_read_holds_up_no_other() {
    let mut scene = Scene::new();
    for bits in 1..=120 {
        scene.ends(bits, 130).await;
    }
    scene.pass_after(30).await;
    let first = scene.space.all_outcomes_range().start;
    let hooked = Hooked::of(scene.store.as_ref().clone(), move |request| request.range.start != first);
    let backend: DynBackend = Arc::new(hooked);
    scene.wait(200).await;
    let now = Now { instant: clock::instant(), wall: scene.now };
    scene.pieces.pass(&backend, &scene.space, &now).await.unwrap_err();
    let passed = scene.pieces.pass(&backend, &scene.space, &now).await;
    assert!(passed.is_err() && scene.left().await == 50, "all but the first of three pages are removed");
    assert_eq!(scene.pass().await.removed, 50, "its turn comes again");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_due_is_not_read_again() {
    let mut scene = Scene::new();
    for bits in 1..=120 {
        scene.ends(bits, 1000).await;
    }
    scene.pass_after(30).await;
    assert_eq!(scene.pieces.next.len(), 3, "120 records are three pages");
    let at = |seconds| scene.now.plus(Duration::from_secs(seconds));
    assert_eq!(scene.pieces.due(at(119)), None);
    assert!(scene.pieces.due(at(120)).is_some(), "what was written since may be due");
}

#[tokio::test(start_paused = true)]
async fn a_piece_is_due_when_a_part_of_it_is_past_its_time() {
    let mut scene = Scene::new();
    for bits in 1..=40 {
        scene.ends(bits, 39 + u64::try_from(bits).unwrap()).await;
    }
    scene.pass_after(30).await;
    let at = |seconds| scene.now.plus(Duration::from_secs(seconds));
    assert_eq!(scene.pieces.due(at(18)), None, "nine are");
    assert!(scene.pieces.due(at(19)).is_some(), "ten are");
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

/// Ids come from a hash: what is written lies anywhere among what is there.
#[tokio::test(start_paused = true)]
async fn results_do_not_pile_up_however_many_there_are() {
    let mut scene = Scene::new();
    for n in 0..120_000_u128 {
        scene.ends((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), 600).await;
        if n % 1000 == 999 {
            scene.half_a_minute().await;
        }
    }
    let left = scene.left().await;
    assert!((20_000..30_000).contains(&left), "{left} where 20000 are within their time");
}

#[tokio::test(start_paused = true)]
async fn a_pass_goes_on_where_the_last_one_ended() {
    let mut scene = Scene::new();
    for bits in 1..=11_000 {
        scene.ends(bits, 150).await;
    }
    scene.wait(30).await;
    assert_eq!(scene.pass().await, Passed { removed: 0, more: true });
    assert_eq!(scene.pass().await, Passed { removed: 0, more: false });
    scene.wait(150).await;
    assert_eq!(scene.pass().await, Passed { removed: READS * PAGE, more: true });
    scene.wait(150).await; // all pieces are due again
    assert_eq!(scene.pass().await.removed, 1000);
}

/// The clock of its worker is a quarter of an hour behind.
#[tokio::test(start_paused = true)]
async fn a_record_born_past_its_time_is_kept_for_a_while_all_the_same() {
    let mut scene = Scene::new();
    scene.ends_at(1, WallMillis(scene.now.0 - 15 * 60 * 1000)).await;
    assert_eq!(scene.pass_after(30).await, 0);
    scene.ends_at(2, WallMillis(scene.now.0 - 15 * 60 * 1000)).await;
    assert_eq!((scene.pass_after(90).await, scene.left().await), (0, 2));
    assert_eq!((scene.pass_after(60).await, scene.left().await), (1, 1), "the first, not the second");
    assert_eq!((scene.pass_after(150).await, scene.left().await), (1, 0));
}

#[test]
fn few_ages_are_kept_and_one_that_is_old_enough() {
    let (mut ages, began) = (Ages::default(), clock::instant());
    for second in 0..1000_u32 {
        let now = began + Duration::from_secs(second.into());
        ages.seen(second.into(), now);
        let (settled, old) = (ages.settled(now).unwrap_or(-1), Revision::from(second) - 120);
        assert!(settled <= old.max(-1) && settled > old - 10, "{settled} after {second} s");
    }
    assert!(ages.0.len() <= 14, "{}", ages.0.len());
}

#[test]
fn looking_where_nothing_is_known_to_end_is_a_few_reads_a_second_at_most() {
    let mut pieces = Pieces::of(&Keyspace::default());
    assert_eq!(pieces.unread_for(), Retention::FLOOR);
    for piece in 0..60_000_u32 {
        pieces.next.insert(Bytes::copy_from_slice(&piece.to_be_bytes()), WallMillis(0));
    }
    assert!(60_001.0 / pieces.unread_for().as_secs_f64() <= 10.0);
}
