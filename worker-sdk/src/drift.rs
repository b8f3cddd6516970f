//! What the code states and the registry's policy says otherwise.
//!
//! On a cluster the TaskDefinition counts: a difference is told, at start-up and in the
//! details of `/readyz`, and is no error.

use std::fmt;

use bellows_registry::backend::Change;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{PolicyRecord, Record};
use bellows_registry::spec::Policy;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::client::Bellows;
use crate::tasks::Kind;

/// One difference between what the code states and what counts on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drift {
    /// There is no such definition: no task can be published, and none arrives.
    Undefined {
        /// The definition.
        definition: DefinitionId,
    },
    /// A field differs. The TaskDefinition counts.
    Field {
        /// The definition.
        definition: DefinitionId,
        /// The field's path in the TaskDefinition's `spec`.
        field: String,
        /// What the code states.
        code: String,
        /// What the TaskDefinition says.
        cluster: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined { definition } => {
                write!(f, "there is no TaskDefinition {definition}: apply what --print-manifest prints")
            }
            Self::Field { definition, field, code, cluster } => write!(
                f,
                "{field} of {definition} is {code} in the code and {cluster} in the TaskDefinition, which counts"
            ),
        }
    }
}

/// Compares what is stated with a policy, and with how many tasks at once the pod was told to run. Pure.
pub(crate) fn compare(
    definition: &DefinitionId,
    kind: &Kind,
    policy: &Policy,
    told_slots: Option<u32>,
) -> Vec<Drift> {
    let mut stated = kind.stated.fields().clone();
    stated.insert("trigger".to_owned(), serde_json::to_value(kind.trigger).unwrap_or_default());
    // How many at once is no part of a policy: the pod is told by its environment.
    stated.remove("worker");
    let Ok(Value::Object(standing)) = serde_json::to_value(policy) else { return Vec::new() };
    let mut found = Vec::new();
    fields("", &stated, &standing, &mut |field, code, cluster| {
        found.push(Drift::Field { definition: definition.clone(), field, code, cluster });
    });
    if let (Some(code), Some(told)) = (kind.concurrency, told_slots)
        && code != told
    {
        let (field, code, cluster) = ("worker.concurrency".to_owned(), code.to_string(), told.to_string());
        found.push(Drift::Field { definition: definition.clone(), field, code, cluster });
    }
    found
}

fn fields(
    path: &str,
    stated: &Map<String, Value>,
    standing: &Map<String, Value>,
    differs: &mut dyn FnMut(String, String, String),
) {
    for (name, code) in stated {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (code, standing.get(name)) {
            (Value::Object(code), Some(Value::Object(cluster))) => fields(&path, code, cluster, differs),
            (Value::Object(code), None) => fields(&path, code, &Map::new(), differs),
            (code, Some(cluster)) if code == cluster => {}
            (code, cluster) => {
                differs(path, plain(code), cluster.map_or_else(|| "nothing".to_owned(), plain));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Follows the policy and says what differs, until it is dropped. Says nothing while the
/// registry cannot be followed.
pub(crate) async fn follow(
    client: Bellows,
    definition: DefinitionId,
    kind: Kind,
    told_slots: Option<u32>,
    said: watch::Sender<Vec<Drift>>,
) {
    let key = KeyRange::one(client.shared.space.path(&Key::Policy(definition.clone())));
    let mut policies = Mirror::new(client.shared.backend.clone(), key);
    loop {
        let newest = match policies.next().await {
            MirrorEvent::Listed { entries, .. } => entries.into_iter().next(),
            MirrorEvent::Changed(changes) => match changes.changes.into_iter().next_back() {
                Some(Change::Put(entry)) => Some(entry),
                Some(Change::Delete { .. }) => None,
                None => continue,
            },
            MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => continue,
        };
        let drift = match newest.map(|entry| PolicyRecord::decode(&entry.value)) {
            None => vec![Drift::Undefined { definition: definition.clone() }],
            Some(Ok(record)) => compare(&definition, &kind, &record.policy, told_slots),
            Some(Err(_)) => continue, // a newer version's: nothing is known of it
        };
        if *said.borrow() == drift {
            continue;
        }
        for one in &drift {
            tracing::warn!(%definition, "{one}");
        }
        if drift.is_empty() {
            tracing::info!(%definition, "code and TaskDefinition agree again");
        }
        said.send_replace(drift);
    }
}
