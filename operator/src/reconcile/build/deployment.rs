//! The worker Deployment.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use super::{Installation, labels, pod, selector};
use crate::reconcile::validate::ValidDefinition;

/// The Deployment of a definition. `replicas` is set only while the scaler does not own
/// that field: leaving out a field that nobody else owns would reset it to 1.
pub fn deployment(
    definition: &ValidDefinition,
    installation: &Installation,
    replicas: Option<i32>,
) -> Deployment {
    Deployment {
        metadata: ObjectMeta {
            name: Some(definition.id.name.to_string()),
            namespace: Some(definition.id.namespace.to_string()),
            labels: Some(labels(definition)),
            owner_references: Some(vec![owner(definition)]),
            ..ObjectMeta::default()
        },
        spec: DeploymentSpec {
            replicas,
            revision_history_limit: Some(3),
            selector: LabelSelector { match_labels: Some(selector(definition)), ..LabelSelector::default() },
            template: pod::template(definition, installation),
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn owner(definition: &ValidDefinition) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/v1alpha1", crate::crd::GROUP),
        kind: "TaskDefinition".to_owned(),
        name: definition.id.name.to_string(),
        uid: definition.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
