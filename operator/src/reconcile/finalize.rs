//! The end of a definition: what becomes of its tasks, within a deadline.
//!
//! | deletionPolicy | meanwhile | at the end |
//! |---|---|---|
//! | Retain | nothing | tasks wait for the name to come back |
//! | Drain | no task is accepted, workers go on | what is left waits as with Retain |
//! | Purge | no task is accepted or started, waiting ones are removed | running ones are removed too |
//!
//! The one task of a singleton goes with its definition, whatever the policy says: it
//! carries no payload, and a definition of the same name makes its own. Drain lets the
//! run that is under way end.
//!
//! The finalizer never blocks beyond the deadline, not even without etcd. The worker
//! Deployment goes with its owner.

use std::time::Duration;

use bellows_registry::backend::Revision;
use bellows_registry::id::DefinitionId;
use bellows_registry::record::PolicyState;
use bellows_registry::spec::{DeletionPolicy, Trigger};

use super::validate::ValidDefinition;
use crate::events::{self, Said};
use crate::registry::{Pass, Registry, RegistryError, Retired, Running, policy_record};

/// How long a deletion may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A step that fails from here on is the last one: it may take some seconds, and so may
/// the wait for the next.
pub(super) const GIVE_UP: Duration = Duration::from_secs(48);

/// From here on a purge removes what still runs, so that it ends before the deadline.
const LAST_CALL: Duration = Duration::from_secs(40);

/// How a deletion stands.
#[derive(Debug)]
pub(super) enum Progress {
    /// The finalizer may go; this is what to say.
    Done(Said),
    /// Look again.
    Waiting,
    /// The finalizer may go: what the registry holds of this name, if anything, is not ours.
    NotOurs,
}

/// One step. `since` is the time since the deletion was asked for.
pub(super) async fn step(
    registry: &Registry,
    definition: &ValidDefinition,
    since: Duration,
) -> Result<Progress, RegistryError> {
    let policy = definition.spec.deletion_policy;
    let state = match (definition.spec.trigger, policy) {
        // Always ready, it would be started again and again while it drains.
        (Trigger::Singleton, _) | (_, DeletionPolicy::Purge) => PolicyState::Purging,
        (_, DeletionPolicy::Retain) => PolicyState::Retained,
        (_, DeletionPolicy::Drain) => PolicyState::Draining,
    };
    let record = policy_record(&definition.uid, definition.generation, state, definition.spec.policy());
    let Retired::At(retired) = registry.retire(&definition.id, &record).await? else {
        // Another life of the name; or Kubernetes was restored from an old backup.
        let why = "the registry knows a newer generation of the definition";
        return retained(registry, &definition.id, &definition.uid, why).await;
    };
    let patient = since < LAST_CALL;
    match (definition.spec.trigger, policy) {
        (Trigger::Singleton, DeletionPolicy::Retain | DeletionPolicy::Purge) => {
            purge(registry, definition, retired, Running::Remove, since).await
        }
        (Trigger::Singleton, DeletionPolicy::Drain) | (_, DeletionPolicy::Purge) => {
            let running = if patient { Running::Spare } else { Running::Remove };
            purge(registry, definition, retired, running, since).await
        }
        (_, DeletionPolicy::Retain) => {
            let left = registry.left(&definition.id).await?;
            let note =
                format!("{left} stay in the registry until a TaskDefinition of this name exists again");
            Ok(Progress::Done(events::normal("TasksRetained", "Delete", note)))
        }
        (_, DeletionPolicy::Drain) => {
            let left = registry.left(&definition.id).await?;
            if left.is_busy() && patient {
                return Ok(Progress::Waiting);
            }
            let note = format!("{left} are left, and stay in the registry");
            Ok(Progress::Done(events::normal("TasksDrained", "Delete", note)))
        }
    }
}

/// The one step for a definition that cannot be read, and so cannot say what is to become
/// of its tasks: they stay, and no further ones are accepted.
pub(super) async fn unread(
    registry: &Registry,
    id: &DefinitionId,
    uid: &str,
) -> Result<Progress, RegistryError> {
    retained(registry, id, uid, "the definition cannot be read").await
}

/// Retires a definition by what the registry holds of it.
async fn retained(
    registry: &Registry,
    id: &DefinitionId,
    uid: &str,
    why: &str,
) -> Result<Progress, RegistryError> {
    let Retired::At(_) = registry.retain(id, uid).await? else { return Ok(Progress::NotOurs) };
    let left = registry.left(id).await?;
    let note = format!("{why}: {left} stay in the registry until a TaskDefinition of this name exists again");
    Ok(Progress::Done(events::warning("TasksRetained", "Delete", note)))
}

/// One pass of a purge, and the end of it.
async fn purge(
    registry: &Registry,
    definition: &ValidDefinition,
    retired: Revision,
    running: Running,
    since: Duration,
) -> Result<Progress, RegistryError> {
    let left = match registry.purge(&definition.id, retired, running).await? {
        Pass::Left(left) => left,
        // Mostly another life; but a replica of another version may have said the same in
        // its own words. The next step asks the registry which it is.
        Pass::Superseded if since < GIVE_UP => return Ok(Progress::Waiting),
        Pass::Superseded => return Ok(Progress::NotOurs),
    };
    if left.is_busy() && since < GIVE_UP {
        return Ok(Progress::Waiting);
    }
    if left.is_busy() {
        let note = format!(
            "more tasks than could be removed within {} s: the rest stays in the registry and is never run, until a TaskDefinition of this name exists again",
            DEADLINE.as_secs()
        );
        return Ok(Progress::Done(events::warning("TasksAbandoned", "Delete", note)));
    }
    registry.forget(&definition.id, &definition.uid).await?;
    let note = match definition.spec.trigger {
        Trigger::Singleton => "the singleton's one task went with its definition",
        Trigger::Publish => "every task of the definition was removed",
    };
    Ok(Progress::Done(events::normal("TasksPurged", "Delete", note.to_owned())))
}

/// What is said when the deadline ends a deletion that could not be carried out.
pub(super) fn abandoned(error: &RegistryError) -> Said {
    let note = format!(
        "the registry could not be told of the deletion within {} s, and the tasks stay as they are: {error}",
        DEADLINE.as_secs()
    );
    events::warning("TasksAbandoned", "Delete", note)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bellows_registry::backend::RangeRequest;
    use bellows_registry::backend::memory::MemoryBackend;
    use bellows_registry::key::{Key, Keyspace};
    use bellows_registry::spec::Policy;

    use super::*;

    async fn claimed(backend: Arc<MemoryBackend>) -> Registry {
        let registry = Registry::new(backend, Keyspace::default());
        registry.claim("cluster").await.unwrap();
        registry
    }

    #[tokio::test]
    async fn a_late_deletion_ends_without_touching_the_names_next_life() {
        for trigger in ["Publish", "Singleton"] {
            let backend = Arc::new(MemoryBackend::new());
            let registry = claimed(backend.clone()).await;
            let text = format!("worker: {{ image: x }}\ntrigger: {trigger}\ndeletionPolicy: Purge");
            let spec: crate::crd::TaskDefinitionSpec = serde_yaml_ng::from_str(&text).unwrap();
            let id = DefinitionId::new("a", "b").unwrap();
            let definition = ValidDefinition { id, uid: "old".to_owned(), generation: 1, spec };
            let singleton = Policy { trigger: Trigger::Singleton, ..Policy::default() };
            let next = policy_record("next", 1, PolicyState::Active, singleton);
            registry.establish(&definition.id, &next).await.unwrap();
            let said = step(&registry, &definition, Duration::ZERO).await.unwrap();
            assert!(matches!(said, Progress::NotOurs), "{trigger}: {said:?}");
            assert_eq!(registry.left(&definition.id).await.unwrap().waiting, 1, "{trigger}");
        }
    }

    #[tokio::test]
    async fn a_definition_that_the_registry_knows_better_is_closed_when_it_is_deleted() {
        let registry = claimed(Arc::new(MemoryBackend::new())).await;
        let spec = serde_yaml_ng::from_str("worker: { image: x }\ndeletionPolicy: Purge").unwrap();
        let id = DefinitionId::new("a", "b").unwrap();
        let definition = ValidDefinition { id: id.clone(), uid: "u".to_owned(), generation: 1, spec };
        let newer = policy_record("u", 4, PolicyState::Active, Policy::default());
        registry.establish(&id, &newer).await.unwrap();
        let Progress::Done(said) = step(&registry, &definition, Duration::ZERO).await.unwrap() else {
            panic!("nothing to wait for");
        };
        assert!(said.note.starts_with("the registry knows a newer generation"), "{}", said.note);
        let retained = policy_record("u", 4, PolicyState::Retained, Policy::default());
        let known = registry.retire(&id, &retained).await.unwrap();
        assert!(matches!(known, Retired::At(_)), "it says so already: {known:?}");
        let again = registry.retain(&id, "u").await.unwrap();
        assert_eq!(again, known, "and nothing was written anew");
    }

    #[tokio::test]
    async fn a_definition_that_cannot_be_read_is_closed_by_what_the_registry_knows_of_it() {
        let registry = claimed(Arc::new(MemoryBackend::new())).await;
        let id = DefinitionId::new("a", "b").unwrap();
        let unknown = unread(&registry, &id, "u").await.unwrap();
        assert!(matches!(unknown, Progress::NotOurs), "it never reached the registry");
        let policy = Policy { trigger: Trigger::Singleton, ..Policy::default() };
        registry.establish(&id, &policy_record("u", 4, PolicyState::Active, policy.clone())).await.unwrap();
        let other = unread(&registry, &id, "v").await.unwrap();
        assert!(matches!(other, Progress::NotOurs), "another life of the name");
        let Progress::Done(said) = unread(&registry, &id, "u").await.unwrap() else {
            panic!("nothing to wait for");
        };
        assert_eq!(said.reason, "TasksRetained");
        assert!(said.note.contains("1 waiting"), "{}", said.note);
        let retained = policy_record("u", 4, PolicyState::Retained, policy);
        let again = registry.retire(&id, &retained).await.unwrap();
        assert_eq!(registry.retain(&id, "u").await.unwrap(), again, "it is so already, and stays so");
    }

    #[tokio::test]
    async fn a_singletons_task_goes_with_its_definition_whatever_the_policy() {
        for policy in ["Retain", "Drain", "Purge"] {
            let backend = Arc::new(MemoryBackend::new());
            let registry = claimed(backend.clone()).await;
            let text = format!("worker: {{ image: x }}\ntrigger: Singleton\ndeletionPolicy: {policy}");
            let spec: crate::crd::TaskDefinitionSpec = serde_yaml_ng::from_str(&text).unwrap();
            let id = DefinitionId::new("a", "b").unwrap();
            let definition = ValidDefinition { id, uid: "u".to_owned(), generation: 1, spec };
            let record = policy_record("u", 1, PolicyState::Active, definition.spec.policy());
            registry.establish(&definition.id, &record).await.unwrap();
            assert_eq!(registry.left(&definition.id).await.unwrap().waiting, 1);
            let Progress::Done(said) = step(&registry, &definition, Duration::ZERO).await.unwrap() else {
                panic!("{policy}: nothing to wait for");
            };
            assert_eq!(said.reason, "TasksPurged");
            use bellows_registry::backend::Backend as _;
            let rest = backend.range(RangeRequest::new(Keyspace::default().everything())).await.unwrap();
            let keys: Vec<_> = rest.entries.iter().map(|entry| entry.key.clone()).collect();
            assert_eq!(keys, [Keyspace::default().path(&Key::Meta)], "{policy}");
        }
    }
}
