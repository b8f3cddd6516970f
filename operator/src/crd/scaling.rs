//! How many worker pods a definition has.

use bellows_registry::spec::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds and pace of scaling. Demand is the tasks that are due plus those that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// Never fewer pods than this, even without any task. `kubectl scale` sets it.
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// Never more pods than this.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// How long there must have been nothing to do before the pods above minReplicas go.
    pub scale_to_zero_after: Span,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { min_replicas: 0, max_replicas: 10, scale_to_zero_after: Span::secs(60) }
    }
}
