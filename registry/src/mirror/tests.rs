//! Lists in pages, over a store that notes what it is asked for and fails now and then.

use super::*;
use crate::backend::hooked::Hooked;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, Op, PutLease, Txn};

const KIB: usize = 1024;

/// Puts so many keys of so many bytes into a folder.
async fn fill(store: &MemoryBackend, folder: &str, keys: usize, bytes: usize) {
    let value = Bytes::from(vec![b'v'; bytes]);
    let keys: Vec<usize> = (0..keys).collect();
    for some in keys.chunks((1_000 * KIB / bytes).clamp(1, 100)) {
        let put = |n: &usize| {
            let key = Bytes::from(format!("/q/{folder}/{n:06}"));
            Op::Put { key, value: value.clone(), lease: PutLease::None }
        };
        store.txn(Txn { then: some.iter().map(put).collect(), ..Txn::default() }).await.unwrap();
    }
}

/// Lists everything; answers how many keys came, each once and in order, and how often the
/// mirror was interrupted.
async fn listed(store: &Arc<Hooked>) -> (usize, u32) {
    let mut mirror = Mirror::new(Arc::clone(store) as DynBackend, KeyRange::prefix("/q/"));
    let mut interrupted = 0;
    loop {
        match mirror.next().await {
            MirrorEvent::Listed { entries, .. } => {
                assert!(entries.is_sorted_by(|a, b| a.key < b.key));
                return (entries.len(), interrupted);
            }
            MirrorEvent::Interrupted(_) => interrupted += 1,
            other => panic!("a list comes first, not {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn large_values_behind_many_small_ones_make_no_large_page() {
    let store = Arc::new(Hooked::new(|_| true));
    fill(&store.store, "a/p", 6_000, 300).await;
    fill(&store.store, "a/t", 700, 64 * KIB).await;
    fill(&store.store, "b/p", 3_000, 100).await;
    fill(&store.store, "b/t", 70, 900 * KIB).await;
    assert_eq!(listed(&store).await, (9_770, 0));
    let answers = store.answers.lock().unwrap();
    let of_large = answers.iter().filter(|(bytes, keys)| bytes / keys.max(&1) > 32 * KIB);
    let together = of_large.map(|(_, keys)| *keys).max().unwrap();
    assert!(together <= 250, "{together} large values in one answer");
    let most = answers.iter().map(|(_, keys)| *keys).max().unwrap();
    assert!(most > 2_000, "small values come in large pages: {most}");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_costs_nothing_of_what_was_read() {
    let mut asked = 0;
    let every_other = move |_: &RangeRequest| {
        asked += 1;
        asked % 2 == 1
    };
    let store = Arc::new(Hooked::new(every_other));
    fill(&store.store, "a/t", 300, 64 * KIB).await;
    let (keys, interrupted) = listed(&store).await;
    assert!(keys == 300 && interrupted > 1, "{keys} keys, {interrupted} interruptions");
    let read: usize = store.answers.lock().unwrap().iter().map(|(_, keys)| keys).sum();
    assert_eq!(read, 300);
}

#[tokio::test(start_paused = true)]
async fn a_range_of_one_key_and_an_empty_one_are_lists_too() {
    let store = Arc::new(Hooked::new(|_| true));
    assert_eq!(listed(&store).await, (0, 0));
    fill(&store.store, "a/t", 1, 10).await;
    let one = KeyRange::one(Bytes::from_static(b"/q/a/t/000000"));
    let mut mirror = Mirror::new(Arc::clone(&store) as DynBackend, one);
    assert!(matches!(mirror.next().await, MirrorEvent::Listed { entries, .. } if entries.len() == 1));
}
