//! Step 5: what the controller says about a definition.
//!
//! It owns `Ready`, `Progressing`, `observedGeneration` and `selector`, and writes only
//! what changed. What it computes is pure; `write` is the rim.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::Guarded;
use super::apply::CONTROLLER;
use super::build::DEFINITION_LABEL;
use crate::crd::{ConditionType, TaskDefinitionStatus};

/// A condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub condition: ConditionType,
    /// Whether it holds.
    pub holds: Holds,
    /// Why; stable.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    True,
    /// It does not.
    False,
}

impl Holds {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

impl Finding {
    /// A finding.
    pub fn new(condition: ConditionType, holds: Holds, reason: &str, message: impl Into<String>) -> Self {
        Self { condition, holds, reason: reason.to_owned(), message: message.into() }
    }

    /// Whether a condition says so.
    pub fn is(&self, condition: &Condition) -> bool {
        condition.type_ == self.condition.as_str()
            && condition.status == self.holds.as_str()
            && condition.reason == self.reason
            && condition.message == self.message
    }

    /// As it stands in the status: the time is that of the last change of `holds`.
    pub fn stamped(self, before: &[Condition], generation: i64, now: Time) -> Condition {
        let type_ = self.condition.as_str();
        let same = before.iter().find(|c| c.type_ == type_ && c.status == self.holds.as_str());
        Condition {
            type_: type_.to_owned(),
            status: self.holds.as_str().to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: Some(generation),
            last_transition_time: same.map_or(now, |condition| condition.last_transition_time.clone()),
        }
    }
}

/// How the rollout of the Deployment stands.
pub fn progressing(deployment: &Deployment) -> Finding {
    let status = deployment.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |c: &DeploymentCondition, type_: &str, status: &str| {
        c.type_.as_deref() == Some(type_) && c.status.as_deref() == Some(status)
    };
    let failed = |c: &&DeploymentCondition| is(c, "ReplicaFailure", "True") || is(c, "Progressing", "False");
    if let Some(failure) = conditions.iter().find(failed) {
        let reason = failure.reason.clone().unwrap_or_else(|| "RolloutFailed".to_owned());
        let message = failure.message.clone().unwrap_or_default();
        return Finding::new(ConditionType::Progressing, Holds::False, &reason, message);
    }
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let seen = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    if !seen || updated < wanted || total > updated {
        let message = format!("{updated} of {wanted} worker pods are of the newest template");
        return Finding::new(ConditionType::Progressing, Holds::True, "RollingOut", message);
    }
    if status.ready_replicas.unwrap_or(0) < wanted {
        // How many are, is in `readyReplicas`: a message that counted them would be written
        // once for each pod of a way out.
        let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
        let message = format!(
            "not all of {wanted} worker pods are ready; if this lasts: kubectl describe pods -n {namespace} -l {DEFINITION_LABEL}={name}"
        );
        return Finding::new(ConditionType::Progressing, Holds::True, "PodsNotReady", message);
    }
    let message = "every worker pod is of the newest template, and ready";
    Finding::new(ConditionType::Progressing, Holds::False, "Complete", message)
}

/// The controller's part of a status.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The generation dealt with.
    pub generation: i64,
    /// The conditions.
    pub findings: Vec<Finding>,
    /// The selector of the pods, once it is known.
    pub selector: Option<String>,
}

/// Whose status: name and UID, so that another life of the name is not written to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
    /// The UID.
    pub uid: &'a str,
}

/// Writes the part, unless `before` says it already.
pub async fn write(
    client: &Client,
    target: Target<'_>,
    part: Part,
    before: &TaskDefinitionStatus,
    now: Time,
) -> Result<(), kube::Error> {
    let conditions: Vec<Condition> = part
        .findings
        .into_iter()
        .map(|finding| finding.stamped(&before.conditions, part.generation, now.clone()))
        .collect();
    let known = conditions.iter().all(|condition| before.conditions.contains(condition))
        && before.observed_generation == Some(part.generation)
        && (part.selector.is_none() || before.selector == part.selector);
    if known {
        return Ok(());
    }
    let selector = part.selector.or_else(|| before.selector.clone());
    let status = json!({
        "observedGeneration": part.generation,
        "conditions": conditions,
        "selector": selector,
    });
    apply(client, target, CONTROLLER, status).await
}

/// Server-side apply of one manager's part of a status.
pub async fn apply(
    client: &Client,
    target: Target<'_>,
    manager: &str,
    mut status: serde_json::Value,
) -> Result<(), kube::Error> {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let body = json!({
        "apiVersion": "bellows.dev/v1alpha1",
        "kind": "TaskDefinition",
        "metadata": { "name": target.name, "namespace": target.namespace, "uid": target.uid },
        "status": status,
    });
    // Guarded: a definition that cannot be read has to be told so.
    let api: Api<Guarded> = Api::namespaced(client.clone(), target.namespace);
    let params = PatchParams::apply(manager).force();
    api.patch_status(target.name, &params, &Patch::Apply(&body)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let ready = |holds| Finding::new(ConditionType::Ready, holds, "R", "m");
        let first = ready(Holds::True).stamped(&[], 1, at(10));
        let same = ready(Holds::True).stamped(std::slice::from_ref(&first), 2, at(20));
        let other = ready(Holds::False).stamped(std::slice::from_ref(&first), 2, at(30));
        assert_eq!((same.last_transition_time, same.observed_generation), (at(10), Some(2)));
        assert_eq!(other.last_transition_time, at(30));
    }

    #[test]
    fn pods_that_do_not_get_ready_are_told_in_one_sentence_with_a_command() {
        let mut deployment = Deployment::default();
        (deployment.metadata.name, deployment.metadata.namespace) =
            (Some("resize".to_owned()), Some("media".to_owned()));
        deployment.spec.replicas = Some(5);
        let mut found = |ready| {
            let status = deployment.status.get_or_insert_default();
            (status.replicas, status.updated_replicas, status.ready_replicas) = (Some(5), Some(5), ready);
            progressing(&deployment)
        };
        let none = found(None);
        assert_eq!((none.holds, none.reason.as_str()), (Holds::True, "PodsNotReady"));
        assert!(
            none.message.ends_with("kubectl describe pods -n media -l bellows.dev/definition=resize"),
            "{}",
            none.message
        );
        assert_eq!(found(Some(1)), none, "pods that get ready one by one are no news");
        assert_eq!(found(Some(4)), none);
        assert_eq!(found(Some(5)).reason, "Complete");
    }

    #[test]
    fn no_pods_are_ready_where_none_are_wanted() {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(0);
        assert_eq!(progressing(&deployment).reason, "Complete");
    }

    #[test]
    fn a_rollout_progresses_until_every_pod_is_new_and_says_why_it_failed() {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(2);
        assert_eq!(progressing(&deployment).holds, Holds::True);
        let status = deployment.status.get_or_insert_default();
        (status.replicas, status.updated_replicas, status.ready_replicas) = (Some(2), Some(2), Some(2));
        assert_eq!(progressing(&deployment).reason, "Complete");
        deployment.status.get_or_insert_default().conditions = Some(vec![DeploymentCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            reason: Some("FailedCreate".to_owned()),
            message: Some("exceeded quota".to_owned()),
            ..DeploymentCondition::default()
        }]);
        let failed = progressing(&deployment);
        assert_eq!((failed.reason.as_str(), failed.message.as_str()), ("FailedCreate", "exceeded quota"));
    }
}
