//! The custom resource `TaskDefinition`: types, schema rules, and the finished CRD.
//!
//! What a field means for the running of tasks is said by `bellows_registry::spec`;
//! this room adds how Kubernetes shows and checks it. No I/O.

mod rules;
mod scaling;
mod schema;
mod status;
mod task_definition;
mod volume;
mod worker;

pub use scaling::Scaling;
pub use schema::crd;
pub use status::{ConditionType, LastScale, TaskDefinitionStatus};
pub use task_definition::{TaskDefinition, TaskDefinitionSpec};
pub use volume::{ConfigMapVolume, EmptyDirVolume, ItemToPath, Medium, PvcVolume, SecretVolume, Volume};
pub use worker::{PullPolicy, Resources, WorkerSpec};

/// The API group.
pub const GROUP: &str = "bellows.dev";

/// The finalizer by which a definition's tasks are dealt with before it goes.
pub const FINALIZER: &str = "bellows.dev/tasks";

/// The value of `app.kubernetes.io/managed-by` on everything the operator makes.
pub const MANAGED_BY: &str = "bellows";

#[cfg(test)]
mod tests;
