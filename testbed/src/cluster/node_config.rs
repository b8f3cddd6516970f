//! The configuration files of a node's servers. JSON is YAML, so the kubelet and kube-proxy read it.

use std::fs;

use serde_json::{Value, json};

use super::images::PAUSE_IMAGE;
use super::layout::{DNS_ADDRESS, Layout, NodeLayout, POD_RANGE, shown};
use crate::error::{IoContext, Result};
use crate::host::CNI_PLUGINS;

/// Writes all but the CNI configuration, which needs the node's pod addresses.
pub(super) fn write(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let files = [
        ("containerd.toml", containerd(node)),
        ("kubelet.json", format!("{:#}\n", kubelet(layout, node))),
        ("kube-proxy.json", format!("{:#}\n", kube_proxy(layout, node))),
        ("resolv.conf", format!("nameserver {DNS_ADDRESS}\n")),
    ];
    for (file, text) in files {
        let path = node.path(file);
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Runs with 1.6 and 2.x. `restrict_oom_score_adj`: without the right to lower it, no sandbox starts otherwise.
fn containerd(node: &NodeLayout) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
oom_score = 0

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{conf}"
"#,
        root = shown(node.path("ctd")),
        state = shown(node.path("run")),
        socket = shown(node.socket()),
        conf = shown(node.path("cni/net.d")),
    )
}

fn kubelet(layout: &Layout, node: &NodeLayout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address(),
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.pki("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": layout.pki(&format!("{}.crt", node.name)),
        "tlsPrivateKeyFile": layout.pki(&format!("{}.key", node.name)),
        "containerRuntimeEndpoint": format!("unix://{}", shown(node.socket())),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": shown(node.path("resolv.conf")),
        "volumePluginDir": shown(node.path("plugins")),
        "podLogsDir": shown(node.path("pod-logs")),
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        // Images come from archives and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 10,
    })
}

fn kube_proxy(layout: &Layout, node: &NodeLayout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "clientConnection": { "kubeconfig": shown(layout.kubeconfig("proxy")) },
        "hostnameOverride": node.name,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // Zero leaves the machine's connection tracking alone.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "nftables": { "minSyncPeriod": "100ms", "syncPeriod": "30s" },
    })
}

/// How the pods of a node get their addresses.
pub(super) fn cni(node: &NodeLayout, range: &str) -> String {
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": shown(node.path("cni/ipam")),
                    "ranges": [[{ "subnet": range }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    });
    format!("{config:#}\n")
}
