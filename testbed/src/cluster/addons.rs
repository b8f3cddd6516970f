//! What a cluster has beyond its servers: a name server, and a default storage class with a few local volumes.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::images::COREDNS_IMAGE;
use super::kubectl::Kubectl;
use super::layout::{DNS_ADDRESS, Layout, shown};
use crate::clock::retry;
use crate::error::{IoContext, Result};

/// How many volumes can be bound at a time.
const VOLUMES: usize = 8;

const COREFILE: &str = "\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    cache 5
}
";

/// Creates or updates all of it.
pub(super) fn apply(layout: &Layout) -> Result<()> {
    for number in 1..=VOLUMES {
        let folder = layout.volumes().join(format!("v{number}"));
        fs::create_dir_all(&folder).context(|| format!("make {}", folder.display()))?;
    }
    let mut items = name_server();
    items.push(storage_class());
    items.extend((1..=VOLUMES).map(|number| volume(layout, number)));
    let manifest = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
    let kubectl = Kubectl::new(layout)?;
    // The API server makes kube-system just after it says that it is ready.
    retry("the name server and the volumes to be accepted", Duration::from_secs(30), || {
        kubectl.run_with_input(&["apply", "--filename=-"], &manifest).map(drop)
    })
}

fn name_server() -> Vec<Value> {
    let labels = json!({ "k8s-app": "kube-dns" });
    let metadata = |name: &str| json!({ "name": name, "namespace": "kube-system", "labels": labels });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("coredns") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces", "endpoints"],
                    "verbs": ["list", "watch"],
                },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata("coredns"),
            "data": { "Corefile": COREFILE },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata("kube-dns"),
            "spec": {
                "clusterIP": DNS_ADDRESS,
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata("coredns"),
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": name_server_pod() },
            },
        }),
    ]
}

fn name_server_pod() -> Value {
    json!({
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [{
            "name": "coredns",
            "image": COREDNS_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-conf", "/etc/coredns/Corefile"],
            // The image's own user may not bind port 53 with the capability taken away.
            "securityContext": { "runAsUser": 0 },
            "ports": [{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 53, "protocol": "TCP" }],
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
        }],
        "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
    })
}

fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// A folder of the machine as a volume of node 1. `local`, as it honours `fsGroup`, which `hostPath` does not.
fn volume(layout: &Layout, number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": format!("v{number}") },
        "spec": {
            "capacity": { "storage": "20Gi" },
            "accessModes": ["ReadWriteOnce"],
            // Nobody here could delete one; `Testbed::recycle_volumes` makes released ones usable again.
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": { "path": shown(layout.volumes().join(format!("v{number}"))) },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [{
                        "matchExpressions": [
                            { "key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"] },
                        ],
                    }],
                },
            },
        },
    })
}

/// Empties the volumes that were released and offers them again.
pub(super) fn recycle_volumes(layout: &Layout) -> Result<usize> {
    let kubectl = Kubectl::new(layout)?;
    let all = kubectl.json(&["get", "persistentvolumes"])?;
    let released = |volume: &&Value| volume["status"]["phase"] == "Released";
    let names = all["items"].as_array().into_iter().flatten().filter(released);
    let names: Vec<&str> = names.filter_map(|volume| volume["metadata"]["name"].as_str()).collect();
    for name in &names {
        let folder = layout.volumes().join(name);
        fs::remove_dir_all(&folder).context(|| format!("empty {}", folder.display()))?;
        fs::create_dir_all(&folder).context(|| format!("make {}", folder.display()))?;
        kubectl.run(&["patch", "persistentvolume", name, "--patch", r#"{"spec":{"claimRef":null}}"#])?;
    }
    Ok(names.len())
}

/// Waits until names are answered.
pub(super) fn wait_name_server(layout: &Layout) -> Result<()> {
    let kubectl = Kubectl::new(layout)?;
    let args = [
        "wait",
        "--namespace=kube-system",
        "--for=condition=Available",
        "deployment/coredns",
        "--timeout=90s",
    ];
    kubectl.run(&args).map(drop)
}
