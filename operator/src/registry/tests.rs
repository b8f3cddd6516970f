//! What the controller writes, against the in-memory backend.

use std::sync::Arc;

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::id::TaskId;
use bellows_registry::spec::Policy;
use bellows_registry::txn::{Published, publish};

use super::*;

fn registry() -> (Registry, DefinitionId) {
    let backend: DynBackend = Arc::new(MemoryBackend::new());
    (Registry::new(backend, Keyspace::default()), DefinitionId::new("media", "resize").unwrap())
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
    registry.claim("cluster-a").await.unwrap();
    registry.claim("cluster-a").await.unwrap();
    let refusal = registry.claim("cluster-b").await.unwrap_err().to_string();
    assert!(refusal.contains("cluster-a") && refusal.contains("another Kubernetes cluster"), "{refusal}");
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
async fn a_purge_removes_what_waits_and_in_the_end_the_policy() {
    let (registry, def) = registry();
    registry.establish(&def, &record("a", 1)).await.unwrap();
    for bits in 1..=200 {
        publish_one(&registry, &def, bits).await;
    }
    registry.retire(&def, &policy_record("a", 2, PolicyState::Purging, Policy::default())).await.unwrap();
    assert_eq!(registry.purge(&def, Running::Spare).await.unwrap(), Left::default());
    registry.forget(&def, "a").await.unwrap();
    let rest = registry.backend.range(RangeRequest::new(registry.space.everything())).await.unwrap();
    assert_eq!(rest.entries, []);
}

#[tokio::test]
async fn a_singleton_has_its_one_task() {
    let (registry, def) = registry();
    let policy = Policy { trigger: Trigger::Singleton, ..Policy::default() };
    registry.establish(&def, &policy_record("a", 1, PolicyState::Active, policy)).await.unwrap();
    assert_eq!(registry.left(&def).await.unwrap().waiting, 1);
}
