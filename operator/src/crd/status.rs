//! What the operator says about a definition.
//!
//! Two writers, each with its own field manager: the controller owns `Ready`,
//! `Progressing`, `observedGeneration` and `selector`; the scaler, which runs where the
//! assigner leads, owns everything else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskDefinitionStatus {
    /// The generation that the controller has dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing, ScalingActive, SignalAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Worker pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Worker pods that are connected to the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// The label selector of the worker pods, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Tasks that are due and not given to a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Tasks given to a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<i64>,
    /// Tasks given up until a person replays them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<i64>,
    /// How long the oldest due task had been waiting when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_wait_seconds: Option<i64>,
    /// The last change of the number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<LastScale>,
}

/// One change of the number of pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastScale {
    /// When.
    pub time: Time,
    /// Pods before.
    pub from: i32,
    /// Pods after.
    pub to: i32,
    /// Why, for people.
    pub reason: String,
}

/// The conditions, and who writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The definition is valid, known to the registry, and its Deployment is as it should be.
    Ready,
    /// The Deployment is being rolled out.
    Progressing,
    /// The number of pods follows demand.
    ScalingActive,
    /// There is a fresh view of the registry.
    SignalAvailable,
}

impl ConditionType {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::ScalingActive => "ScalingActive",
            Self::SignalAvailable => "SignalAvailable",
        }
    }
}
