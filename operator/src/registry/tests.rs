//! What the controller writes, against the in-memory backend.

use std::sync::Arc;

use bellows_registry::backend::Compare;
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::id::TaskId;
use bellows_registry::spec::Policy;
use bellows_registry::txn::{Published, publish};

use super::*;

fn registry() -> (Registry, DefinitionId) {
    let backend: DynBackend = Arc::new(MemoryBackend::new());
    let registry = Registry::new(backend, Keyspace::default());
    registry.owner.send_replace(Some("cluster-a".to_owned()));
    (registry, DefinitionId::new("media", "resize").unwrap())
}

fn record(uid: &str, generation: i64) -> PolicyRecord {
    policy_record(uid, generation, PolicyState::Active, Policy::default())
}

async fn publish_one(registry: &Registry, def: &DefinitionId, bits: u128) -> Published {
    let task = TaskRecord {
        slot: bellows_registry::id::ResultSlot::from_bits(1),
        published: clock::wall(),
        delay: None,
        headers: std::collections::BTreeMap::new(),
        options: bellows_registry::record::TaskOptions::default(),
        payload: Bytes::new(),
    };
    let row = publish(&registry.space, def, TaskId::from_bits(bits), &task);
    Published::of(&registry.backend.txn(txn(row)).await.unwrap())
}

#[tokio::test]
async fn a_second_owner_of_one_prefix_is_refused_by_name() {
    let (registry, _) = registry();
    registry.belongs_to("anybody").await.unwrap();
    registry.claim("cluster-a").await.unwrap();
    registry.claim("cluster-a").await.unwrap();
    let other = Registry::new(Arc::clone(&registry.backend), registry.space.clone());
    assert_eq!(other.belongs_to("cluster-b").await.unwrap_err().class(), "foreign_owner");
    let refusal = other.claim("cluster-b").await.unwrap_err().to_string();
    assert!(refusal.contains("cluster-a") && refusal.contains("another Kubernetes cluster"), "{refusal}");
}

#[tokio::test]
async fn nothing_is_written_to_a_registry_that_was_not_claimed() {
    let (known, def) = registry();
    known.establish(&def, &record("a", 1)).await.unwrap();
    let retired = purging(&known, &def).await;
    let before = everything(&known).await;
    let registry = Registry::new(Arc::clone(&known.backend), known.space.clone());
    let refused = |error: RegistryError| assert_eq!(error.class(), "not_claimed");
    refused(registry.establish(&def, &record("b", 1)).await.unwrap_err());
    refused(registry.retire(&def, &record("a", 3)).await.unwrap_err());
    refused(registry.retain(&def, "a").await.unwrap_err());
    refused(registry.purge(&def, retired, Running::Remove).await.unwrap_err());
    refused(registry.forget(&def, "a").await.unwrap_err());
    assert_eq!(registry.claim("cluster-b").await.unwrap_err().class(), "foreign_owner");
    refused(registry.establish(&def, &record("b", 1)).await.unwrap_err());
    assert_eq!(everything(&registry).await, before);
    registry.claim("cluster-a").await.unwrap();
    assert_eq!(registry.establish(&def, &record("b", 1)).await.unwrap(), Established::Said);
}

#[tokio::test]
async fn an_established_definition_accepts_tasks_until_it_is_retired() {
    let (registry, def) = registry();
    assert_eq!(publish_one(&registry, &def, 1).await, Published::Closed);
    registry.establish(&def, &record("a", 1)).await.unwrap();
    assert_eq!(publish_one(&registry, &def, 1).await, Published::Created);
    registry.retire(&def, &policy_record("a", 2, PolicyState::Retained, Policy::default())).await.unwrap();
    assert_eq!(publish_one(&registry, &def, 2).await, Published::Closed);
    assert_eq!(registry.left(&def).await.unwrap(), Left { waiting: 1, ..Left::default() });
    // The name comes back with another UID, and its tasks are still there.
    registry.establish(&def, &record("b", 1)).await.unwrap();
    assert_eq!(publish_one(&registry, &def, 2).await, Published::Created);
    registry.retire(&def, &policy_record("a", 3, PolicyState::Purging, Policy::default())).await.unwrap();
    assert_eq!(
        publish_one(&registry, &def, 3).await,
        Published::Created,
        "a late deletion closes no new life"
    );
}

#[tokio::test]
async fn establishing_twice_writes_nothing_the_second_time() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    let revision = |registry: Registry| async move {
        registry.backend.range(RangeRequest::new(registry.space.everything())).await.unwrap().revision
    };
    let before = revision(registry.clone()).await;
    registry.establish(&def, &record("a", 1)).await.unwrap();
    assert_eq!(revision(registry).await, before);
}

#[tokio::test]
async fn a_definition_that_lost_to_a_newer_one_opens_closes_and_makes_nothing() {
    let (registry, def) = registry();
    let drained = Policy { mode: Mode::HoldAndDrain, ..Policy::default() };
    let newer = policy_record("a", 2, PolicyState::Active, drained);
    registry.establish(&def, &newer).await.unwrap();
    let before = everything(&registry).await;
    let old = Policy { trigger: Trigger::Singleton, ..Policy::default() };
    let told = registry.establish(&def, &policy_record("a", 1, PolicyState::Active, old)).await.unwrap();
    assert_eq!(told, Established::Superseded { generation: 2 });
    assert_eq!(everything(&registry).await, before, "neither opened nor given a singleton's task");
    registry.retire(&def, &policy_record("a", 1, PolicyState::Purging, Policy::default())).await.unwrap();
    assert_eq!(everything(&registry).await, before, "nor closed by an old deletion");
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_left_alone_and_named() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    let path = registry.space.path(&Key::Policy(def.clone()));
    for value in [
        &b"bellows2 {}\n"[..],
        br#"bellows1 {"uid":"a","generation":1,"policy":{"trigger":"Sometimes"}}
"#,
    ] {
        let value = Bytes::from_static(value);
        let put = Op::Put { key: path.clone(), value: value.clone(), lease: PutLease::None };
        registry.backend.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
        let error = registry.establish(&def, &record("a", 2)).await.unwrap_err();
        assert_eq!(error.class(), "unreadable");
        assert!(error.to_string().contains("/bellows/d/media/resize"), "{error}");
        let purging = policy_record("a", 3, PolicyState::Purging, Policy::default());
        assert_eq!(registry.retire(&def, &purging).await.unwrap_err().class(), "unreadable");
        let kept = registry.backend.range(RangeRequest::new(KeyRange::one(path.clone()))).await.unwrap();
        assert_eq!(kept.entries[0].value, value);
    }
}

#[tokio::test]
async fn an_emptied_registry_is_established_anew_with_its_owner() {
    let (registry, def) = registry();
    registry.claim("cluster-a").await.unwrap();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    let all = Op::Delete(registry.space.everything());
    registry.backend.txn(Txn { then: vec![all], ..Txn::default() }).await.unwrap();
    assert_eq!(registry.establish(&def, &record("a", 1)).await.unwrap(), Established::Said);
    assert_eq!(publish_one(&registry, &def, 1).await, Published::Created);
    let other = Registry::new(Arc::clone(&registry.backend), registry.space.clone());
    assert_eq!(other.claim("cluster-b").await.unwrap_err().class(), "foreign_owner");
}

/// Every key but the owner's, with the revision that wrote it.
async fn everything(registry: &Registry) -> Vec<(Bytes, Revision)> {
    let all = registry.backend.range(RangeRequest::new(registry.space.everything())).await.unwrap();
    let meta = registry.space.path(&Key::Meta);
    let rest = all.entries.into_iter().filter(|entry| entry.key != meta);
    rest.map(|entry| (entry.key, entry.mod_revision)).collect()
}

#[tokio::test]
async fn a_purge_removes_what_waits_and_in_the_end_the_policy() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    // More than a page, and than one request may touch.
    for bits in 1..=500 {
        publish_one(&registry, &def, bits).await;
    }
    assert_eq!(registry.left(&def).await.unwrap(), Left { waiting: 500, ..Left::default() });
    let retired = purging(&registry, &def).await;
    let done = Pass::Left(Left::default());
    assert_eq!(registry.purge(&def, retired, Running::Spare).await.unwrap(), done);
    registry.forget(&def, "a").await.unwrap();
    assert_eq!(everything(&registry).await, []);
}

#[tokio::test]
async fn a_purge_spares_what_runs_and_then_takes_it_with_its_assignment() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    for bits in 1..=40 {
        publish_one(&registry, &def, bits).await;
    }
    for bits in [7, 20] {
        run_one(&registry, &def, TaskId::from_bits(bits)).await;
    }
    let retired = purging(&registry, &def).await;
    let two = Left { running: 2, ..Left::default() };
    assert_eq!(registry.purge(&def, retired, Running::Spare).await.unwrap(), Pass::Left(two));
    assert_eq!(registry.left(&def).await.unwrap(), two);
    let done = Pass::Left(Left::default());
    assert_eq!(registry.purge(&def, retired, Running::Remove).await.unwrap(), done);
    registry.forget(&def, "a").await.unwrap();
    assert_eq!(everything(&registry).await, []);
}

/// Retires life `a` as purging; answers the revision of its policy.
async fn purging(registry: &Registry, def: &DefinitionId) -> Revision {
    let record = policy_record("a", 2, PolicyState::Purging, Policy::default());
    match registry.retire(def, &record).await.unwrap() {
        Retired::At(revision) => revision,
        Retired::Superseded => panic!("life a is the only one"),
    }
}

#[tokio::test]
async fn a_late_purge_leaves_the_tasks_of_the_names_next_life() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    publish_one(&registry, &def, 1).await;
    let retired = purging(&registry, &def).await;
    assert_eq!(purging(&registry, &def).await, retired, "said twice, written once");
    registry.establish(&def, &record("b", 1)).await.unwrap();
    assert_eq!(publish_one(&registry, &def, 2).await, Published::Created);
    let before = everything(&registry).await;
    for running in [Running::Spare, Running::Remove] {
        let late = registry.purge(&def, retired, running).await.unwrap();
        assert_eq!(late, Pass::Superseded);
    }
    let again = policy_record("a", 2, PolicyState::Purging, Policy::default());
    assert_eq!(registry.retire(&def, &again).await.unwrap(), Retired::Superseded);
    assert_eq!(everything(&registry).await, before);
}

#[tokio::test]
async fn a_purge_stops_where_the_name_begins_its_next_life() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    for bits in 1..=500 {
        publish_one(&registry, &def, bits).await;
    }
    let retired = purging(&registry, &def).await;
    // The first page, as a pass reads and removes it; then the name comes back.
    let fence = Compare { key: registry.space.path(&Key::Policy(def.clone())), is: Is::At(retired) };
    let mut pages = pages::Pages::of(&registry, registry.space.definition_range(&def));
    let mut held = std::collections::BTreeSet::new();
    let page = pages.next().await.unwrap().unwrap();
    assert!(registry.remove(&page, &fence, Running::Spare, &mut held).await.unwrap());
    registry.establish(&def, &record("b", 1)).await.unwrap();
    let before = everything(&registry).await;
    let page = pages.next().await.unwrap().expect("there is a second page");
    assert!(!registry.remove(&page, &fence, Running::Spare, &mut held).await.unwrap());
    assert_eq!(everything(&registry).await, before, "the rest belongs to the next life");
}

/// Puts an assignment of a task beside it, as the assigner does.
async fn run_one(registry: &Registry, def: &DefinitionId, task: TaskId) {
    let worker = bellows_registry::id::WorkerId::for_session("pod", 1).unwrap();
    let attempt = bellows_registry::id::AttemptId::from_bits(1);
    let key = registry.space.path(&Key::Assignment(def.clone(), worker, task, attempt));
    let put = Op::Put { key, value: Bytes::new(), lease: PutLease::None };
    registry.backend.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
}

#[tokio::test]
async fn a_singleton_has_its_one_task() {
    let (registry, def) = registry();
    let policy = Policy { trigger: Trigger::Singleton, ..Policy::default() };
    registry.establish(&def, &policy_record("a", 1, PolicyState::Active, policy)).await.unwrap();
    assert_eq!(registry.left(&def).await.unwrap().waiting, 1);
}
