//! `TaskDefinition`: queue, worker pool and policy in one object.

#![allow(
    clippy::duplicated_attributes,
    reason = "every printcolumn(…) has a name, which the lint takes for one"
)]

use bellows_registry::spec::{DeletionPolicy, Execution, Mode, Policy, Retention, Trigger};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Scaling, TaskDefinitionStatus, WorkerSpec};

/// What a kind of task is, which worker runs it, and how.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bellows.dev",
    version = "v1alpha1",
    kind = "TaskDefinition",
    doc = "A kind of task: how it begins, which worker runs it, how it is tried again, how its workers are scaled.",
    namespaced,
    shortname = "td",
    category = "bellows",
    status = "TaskDefinitionStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.scaling.minReplicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlog"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Parked", type_ = "integer", json_path = ".status.parked"),
    printcolumn(name = "Oldest", type_ = "integer", json_path = ".status.oldestWaitSeconds", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.worker.image", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TaskDefinitionSpec {
    /// How work begins: tasks are published (Publish), or exactly one task exists as long
    /// as the definition does (Singleton). Cannot be changed.
    #[serde(default)]
    pub trigger: Trigger,
    /// Active: tasks are accepted and run. Hold: accepted but not started. HoldAndDrain:
    /// not accepted; those waiting are run.
    #[serde(default)]
    pub mode: Mode,
    /// The pods that run the tasks. A change here replaces them; so does one of
    /// execution.timeout, unless drainTimeout is set.
    pub worker: WorkerSpec,
    /// How one attempt of a task is run.
    #[serde(default)]
    pub execution: Execution,
    /// How long results are kept.
    #[serde(default)]
    pub retention: Retention,
    /// How many worker pods there are.
    #[serde(default)]
    pub scaling: Scaling,
    /// What becomes of waiting tasks when the definition is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl TaskDefinitionSpec {
    /// The part that travels by the registry: workers and the assigner follow it without
    /// a restart.
    pub fn policy(&self) -> Policy {
        Policy {
            trigger: self.trigger,
            mode: self.mode,
            execution: self.execution.clone(),
            retention: self.retention.clone(),
        }
    }
}
