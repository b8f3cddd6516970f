//! Who takes part: workers, the leading assigner, definitions, the registry itself.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::spec::Policy;

/// What a worker is willing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkerState {
    /// It takes tasks.
    #[default]
    Active,
    /// It finishes what it has and takes nothing: its pod is ending.
    Draining,
    /// The operator wants it to finish what it has and take nothing.
    Cordoned,
}

/// A live worker. The only record on the worker's lease; written only when one of
/// these fields changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerRecord {
    /// How many tasks it runs at once.
    pub slots: u32,
    /// What it is willing to do.
    #[serde(default)]
    pub state: WorkerState,
    /// The version of the SDK it was built with.
    pub sdk: String,
    /// The version of the program, such as its image: what one version cannot read,
    /// another may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Record for WorkerRecord {}

/// The assigner that leads; the key's mod-revision is its term (law 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The leader's pod, or any name for people.
    pub identity: String,
}

impl Record for LeaderRecord {}

/// Marks a definition as accepting tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRecord {
    /// The definition's UID.
    pub uid: String,
}

impl Record for OpenRecord {}

/// How a definition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyState {
    /// It exists.
    #[default]
    Active,
    /// It was deleted; its tasks wait for it to come back.
    Retained,
    /// It was deleted; its tasks are no longer accepted.
    Draining,
    /// It was deleted, and its tasks are being removed.
    Purging,
}

/// A definition's policy, and which version of the definition said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The definition's UID: another UID is another life of the name.
    pub uid: String,
    /// The definition's generation; a policy is written only over a lower one.
    pub generation: i64,
    /// How the definition stands.
    #[serde(default)]
    pub state: PolicyState,
    /// What it says.
    pub policy: Policy,
}

impl Record for PolicyRecord {}

/// The registry itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    /// The record format in use.
    pub format: u32,
    /// Whose registry this is (the UID of the cluster's `kube-system`): a second owner
    /// on one prefix is refused.
    pub owner: String,
    /// Raised each time an assigner begins to lead.
    pub generation: u64,
}

impl Record for MetaRecord {}
