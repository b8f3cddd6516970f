//! What a worker process is told: by its environment, and nothing else.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

use super::Installation;
use crate::reconcile::validate::ValidDefinition;
use bellows_registry::spec::Span;

/// What of ours a definition may say: how a worker logs is not how it works.
const FREE: [&str; 2] = ["BELLOWS_LOG", "BELLOWS_LOG_FORMAT"];

/// The operator's variables first, then the user's, which may refer to them by `$(…)`.
pub(super) fn env(definition: &ValidDefinition, installation: &Installation, drain: Span) -> Vec<EnvVar> {
    let worker = &definition.spec.worker;
    let ttl = Span::millis(u64::try_from(installation.lease_ttl.as_millis()).unwrap_or(u64::MAX));
    let mut env = vec![
        plain("BELLOWS_ETCD_ENDPOINTS", installation.etcd_endpoints.clone()),
        plain("BELLOWS_PREFIX", installation.prefix.clone()),
        downward("BELLOWS_NAMESPACE", "metadata.namespace"),
        plain("BELLOWS_DEFINITION", definition.id.name.to_string()),
        downward("BELLOWS_POD_NAME", "metadata.name"),
        plain("BELLOWS_VERSION", worker.image.clone()),
        plain("BELLOWS_CONCURRENCY", worker.concurrency.to_string()),
        plain("BELLOWS_LEASE_TTL", ttl.to_string()),
        plain("BELLOWS_DRAIN_TIMEOUT", drain.to_string()),
        plain("BELLOWS_HTTP_ADDR", format!("0.0.0.0:{}", super::pod::HTTP_PORT)),
    ];
    let theirs = |name: &str| !name.starts_with("BELLOWS_") || FREE.contains(&name);
    env.extend(worker.env.iter().filter(|var| theirs(&var.name)).cloned());
    env
}

fn plain(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn downward(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}
