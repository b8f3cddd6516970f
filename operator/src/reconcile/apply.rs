//! Step 4: make it so, by server-side apply.
//!
//! The controller's field manager is `bellows-controller`. It owns the Deployment but
//! for `spec.replicas`, which is the scaler's from its first decision on. Leaving the
//! field out while nobody owns it would reset it to 1, so until then it is carried
//! along as it is.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};

use super::build::{self, Installation};
use super::validate::ValidDefinition;
use crate::scale::run::SCALER;

/// The controller's field manager.
pub const CONTROLLER: &str = "bellows-controller";

/// Applies the Deployment over the one that was `found`.
pub async fn deployment(
    client: &Client,
    definition: &ValidDefinition,
    installation: &Installation,
    found: Option<&Deployment>,
) -> Result<Deployment, kube::Error> {
    let replicas = replicas(definition, found);
    let mut wanted = build::deployment(definition, installation, replicas);
    if let Some(found) = found.filter(|_| replicas.is_some()) {
        // The number we carry along may be old: refuse it if anything changed since.
        wanted.metadata.resource_version = found.resource_version();
    }
    let api: Api<Deployment> = Api::namespaced(client.clone(), definition.id.namespace.as_str());
    let params = PatchParams::apply(CONTROLLER).force();
    api.patch(definition.id.name.as_str(), &params, &Patch::Apply(&wanted)).await
}

/// The number to carry along; nothing once the scaler owns the field.
fn replicas(definition: &ValidDefinition, found: Option<&Deployment>) -> Option<i32> {
    match found {
        None => i32::try_from(definition.spec.scaling.min_replicas).ok(),
        Some(found) if scaler_owns_replicas(found) => None,
        Some(found) => Some(found.spec.replicas.unwrap_or(1)),
    }
}

fn scaler_owns_replicas(deployment: &Deployment) -> bool {
    deployment.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(SCALER)
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use serde_json::json;

    use super::*;

    fn found(manager: &str, fields: serde_json::Value) -> Deployment {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(7);
        deployment.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }]);
        deployment
    }

    #[test]
    fn the_number_is_carried_along_until_the_scaler_owns_it() {
        let spec = serde_yaml_ng::from_str("worker: { image: x }\nscaling: { minReplicas: 2 }").unwrap();
        let id = bellows_registry::id::DefinitionId::new("a", "b").unwrap();
        let definition = ValidDefinition { id, uid: "u".to_owned(), generation: 1, spec };
        let owns = json!({ "f:spec": { "f:replicas": {} } });
        assert_eq!(replicas(&definition, None), Some(2));
        assert_eq!(replicas(&definition, Some(&found(CONTROLLER, owns.clone()))), Some(7));
        assert_eq!(replicas(&definition, Some(&found(SCALER, json!({ "f:spec": {} })))), Some(7));
        assert_eq!(replicas(&definition, Some(&found(SCALER, owns))), None);
    }
}
