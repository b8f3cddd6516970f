//! The worker pod: the allow-listed fields, and the restricted profile around them.

use std::time::Duration;

use bellows_registry::spec::Span;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction,
    KeyToPath, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ETCD_CLIENT_LABEL, Installation, env, labels, map, selector};
use crate::crd::{self, ItemToPath, Medium, Resources};
use crate::reconcile::validate::ValidDefinition;

/// Where a worker serves health and metrics.
pub(super) const HTTP_PORT: i32 = 8080;

/// The user that worker processes run as, whatever the image says: an image made
/// `FROM scratch` has none, and root is refused.
const USER: i64 = 65532;

/// The longest drain that follows from a time-out alone.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// What an ending pod gets beyond its drain, to hand back the rest and say good-bye.
const MARGIN: Duration = Duration::from_secs(10);

/// How long a worker may take until it serves its health, in seconds.
const SLOWEST_START: i32 = 300;

pub(super) fn template(definition: &ValidDefinition, installation: &Installation) -> PodTemplateSpec {
    let worker = &definition.spec.worker;
    let drain = drain(definition);
    let mut labels = labels(definition);
    labels.extend(map([(ETCD_CLIENT_LABEL, "worker")]));
    let spec = PodSpec {
        containers: vec![container(definition, installation, drain)],
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security()),
        termination_grace_period_seconds: i64::try_from((drain.get() + MARGIN).as_secs()).ok(),
        volumes: list(worker.volumes.iter().map(volume)),
        node_selector: Some(worker.node_selector.clone()).filter(|selector| !selector.is_empty()),
        tolerations: list(worker.tolerations.iter().cloned()),
        affinity: worker.affinity.clone(),
        topology_spread_constraints: list(
            worker.topology_spread_constraints.iter().map(|constraint| spread(definition, constraint)),
        ),
        service_account_name: worker.service_account_name.clone(),
        image_pull_secrets: list(worker.image_pull_secrets.iter().cloned()),
        priority_class_name: worker.priority_class_name.clone(),
        ..PodSpec::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(spec),
    }
}

/// How long an ending pod may finish what it runs.
fn drain(definition: &ValidDefinition) -> Span {
    let timeout = definition.spec.execution.timeout;
    let longest = Span::secs(LONGEST_DRAIN.as_secs());
    definition.spec.worker.drain_timeout.unwrap_or(timeout.min(longest))
}

fn container(definition: &ValidDefinition, installation: &Installation, drain: Span) -> Container {
    let worker = &definition.spec.worker;
    Container {
        name: "worker".to_owned(),
        image: Some(worker.image.clone()),
        image_pull_policy: worker.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        command: list(worker.command.iter().cloned()),
        args: list(worker.args.iter().cloned()),
        env: Some(env::env(definition, installation, drain)),
        env_from: list(worker.env_from.iter().cloned()),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: HTTP_PORT,
            ..ContainerPort::default()
        }]),
        resources: worker.resources.as_ref().map(resources),
        volume_mounts: list(worker.volume_mounts.iter().cloned()),
        // Alive is not asked before it was answered once: a worker may load a model first, and
        // a restart would only begin that again.
        startup_probe: Some(probe("/healthz", 2, SLOWEST_START / 2)),
        // Ready follows the registry's signal closely; alive is asked patiently, since a
        // restart costs every task of the pod.
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        security_context: Some(container_security()),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

fn resources(resources: &Resources) -> ResourceRequirements {
    ResourceRequirements {
        limits: Some(resources.limits.clone()).filter(|limits| !limits.is_empty()),
        requests: Some(resources.requests.clone()).filter(|requests| !requests.is_empty()),
        ..ResourceRequirements::default()
    }
}

fn spread(definition: &ValidDefinition, constraint: &TopologySpreadConstraint) -> TopologySpreadConstraint {
    let mut constraint = constraint.clone();
    constraint.label_selector.get_or_insert_with(|| LabelSelector {
        match_labels: Some(selector(definition)),
        ..LabelSelector::default()
    });
    constraint
}

fn volume(volume: &crd::Volume) -> Volume {
    Volume {
        name: volume.name.clone(),
        config_map: volume.config_map.as_ref().map(|source| ConfigMapVolumeSource {
            name: source.name.clone(),
            items: items(&source.files.items),
            optional: source.files.optional,
            default_mode: source.files.default_mode,
            ..Default::default()
        }),
        secret: volume.secret.as_ref().map(|source| SecretVolumeSource {
            secret_name: Some(source.secret_name.clone()),
            items: items(&source.files.items),
            optional: source.files.optional,
            default_mode: source.files.default_mode,
            ..Default::default()
        }),
        empty_dir: volume.empty_dir.as_ref().map(|source| EmptyDirVolumeSource {
            medium: source.medium.map(|Medium::Memory| "Memory".to_owned()),
            size_limit: source.size_limit.clone(),
            ..EmptyDirVolumeSource::default()
        }),
        persistent_volume_claim: volume.persistent_volume_claim.as_ref().map(|source| {
            PersistentVolumeClaimVolumeSource {
                claim_name: source.claim_name.clone(),
                read_only: source.read_only,
            }
        }),
        ..Volume::default()
    }
}

fn items(items: &[ItemToPath]) -> Option<Vec<KeyToPath>> {
    list(items.iter().map(|item| KeyToPath {
        key: item.key.clone(),
        path: item.path.clone(),
        mode: item.mode,
        ..KeyToPath::default()
    }))
}

/// Nothing rather than an empty list, so that applying it owns nothing.
fn list<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    Some(items.collect::<Vec<T>>()).filter(|items| !items.is_empty())
}
