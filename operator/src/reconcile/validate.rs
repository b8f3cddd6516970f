//! Step 2: from what the API server stores to what may be built. (No client required.)
//!
//! The schema refuses most mistakes at the door. This catches what a schema cannot
//! say, what an older schema let in, and a Deployment that is somebody else's.

use bellows_registry::id::{DefinitionId, IdError};
use bellows_registry::spec::PolicyError;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use crate::crd::{TaskDefinition, TaskDefinitionSpec};

/// A definition that may be acted on.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidDefinition {
    /// Namespace and name.
    pub id: DefinitionId,
    /// Its UID: another UID is another life of the name.
    pub uid: String,
    /// The generation that was read.
    pub generation: i64,
    /// What it says.
    pub spec: TaskDefinitionSpec,
}

/// Why a definition is not acted on. Each is told in the `Ready` condition.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It does not parse.
    #[error("the definition cannot be read: {0}")]
    Unreadable(String),
    /// Its name is no name in the registry.
    #[error(transparent)]
    Name(#[from] IdError),
    /// Its policy contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The Deployment of its name is not its own.
    #[error(
        "the Deployment {0:?} exists and is not owned by this TaskDefinition; it is left untouched. Delete or rename it, or give the TaskDefinition another name"
    )]
    ForeignDeployment(String),
}

impl Invalid {
    /// The reason in the condition; stable.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Name(_) | Self::Policy(_) => "Invalid",
            Self::ForeignDeployment(_) => "ForeignDeployment",
        }
    }
}

/// Checks the definition itself.
pub fn validate(guard: &DeserializeGuard<TaskDefinition>) -> Result<ValidDefinition, Invalid> {
    let definition = guard.0.as_ref().map_err(|error| Invalid::Unreadable(error.error.clone()))?;
    let namespace = definition.namespace().unwrap_or_default();
    let id = DefinitionId::new(&namespace, &definition.name_any())?;
    definition.spec.policy().check()?;
    Ok(ValidDefinition {
        id,
        uid: definition.uid().unwrap_or_default(),
        generation: definition.meta().generation.unwrap_or_default(),
        spec: definition.spec.clone(),
    })
}

/// Refuses to touch a Deployment that is not owned by the definition. Labels prove
/// nothing: only the controller reference with our UID does.
pub fn check_ownership(definition: &ValidDefinition, found: Option<&Deployment>) -> Result<(), Invalid> {
    match found {
        Some(deployment) if !owned_by(deployment, &definition.uid) => {
            Err(Invalid::ForeignDeployment(deployment.name_any()))
        }
        _ => Ok(()),
    }
}

/// Whether the controller of `deployment` is the object with this UID.
pub fn owned_by(deployment: &Deployment, uid: &str) -> bool {
    controller(deployment).is_some_and(|owner| owner.uid == uid)
}

/// The TaskDefinition that controls a Deployment.
pub fn controller(deployment: &Deployment) -> Option<&OwnerReference> {
    let is_ours = |owner: &&OwnerReference| {
        owner.controller == Some(true)
            && owner.kind == "TaskDefinition"
            && owner.api_version.starts_with("bellows.dev/")
    };
    deployment.metadata.owner_references.as_ref()?.iter().find(is_ours)
}
