//! Objects a user of the example would write: the volume, and pods that publish and wait.

use std::path::Path;

use serde_json::{Value, json};

use crate::names::{CLAIM, IMAGE, MOUNT, RELEASE, SYSTEM, WORK};

/// The namespace, and the volume of photographs with its claim.
///
/// Every node must see the same folder at `path`.
pub fn volume(path: &Path) -> String {
    let size = json!({ "storage": "1Gi" });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": CLAIM },
        "spec": {
            "capacity": size, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": { "namespace": WORK, "name": CLAIM },
            "hostPath": { "path": path, "type": "Directory" },
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": CLAIM, "namespace": WORK },
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": CLAIM,
            "resources": { "requests": size },
        },
    });
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": WORK } });
    list(&[namespace, volume, claim])
}

/// A pod that runs the example's publisher with these arguments, once.
pub fn publisher(name: &str, arguments: &[&str]) -> String {
    let etcd = format!("http://{RELEASE}-etcd.{SYSTEM}:2379");
    let container = json!({
        "name": "publisher", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["/thumbnails"], "args": arguments,
        "env": [
            { "name": "BELLOWS_ETCD_ENDPOINTS", "value": etcd },
            { "name": "BELLOWS_NAMESPACE", "value": WORK },
            { "name": "THUMBNAILS_VOLUME", "value": MOUNT },
        ],
        "volumeMounts": [{ "name": "photos", "mountPath": MOUNT }],
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": WORK,
            "labels": { "app.kubernetes.io/name": "thumbnails-publisher", "bellows.dev/etcd-client": "publisher" },
        },
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "volumes": [{ "name": "photos", "persistentVolumeClaim": { "claimName": CLAIM } }],
        },
    });
    list(&[pod])
}

fn list(items: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}
