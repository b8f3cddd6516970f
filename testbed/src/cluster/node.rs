//! A node: a pid, mount, uts and ipc namespace in the cluster's network, with its own containerd, kubelet and
//! kube-proxy. Starting what does not run is also how a node comes back after a power cut: its folder stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::{Layout, NodeLayout, shown};
use super::node_config;
use super::server::{self, Place};
use super::{cgroups, images};
use crate::clock::wait_until;
use crate::command::{command, run};
use crate::error::{Error, IoContext, Result};
use crate::host::find;
use crate::process::{MARK, Process};
use crate::tools::Tool;

/// The servers of a node, without its init.
pub(super) const SERVERS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

/// What a kubelet writes for the whole machine, and the value it wants to find. Files mounted over them take the
/// writes, so the machine keeps its own values.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Starts init and containerd, waits for containerd and gives it the system's images.
pub(super) fn start_runtime(layout: &Layout, node: &NodeLayout) -> Result<()> {
    for folder in
        ["var/upper", "var/work", "sysctl", "cni/net.d", "cni/ipam", "kubelet", "plugins", "pod-logs"]
    {
        let path = node.path(folder);
        fs::create_dir_all(&path).context(|| format!("make {}", path.display()))?;
    }
    cgroups::create(node)?;
    node_config::write(layout, node)?;
    let init = start_init(layout, node)?;
    if server::running(layout, &node.server("containerd")).is_none() {
        let program = program("containerd")?;
        let args = ["--config".to_owned(), shown(node.path("containerd.toml"))];
        server::start(layout, &node.server("containerd"), Place::Node(init), &program, &args)?;
    }
    wait_until(&format!("containerd of {}", node.name), Duration::from_secs(30), || {
        server::require_alive(layout, &node.server("containerd"))?;
        Ok(ctr(node, &["version"]).ok().map(drop))
    })?;
    images::system()?.iter().try_for_each(|archive| images::load(node, archive))
}

/// Starts kubelet and kube-proxy; the API server is there.
pub(super) fn start_agents(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let init = init(layout, node)?;
    let kubelet = [
        format!("--config={}", shown(node.path("kubelet.json"))),
        format!("--kubeconfig={}", shown(layout.kubeconfig(&node.name))),
        format!("--root-dir={}", shown(node.path("kubelet"))),
        format!("--cert-dir={}", shown(node.path("kubelet/pki"))),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address()),
    ];
    let proxy = [format!("--config={}", shown(node.path("kube-proxy.json")))];
    for (name, flags) in [("kubelet", kubelet.as_slice()), ("kube-proxy", proxy.as_slice())] {
        let server = node.server(name);
        if server::running(layout, &server).is_none() {
            server::start(layout, &server, Place::Node(init), &Tool::Kube.program(name)?, flags)?;
        }
    }
    Ok(())
}

/// The node's init, which must run.
pub(super) fn init(layout: &Layout, node: &NodeLayout) -> Result<Process> {
    server::running(layout, &node.server("init"))
        .ok_or_else(|| Error::Invalid(format!("node {} of {} does not run", node.name, layout.name)))
}

fn start_init(layout: &Layout, node: &NodeLayout) -> Result<Process> {
    let name = node.server("init");
    if let Some(init) = server::running(layout, &name) {
        return Ok(init);
    }
    let ready = node.path("ready");
    let _ = fs::remove_file(&ready);
    let mut unshare = server::detached(layout, &name)?;
    unshare.arg(format!("--net={}", shown(node.net(layout)))).args([
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-e",
        "-c",
    ]);
    unshare.arg(init_script(node, &ready)?);
    let init = server::spawn(&mut unshare, layout, &name)?.wait_child(&name)?;
    init.save(&layout.pid_file(&name))?;
    wait_until(&format!("{name} to be set up"), Duration::from_secs(10), || {
        server::require_alive(layout, &name)?;
        Ok(ready.exists().then_some(()))
    })?;
    Ok(init)
}

/// What the first process of a node does before it becomes a reaper of orphans.
fn init_script(node: &NodeLayout, ready: &Path) -> Result<String> {
    let (upper, work) = (node.path("var/upper"), node.path("var/work"));
    let mut lines = vec![
        format!("hostname {}", node.name),
        // unshare has cut propagation to the machine; mounts of pods must spread inside.
        "mount --make-rshared /".to_owned(),
        // Sockets of shims, state of runc, files of pod namespaces: they must die with the node.
        "mount -t tmpfs tmpfs /run".to_owned(),
        "mkdir -p /run/netns /run/lock".to_owned(),
        format!(
            "mount -t overlay overlay -o lowerdir=/var,upperdir={},workdir={} /var",
            shown(upper),
            shown(work)
        ),
    ];
    for (key, value) in SYSCTLS {
        let file = node.path("sysctl").join(key.replace('/', "."));
        fs::write(&file, format!("{value}\n")).context(|| format!("write {}", file.display()))?;
        lines.push(format!("[ ! -e /proc/sys/{key} ] || mount --bind {} /proc/sys/{key}", shown(file)));
    }
    lines.push(format!("touch {}", shown(ready)));
    lines.push(format!("exec {}", shown(Tool::Pause.program("pause")?)));
    Ok(lines.join("\n"))
}

/// Waits for the node's pod addresses and tells containerd how to give them out.
pub(super) fn connect_pods(node: &NodeLayout, range: &str) -> Result<()> {
    let folder = node.path("cni/net.d");
    let (part, whole) = (folder.join("10-pods.conflist.tmp"), folder.join("10-pods.conflist"));
    fs::write(&part, node_config::cni(node, range)).context(|| format!("write {}", part.display()))?;
    // containerd watches the folder and must never see half a file.
    fs::rename(&part, &whole).context(|| format!("rename to {}", whole.display()))
}

/// containerd's own client, which reaches the node by the socket's path.
pub(super) fn ctr(node: &NodeLayout, args: &[&str]) -> Result<String> {
    run(ctr_command(node)?.args(args))
}

pub(super) fn ctr_command(node: &NodeLayout) -> Result<std::process::Command> {
    let socket = ["--address".to_owned(), shown(node.socket()), "--namespace=k8s.io".to_owned()];
    let mut ctr = command(program("ctr")?, &socket);
    // A caller that crashes leaves it waiting for containerd; `down` must find it.
    ctr.env(MARK, &node.state);
    Ok(ctr)
}

fn program(name: &str) -> Result<PathBuf> {
    find(name)
        .ok_or_else(|| Error::Missing { program: name.to_owned(), remedy: "install containerd".to_owned() })
}
