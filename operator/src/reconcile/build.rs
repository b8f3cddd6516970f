//! Step 3: the objects as they should be, one file an object. (No client required.)
//!
//! Only `spec.worker`, and the grace period that follows from the time-out, reach the
//! pod template: everything else travels by the registry and restarts nothing.

mod deployment;
mod env;
mod pod;

use std::collections::BTreeMap;
use std::time::Duration;

pub use deployment::deployment;

use super::validate::ValidDefinition;
use crate::crd::MANAGED_BY;

/// What worker pods need to know of this installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The registry's client URLs, separated by commas.
    pub etcd_endpoints: String,
    /// The registry's prefix.
    pub prefix: String,
    /// The time-to-live of a worker's lease.
    pub lease_ttl: Duration,
}

/// The label whose presence lets a pod reach the bundled etcd; its value says as what.
pub const ETCD_CLIENT_LABEL: &str = "bellows.dev/etcd-client";

/// The label that names a pod's definition.
pub const DEFINITION_LABEL: &str = "bellows.dev/definition";

/// What selects the pods of a definition. Never changes: a Deployment's selector cannot.
pub fn selector(definition: &ValidDefinition) -> BTreeMap<String, String> {
    let name = definition.id.name.to_string();
    map([(DEFINITION_LABEL, name.as_str()), ("app.kubernetes.io/name", "bellows-worker")])
}

/// The selector as the scale subresource wants it.
pub fn selector_text(definition: &ValidDefinition) -> String {
    let pairs: Vec<_> = selector(definition).iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn labels(definition: &ValidDefinition) -> BTreeMap<String, String> {
    let mut labels = selector(definition);
    labels.extend(map([
        ("app.kubernetes.io/instance", definition.id.name.as_str()),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        ("app.kubernetes.io/part-of", "bellows"),
    ]));
    labels
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
