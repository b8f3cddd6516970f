//! The end of a definition: what becomes of its tasks, within a deadline.
//!
//! | deletionPolicy | meanwhile | at the end |
//! |---|---|---|
//! | Retain | nothing | tasks wait for the name to come back |
//! | Drain | no task is accepted, workers go on | what is left waits as with Retain |
//! | Purge | no task is accepted or started, waiting ones are removed | running ones are removed too |
//!
//! The finalizer never blocks beyond the deadline, not even without etcd. The worker
//! Deployment goes with its owner.

use std::time::Duration;

use bellows_registry::record::PolicyState;
use bellows_registry::spec::DeletionPolicy;

use super::validate::ValidDefinition;
use crate::events::{self, Said};
use crate::registry::{Registry, RegistryError, Running, policy_record};

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
}

/// One step. `since` is the time since the deletion was asked for.
pub(super) async fn step(
    registry: &Registry,
    definition: &ValidDefinition,
    since: Duration,
) -> Result<Progress, RegistryError> {
    let policy = definition.spec.deletion_policy;
    let state = match policy {
        DeletionPolicy::Retain => PolicyState::Retained,
        DeletionPolicy::Drain => PolicyState::Draining,
        DeletionPolicy::Purge => PolicyState::Purging,
    };
    let record = policy_record(&definition.uid, definition.generation, state, definition.spec.policy());
    registry.retire(&definition.id, &record).await?;
    match policy {
        DeletionPolicy::Retain => {
            let left = registry.left(&definition.id).await?;
            let note = format!(
                "{} waiting, {} running and {} parked tasks stay in the registry until a TaskDefinition of this name exists again",
                left.waiting, left.running, left.parked
            );
            Ok(Progress::Done(events::normal("TasksRetained", "Delete", note)))
        }
        DeletionPolicy::Drain => {
            let left = registry.left(&definition.id).await?;
            if left.waiting + left.running > 0 && since < LAST_CALL {
                return Ok(Progress::Waiting);
            }
            let note = format!(
                "{} waiting, {} running and {} parked tasks are left, and stay in the registry",
                left.waiting, left.running, left.parked
            );
            Ok(Progress::Done(events::normal("TasksDrained", "Delete", note)))
        }
        DeletionPolicy::Purge => {
            let running = if since < LAST_CALL { Running::Spare } else { Running::Remove };
            let left = registry.purge(&definition.id, running).await?;
            if left.running > 0 {
                return Ok(Progress::Waiting);
            }
            registry.forget(&definition.id, &definition.uid).await?;
            let note = "every task of the definition was removed".to_owned();
            Ok(Progress::Done(events::normal("TasksPurged", "Delete", note)))
        }
    }
}

/// What is said when the deadline ends a deletion that could not be carried out.
pub(super) fn abandoned(error: &RegistryError) -> Said {
    let note = format!(
        "the registry could not be told of the deletion within {} s, and the tasks stay as they are: {error}",
        DEADLINE.as_secs()
    );
    events::warning("TasksAbandoned", "Delete", note)
}
