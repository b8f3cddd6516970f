//! What tests do to a running cluster: find the real process of a container or a server, cut a node's power, and
//! bring back what was killed.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::kubectl::Kubectl;
use super::network::Cable;
use super::{Testbed, network, node, server, up};
use crate::error::{Error, Result};
use crate::process::{Process, all_pids};

impl Testbed {
    /// The first process of a container of a running pod, as the machine sees it.
    ///
    /// # Errors
    /// When there is no such container or it does not run.
    pub fn container_process(&self, namespace: &str, pod: &str, container: &str) -> Result<Process> {
        let pod_json =
            Kubectl::new(&self.layout)?.json(&["get", "pod", pod, &format!("--namespace={namespace}")])?;
        let statuses = &pod_json["status"];
        let id = ["containerStatuses", "initContainerStatuses"]
            .iter()
            .filter_map(|list| statuses[list].as_array())
            .flatten()
            .find(|status| status["name"] == container)
            .and_then(|status| status["containerID"].as_str()?.strip_prefix("containerd://"));
        let process = id.and_then(first_in_group);
        process.ok_or_else(|| {
            Error::Invalid(format!("container {container} of pod {namespace}/{pod} does not run"))
        })
    }

    /// Kills a container (SIGKILL from outside), as a crash of its program does.
    ///
    /// # Errors
    /// As [`Testbed::container_process`].
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) -> Result<()> {
        self.container_process(namespace, pod, container)?.signal(Signal::SIGKILL)
    }

    /// A server's process, to kill or freeze it: `etcd`, `kube-apiserver`, `kube-controller-manager`,
    /// `kube-scheduler`, or one of a node, as `n1-kubelet`, `n1-kube-proxy`, `n1-containerd`.
    ///
    /// # Errors
    /// When there is no such server or it does not run.
    pub fn server_process(&self, name: &str) -> Result<Process> {
        server::running(&self.layout, name).ok_or_else(|| {
            Error::Invalid(format!("server {name} of testbed {} does not run", self.layout.name))
        })
    }

    /// The first process of a node; its pid leads to all of the node's namespaces.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn node_process(&self, number: usize) -> Result<Process> {
        node::init(&self.layout, &self.layout.node(number))
    }

    /// Ends a node as a power cut does: kubelet, containerd and all pods are gone at once, the folder stays.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn cut_power(&self, number: usize) -> Result<()> {
        let (init, node) = (self.node_process(number)?, self.layout.node(number));
        // Found before: with their init the kernel ends them all, but not in the same moment.
        let servers: Vec<Process> = node::SERVERS
            .iter()
            .filter_map(|program| server::running(&self.layout, &node.server(program)))
            .collect();
        init.signal(Signal::SIGKILL)?;
        init.wait_gone(Duration::from_secs(10))?;
        servers.iter().try_for_each(|server| server.wait_gone(Duration::from_secs(10)))
    }

    /// Cuts a node off from all others: it goes on running and reaches nobody. Node 1 shares its network with the
    /// control plane and cannot be cut off.
    ///
    /// # Errors
    /// When there is no such node, or it is the first.
    pub fn pull_cable(&self, number: usize) -> Result<()> {
        network::set_cable(&self.layout, number, Cable::Pulled)
    }

    /// Undoes [`Testbed::pull_cable`].
    ///
    /// # Errors
    /// As there.
    pub fn plug_cable(&self, number: usize) -> Result<()> {
        network::set_cable(&self.layout, number, Cable::Plugged)
    }

    /// Starts every server and node that does not run, and waits until the cluster works.
    ///
    /// # Errors
    /// When something does not come back.
    pub fn repair(&self) -> Result<()> {
        up::start(&self.layout, self.nodes)
    }
}

/// The process of a container's group whose parent is outside: the one that all others come from.
fn first_in_group(id: &str) -> Option<Process> {
    let inside =
        |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id));
    let first = |pid: &i32| parent(*pid).is_some_and(|parent| !inside(parent));
    all_pids().filter(|pid| inside(*pid)).filter(first).find_map(Process::find)
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}
