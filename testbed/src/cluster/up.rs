//! The order in which a cluster comes up. What does not depend on each other goes side by side in threads that are
//! joined here.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::kubectl::Kubectl;
use super::layout::{Layout, shown};
use super::{addons, control, images, network, node, pki};
use crate::clock::wait_until;
use crate::error::{Error, IoContext, Result};
use crate::log::step;
use crate::tools::Tool;

/// Starts a cluster where there is nothing.
pub(super) fn fresh(layout: &Layout, nodes: usize) -> Result<()> {
    make_state(&layout.state)?;
    let description = json!({ "name": layout.name, "nodes": nodes });
    fs::write(layout.description(), format!("{description}\n"))
        .context(|| "write testbed.json".to_owned())?;
    step("network and certificates", || {
        wrappers(layout)?;
        network::create(layout, nodes)?;
        pki::create(layout, nodes)?;
        images::system().map(drop)
    })?;
    start(layout, nodes)?;
    fs::write(layout.complete(), "").context(|| "finish".to_owned())
}

/// The folder is root's alone, and new: in /tmp somebody else could have put something of that name there.
fn make_state(state: &Path) -> Result<()> {
    if let Some(base) = state.parent() {
        fs::create_dir_all(base).context(|| format!("make {}", base.display()))?;
    }
    let made = fs::DirBuilder::new().mode(0o700).create(state);
    made.context(|| format!("make {}", state.display()))
}

/// Starts whatever of the cluster does not run and waits until all of it works.
pub(super) fn start(layout: &Layout, nodes: usize) -> Result<()> {
    let all: Vec<_> = (1..=nodes).map(|number| layout.node(number)).collect();
    thread::scope(|scope| {
        let runtimes: Vec<_> =
            all.iter().map(|node| scope.spawn(move || node::start_runtime(layout, node))).collect();
        step("etcd healthy", || {
            control::start_etcd(layout)?;
            control::wait_etcd(layout)
        })?;
        step("API server ready", || {
            control::start_apiserver(layout)?;
            control::wait_apiserver(layout)
        })?;
        step(&format!("container runtime of {nodes} node(s) beside it, with images"), || {
            runtimes.into_iter().try_for_each(joined)
        })
    })?;
    thread::scope(|scope| {
        let applied = scope.spawn(|| addons::apply(layout));
        step("nodes ready", || {
            control::start_controllers(layout)?;
            control::start_scheduler(layout)?;
            all.iter().try_for_each(|node| node::start_agents(layout, node))?;
            let numbers: Vec<usize> = all.iter().map(|node| node.number).collect();
            connect(layout, &numbers)?;
            wait_ready(layout, &numbers)
        })?;
        joined(applied)
    })?;
    step("name server available", || {
        let account = ["wait", "--for=create", "serviceaccount/default", "--timeout=60s"];
        Kubectl::new(layout)?.run(&account)?;
        addons::wait_name_server(layout)
    })
}

/// Reads which addresses each node got, as they go out in the order of registration, and makes them work.
pub(super) fn connect(layout: &Layout, numbers: &[usize]) -> Result<()> {
    let kubectl = Kubectl::new(layout)?;
    let ranges: Vec<(usize, String)> =
        wait_until("every node to get pod addresses", Duration::from_secs(60), || {
            let Ok(nodes) = kubectl.json(&["get", "nodes"]) else { return Ok(None) };
            let range = |name: &str| {
                let nodes = nodes["items"].as_array()?;
                let node = nodes.iter().find(|node| node["metadata"]["name"] == name)?;
                Some(node["spec"]["podCIDR"].as_str()?.to_owned())
            };
            Ok(numbers.iter().map(|number| Some((*number, range(&layout.node(*number).name)?))).collect())
        })?;
    for (number, range) in &ranges {
        node::connect_pods(&layout.node(*number), range)?;
    }
    network::route_pods(layout, &ranges)
}

/// Waits until every one of these nodes says that it is ready.
pub(super) fn wait_ready(layout: &Layout, numbers: &[usize]) -> Result<()> {
    let names: Vec<String> =
        numbers.iter().map(|number| format!("node/{}", layout.node(*number).name)).collect();
    let mut args = vec!["wait", "--for=condition=Ready", "--timeout=90s"];
    args.extend(names.iter().map(String::as_str));
    Kubectl::new(layout)?.run(&args).map(drop)
}

/// `bin/kubectl` and the like, which enter the cluster's network by themselves.
fn wrappers(layout: &Layout) -> Result<()> {
    let bin = layout.folder("bin");
    fs::create_dir_all(&bin).context(|| format!("make {}", bin.display()))?;
    let programs =
        [(Tool::Kube, "kubectl"), (Tool::Helm, "helm"), (Tool::Etcd, "etcdctl"), (Tool::Etcd, "etcdutl")];
    for (tool, name) in programs {
        let (net, program) = (shown(layout.control_net()), shown(tool.program(name)?));
        let script = format!("#!/bin/sh\nexec nsenter --net={net} {program} \"$@\"\n");
        let path = bin.join(name);
        fs::write(&path, script).context(|| format!("write {}", path.display()))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).context(|| format!("make {} executable", path.display()))?;
    }
    Ok(())
}

pub(super) fn joined(handle: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    handle.join().unwrap_or_else(|_| Err(Error::Invalid("a thread of the testbed panicked".to_owned())))
}
