//! The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the first network
//! namespace. Each function starts its server unless it runs, so they also repair.

use std::fs;
use std::time::Duration;

use super::kubectl::Kubectl;
use super::layout::{CONTROL_ADDRESS, Layout, POD_RANGE, SERVICE_RANGE, shown};
use super::server::{self, Place};
use crate::clock::wait_until;
use crate::command::{command, run};
use crate::error::Result;
use crate::process::MARK;
use crate::tools::Tool;

const READY_WITHIN: Duration = Duration::from_secs(90);

/// The servers of the control plane by name.
pub(super) const SERVERS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

pub(super) fn start_etcd(layout: &Layout) -> Result<()> {
    let flags = [
        "--name=e".to_owned(),
        format!("--data-dir={}", shown(layout.folder("etcd"))),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=e=http://127.0.0.1:2380".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    ensure(layout, "etcd", Tool::Etcd, &flags)
}

pub(super) fn wait_etcd(layout: &Layout) -> Result<()> {
    let etcdctl = Tool::Etcd.program("etcdctl")?;
    wait_until("etcd to be healthy", READY_WITHIN, || {
        server::require_alive(layout, "etcd")?;
        if !listens(layout, "etcd", 2379) {
            return Ok(None);
        }
        let mut health = command("nsenter", &[format!("--net={}", shown(layout.control_net()))]);
        health.env(MARK, &layout.state).arg(&etcdctl).args(["--command-timeout=1s", "endpoint", "health"]);
        Ok(run(&mut health).ok().map(drop))
    })
}

pub(super) fn start_apiserver(layout: &Layout) -> Result<()> {
    let mut flags = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={CONTROL_ADDRESS}"),
        format!("--advertise-address={CONTROL_ADDRESS}"),
        "--secure-port=6443".to_owned(),
        format!("--cert-dir={}", shown(layout.folder("apiserver"))),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
        // Extension API servers, with no need for a way from here to service addresses.
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--enable-aggregator-routing=true".to_owned(),
    ];
    let files = [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("kubelet-client-certificate", "kubelet-client.crt"),
        ("kubelet-client-key", "kubelet-client.key"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ];
    flags.extend(files.map(|(flag, file)| format!("--{flag}={}", layout.pki(file))));
    ensure(layout, "kube-apiserver", Tool::Kube, &flags)
}

pub(super) fn wait_apiserver(layout: &Layout) -> Result<()> {
    let kubectl = Kubectl::new(layout)?;
    wait_until("the API server to be ready", READY_WITHIN, || {
        server::require_alive(layout, "kube-apiserver")?;
        if !listens(layout, "kube-apiserver", 6443) {
            return Ok(None);
        }
        Ok(kubectl.run(&["get", "--raw=/readyz", "--request-timeout=2s"]).ok().map(drop))
    })
}

pub(super) fn start_controllers(layout: &Layout) -> Result<()> {
    let mut flags = with_kubeconfig(layout, "kcm");
    flags.extend([
        format!("--service-account-private-key-file={}", layout.pki("sa.key")),
        format!("--root-ca-file={}", layout.pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", layout.pki("ca.crt")),
        format!("--cluster-signing-key-file={}", layout.pki("ca.key")),
        format!("--requestheader-client-ca-file={}", layout.pki("front-proxy-ca.crt")),
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        format!("--cert-dir={}", shown(layout.folder("kcm"))),
        // Without this it makes a folder in /usr/libexec of the machine.
        format!("--flex-volume-plugin-dir={}", shown(layout.folder("kcm/flex"))),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        "--node-monitor-grace-period=20s".to_owned(),
    ]);
    ensure(layout, "kube-controller-manager", Tool::Kube, &flags)
}

pub(super) fn start_scheduler(layout: &Layout) -> Result<()> {
    let mut flags = with_kubeconfig(layout, "sched");
    flags.push(format!("--cert-dir={}", shown(layout.folder("sched"))));
    ensure(layout, "kube-scheduler", Tool::Kube, &flags)
}

/// What controller manager and scheduler have in common: one of each, so no election, and no throttling.
fn with_kubeconfig(layout: &Layout, who: &str) -> Vec<String> {
    let file = shown(layout.kubeconfig(who));
    vec![
        format!("--kubeconfig={file}"),
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}

/// Whether the server's port is open, read from the kernel's table of its network: starting a client again and again
/// would take the processor from the server that is to come up.
fn listens(layout: &Layout, server: &str, port: u16) -> bool {
    let Some(process) = server::running(layout, server) else { return false };
    // The second field is the local address with the port in hexadecimal, the fourth is 0A for a listener.
    let open = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A") && fields[1].ends_with(&format!(":{port:04X}"))
    };
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{}/net/{table}", process.pid()));
        text.is_ok_and(|text| text.lines().any(open))
    })
}

fn ensure(layout: &Layout, name: &str, tool: Tool, flags: &[String]) -> Result<()> {
    if server::running(layout, name).is_none() {
        server::start(layout, name, Place::Net(&layout.control_net()), &tool.program(name)?, flags)?;
    }
    Ok(())
}
