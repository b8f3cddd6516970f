//! Every fault does what it says.

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Class, PutLease};
use crate::key::KeyRange;

fn put(key: &'static str) -> Txn {
    let put = Op::Put { key: Bytes::from(key), value: Bytes::from_static(b"v"), lease: PutLease::None };
    let nested = Txn { then: vec![put], ..Txn::default() };
    Txn { then: vec![Op::Txn(nested)], ..Txn::default() }
}

async fn stored(faulty: &Faulty<MemoryBackend>, key: &'static str) -> bool {
    let found = faulty.range(RangeRequest::new(KeyRange::one(Bytes::from(key)))).await.unwrap();
    !found.entries.is_empty()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_may_be_applied_or_not_or_later() {
    let faulty = Faulty::new(MemoryBackend::new(), 1);
    faulty.next_txn(puts("a"), Fault::LoseAnswer);
    faulty.next_txn(puts("b"), Fault::Drop);
    faulty.next_txn(touches("c"), Fault::ApplyLate(Duration::from_secs(3)));
    faulty.next_txn(touches("d"), Fault::Refuse);
    faulty.txn(put("other")).await.unwrap();
    for (key, class, applied) in [
        ("a", Class::Unknown, true),
        ("b", Class::Unknown, false),
        ("c", Class::Unknown, false),
        ("d", Class::NotApplied, false),
    ] {
        assert_eq!(faulty.txn(put(key)).await.unwrap_err().class(), class, "{key}");
        assert_eq!(stored(&faulty, key).await, applied, "{key}");
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(stored(&faulty, "c").await);
    assert_eq!(faulty.pending(), 0);
    faulty.txn(put("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn watches_are_cut_stalled_and_made_to_miss_a_change() {
    let faulty = Faulty::new(MemoryBackend::new(), 1);
    let watch = || faulty.watch(WatchRequest { range: KeyRange::prefix("k"), from: 1 });
    let mut first = watch().await.unwrap();
    faulty.hide_next_change("k1");
    faulty.txn(put("k1")).await.unwrap();
    faulty.txn(put("k2")).await.unwrap();
    let told = first.next().await.unwrap().unwrap();
    assert_eq!(told.changes.len(), 1);
    faulty.stall_watches(true);
    faulty.txn(put("k3")).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), first.next()).await.is_err());
    faulty.stall_watches(false);
    assert_eq!(first.next().await.unwrap().unwrap().changes.len(), 1);
    faulty.cut_watches();
    assert_eq!(first.next().await.unwrap().unwrap_err().class(), Class::Unknown);
    assert!(first.next().await.is_none());
    faulty.set_reachable(false);
    assert!(watch().await.is_err());
    faulty.set_reachable(true);
    assert_eq!(watch().await.unwrap().next().await.unwrap().unwrap().changes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults() {
    let run = |seed| async move {
        let faulty = Faulty::new(MemoryBackend::new(), seed);
        let late_by = Duration::from_millis(50);
        faulty.set_rates(Rates { lose_answer: 100, drop: 100, apply_late: 100, late_by, ..Rates::default() });
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            outcomes.push(faulty.txn(put("k")).await.map_err(|error| error.class()).map(|a| a.revision));
        }
        (outcomes, faulty.injected())
    };
    let (first, second, other) = (run(7).await, run(7).await, run(8).await);
    assert_eq!(first, second);
    assert_ne!(first.0, other.0);
    assert!(first.1.len() == 3 && first.1.values().all(|count| *count > 5), "{:?}", first.1);
}
