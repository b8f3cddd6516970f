//! What the schema demands beyond types: CEL rules with messages, bounds, cuts.
//!
//! Tables only, read by `schema.rs`. A path is dotted; `[]` steps into the items of a
//! list. Every list, map and text under `spec` has a bound, because the API server
//! prices a CEL rule by the largest object it could meet.

/// A CEL rule at a path of the schema.
pub(super) struct Rule {
    pub(super) at: &'static str,
    pub(super) rule: &'static str,
    pub(super) message: &'static str,
}

const fn rule(at: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { at, rule, message }
}

/// Fields that hold a duration: the same form and limit everywhere.
pub(super) const SPANS: [&str; 8] = [
    "spec.execution.timeout",
    "spec.execution.retry.backoff.initial",
    "spec.execution.retry.backoff.max",
    "spec.execution.rateLimit.per",
    "spec.retention.succeeded",
    "spec.retention.failed",
    "spec.scaling.scaleToZeroAfter",
    "spec.worker.drainTimeout",
];

/// The form of a duration, and its limit. A rule on the field checks it, with a message; a
/// rule that computes with the field must not fail on one that is malformed, so it asks
/// first. The numbers of digits keep the longest one far from what CEL can count.
pub(super) const SPAN_FORM: &str = "size(self) > 1 && self.matches('^([0-9]{1,4}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?([0-9]{1,11}ms)?$') && duration(self) <= duration('8760h')";

/// Said of a malformed duration, and of one that is too long.
pub(super) const SPAN_MESSAGE: &str =
    "must be a duration in whole numbers with units, such as 300ms, 30s, 5m or 1h30m, and at most 8760h";

pub(super) const RULES: [Rule; 32] = [
    rule(
        "",
        "size(self.metadata.name) <= 63",
        "the name of a TaskDefinition has at most 63 characters: it becomes a label of its pods",
    ),
    rule(
        "spec.trigger",
        "self == oldSelf",
        "trigger cannot be changed: delete the TaskDefinition and create another one",
    ),
    rule(
        "spec.execution.timeout",
        "!self.matches('^([0-9]+(h|m|s|ms))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))",
        "execution.timeout must be from 1s to 24h",
    ),
    rule(
        "spec.execution.retry.backoff",
        "!self.initial.matches('^([0-9]+(h|m|s|ms))+$') || !self.max.matches('^([0-9]+(h|m|s|ms))+$') || duration(self.initial) <= duration(self.max)",
        "backoff.initial must not be longer than backoff.max",
    ),
    rule(
        "spec.execution.retry.backoff.jitter",
        "self.matches('^(100|[0-9]{1,2})%$')",
        "jitter must be a percentage from 0% to 100%, such as 20%",
    ),
    rule(
        "spec.execution.concurrencyLimit",
        "has(self.total) || has(self.perKey)",
        "execution.concurrencyLimit needs total or perKey",
    ),
    rule(
        "spec.execution.rateLimit",
        "has(self.tasks) || has(self.perKey)",
        "execution.rateLimit needs tasks or perKey",
    ),
    rule(
        "spec.execution.rateLimit.per",
        "!self.matches('^([0-9]+(h|m|s|ms))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))",
        "execution.rateLimit.per must be from 1s to 1h",
    ),
    rule(
        "spec.execution.keyShares",
        "self.all(key, self[key] >= 1 && self[key] <= 100 && size(key) <= 128)",
        "a share of execution.keyShares must be from 1 to 100, of a key of at most 128 bytes",
    ),
    rule(
        "spec.scaling",
        "self.minReplicas <= self.maxReplicas",
        "scaling.minReplicas must not be greater than scaling.maxReplicas",
    ),
    rule(
        "spec.worker.drainTimeout",
        "!self.matches('^([0-9]+(h|m|s|ms))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))",
        "worker.drainTimeout must be from 1s to 24h",
    ),
    rule(
        "spec.worker.image",
        "size(self) > 0 && !self.matches('[[:space:]]')",
        "worker.image must name an image, such as registry.example/resize:1.4, without white space",
    ),
    rule(
        "spec.worker.env[]",
        "self.name.matches('^[-._a-zA-Z][-._a-zA-Z0-9]*$')",
        "the name of an environment variable consists of letters, digits, '_', '-' and '.' and does not begin with a digit",
    ),
    rule(
        "spec.worker.env[]",
        "!self.name.startsWith('BELLOWS_') || self.name in ['BELLOWS_LOG', 'BELLOWS_LOG_FORMAT']",
        "environment variables that begin with BELLOWS_ are set by the operator, but for BELLOWS_LOG and BELLOWS_LOG_FORMAT",
    ),
    rule(
        "spec.worker.env[]",
        "!(has(self.value) && has(self.valueFrom))",
        "an environment variable has either value or valueFrom, not both",
    ),
    rule(
        "spec.worker.env[].valueFrom",
        "[has(self.configMapKeyRef), has(self.secretKeyRef), has(self.fieldRef), has(self.resourceFieldRef)].filter(x, x).size() == 1",
        "valueFrom has exactly one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef",
    ),
    rule(
        "spec.worker.envFrom[]",
        "has(self.configMapRef) != has(self.secretRef)",
        "an entry of envFrom has exactly one of configMapRef and secretRef",
    ),
    rule(
        "spec.worker.volumes[]",
        "[has(self.configMap), has(self.secret), has(self.emptyDir), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
        "a volume has exactly one of configMap, secret, emptyDir and persistentVolumeClaim; no other kind is allowed",
    ),
    rule(
        "spec.worker.volumes[].name",
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a volume consists of lower-case letters, digits and '-'",
    ),
    rule("spec.worker.volumes[].configMap.items[].path", RELATIVE, RELATIVE_MESSAGE),
    rule("spec.worker.volumes[].secret.items[].path", RELATIVE, RELATIVE_MESSAGE),
    rule(
        "spec.worker.volumeMounts[].mountPath",
        "self.startsWith('/') && !self.contains(':') && self != '/'",
        "mountPath must be an absolute path below / and without ':'",
    ),
    rule(
        "spec.worker",
        "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
        "every entry of worker.volumeMounts must name one of worker.volumes",
    ),
    rule("spec.worker.volumes[].emptyDir.sizeLimit", "isQuantity(string(self))", QUANTITY_MESSAGE),
    rule("spec.worker.resources.limits", QUANTITIES, QUANTITY_MESSAGE),
    rule("spec.worker.resources.limits", RESOURCES, RESOURCE_MESSAGE),
    rule("spec.worker.resources.requests", QUANTITIES, QUANTITY_MESSAGE),
    rule("spec.worker.resources.requests", RESOURCES, RESOURCE_MESSAGE),
    rule(
        "spec.worker.resources",
        "!has(self.limits) || !has(self.requests) || self.requests.all(r, !(r in self.limits) || !isQuantity(string(self.requests[r])) || !isQuantity(string(self.limits[r])) || !quantity(string(self.requests[r])).isGreaterThan(quantity(string(self.limits[r]))))",
        "no request of worker.resources may be greater than its limit",
    ),
    rule(
        "spec.worker.topologySpreadConstraints",
        "self.all(a, self.exists_one(b, a.topologyKey == b.topologyKey && a.whenUnsatisfiable == b.whenUnsatisfiable))",
        "no two topologySpreadConstraints may have the same topologyKey and whenUnsatisfiable",
    ),
    rule(
        "spec.worker.serviceAccountName",
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "serviceAccountName must be the name of a ServiceAccount in the same namespace",
    ),
    rule(
        "spec.worker.imagePullSecrets[]",
        "has(self.name) && size(self.name) > 0",
        "an entry of imagePullSecrets needs the name of a Secret",
    ),
];

// What a Deployment would refuse. Malformed, its tasks would be taken and never run.
const QUANTITIES: &str =
    "self.all(r, isQuantity(string(self[r])) && !quantity(string(self[r])).isLessThan(quantity('0')))";
const QUANTITY_MESSAGE: &str = "must be a quantity, such as 500m, 2, 512Mi or 1Gi";
const RESOURCES: &str = "self.all(r, r in ['cpu', 'memory', 'ephemeral-storage'] || r.startsWith('hugepages-') || r.contains('/'))";
const RESOURCE_MESSAGE: &str = "a resource is cpu, memory, ephemeral-storage, hugepages-<size>, or a name with its domain, such as nvidia.com/gpu";

const RELATIVE: &str = "!self.startsWith('/') && !self.contains('..') && size(self) > 0";
const RELATIVE_MESSAGE: &str = "path must be relative and must not contain '..'";

/// Parts of the Kubernetes types that a worker cannot use: they are pruned by the API
/// server, and refused by a client that asks for strict validation.
pub(super) const CUTS: [&str; 8] = [
    "spec.worker.env[].valueFrom.fileKeyRef",
    "spec.worker.volumeMounts[].mountPropagation",
    "spec.worker.volumeMounts[].recursiveReadOnly",
    // The scheduler reads pod labels that our pods do not have per rollout.
    "spec.worker.topologySpreadConstraints[].matchLabelKeys",
    "spec.worker.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaceSelector",
    "spec.worker.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaceSelector",
    "spec.worker.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaceSelector",
    "spec.worker.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaceSelector",
];

/// Where the descriptions of Kubernetes' own types are left out: they are the greater
/// part of the CRD's size, and `kubectl explain pod.spec` has them.
pub(super) const TERSE: [&str; 9] = [
    "spec.worker.affinity",
    "spec.worker.tolerations",
    "spec.worker.topologySpreadConstraints",
    "spec.worker.env",
    "spec.worker.envFrom",
    "spec.worker.volumeMounts",
    "spec.worker.imagePullSecrets",
    "spec.worker.resources",
    "status.conditions",
];

/// Bounds that differ from the general ones of `schema.rs`.
pub(super) const BOUNDS: [(&str, &str, u64); 18] = [
    ("spec.worker.image", "maxLength", 512),
    ("spec.worker.env", "maxItems", 128),
    ("spec.worker.env[].name", "maxLength", 256),
    ("spec.worker.env[].value", "maxLength", 32768),
    ("spec.worker.envFrom", "maxItems", 32),
    ("spec.worker.command[]", "maxLength", 8192),
    ("spec.worker.args[]", "maxLength", 32768),
    ("spec.worker.volumes", "maxItems", 32),
    ("spec.worker.volumes[].name", "maxLength", 63),
    ("spec.worker.volumeMounts", "maxItems", 64),
    ("spec.worker.volumeMounts[].name", "maxLength", 63),
    ("spec.worker.volumeMounts[].mountPath", "maxLength", 512),
    ("spec.worker.resources.limits", "maxProperties", 16),
    ("spec.worker.resources.requests", "maxProperties", 16),
    ("spec.worker.tolerations", "maxItems", 32),
    ("spec.worker.topologySpreadConstraints", "maxItems", 8),
    ("spec.worker.imagePullSecrets", "maxItems", 16),
    ("spec.worker.serviceAccountName", "maxLength", 253),
];

/// Lists whose entries have a name of their own, so that two writers can each own some.
pub(super) const MAPS: [(&str, &str); 5] = [
    ("status.conditions", "type"),
    ("spec.worker.env", "name"),
    ("spec.worker.volumes", "name"),
    ("spec.worker.volumeMounts", "mountPath"),
    ("spec.worker.imagePullSecrets", "name"),
];
