//! The network namespaces of a cluster: one for the control plane and node 1, one for each further node, joined by a
//! bridge in the first. Makes no link, route or setting in the machine's own network.

use std::fs;
use std::path::Path;

use super::layout::{CONTROL_ADDRESS, Layout, NodeLayout, SERVICE_RANGE, shown};
use crate::command::{command, run};
use crate::error::{IoContext, Result};

/// Makes all namespaces and links them.
pub(super) fn create(layout: &Layout, nodes: usize) -> Result<()> {
    let folder = layout.folder("net");
    fs::create_dir_all(&folder).context(|| format!("make {}", folder.display()))?;
    namespace(&layout.control_net())?;
    // No default route leads out, so service addresses need a route for the packets to reach kube-proxy's rules.
    inside(
        &layout.control_net(),
        &format!(
            "ip link set lo up; ip link add br0 type bridge; ip addr add {CONTROL_ADDRESS}/24 dev br0; \
             ip link set br0 up; ip route add {SERVICE_RANGE} dev br0; echo 1 > /proc/sys/net/ipv4/ip_forward"
        ),
    )?;
    (2..=nodes).try_for_each(|number| join(layout, &layout.node(number)))
}

fn join(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let net = node.net(layout);
    namespace(&net)?;
    let (number, address) = (node.number, node.address());
    inside(
        &layout.control_net(),
        &format!(
            "ip link add v{number} type veth peer name eth0 netns {}; ip link set v{number} master br0 up",
            net.display()
        ),
    )?;
    inside(
        &net,
        &format!(
            "ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up; \
             ip route add {SERVICE_RANGE} dev eth0; echo 1 > /proc/sys/net/ipv4/ip_forward"
        ),
    )
}

/// Which way the cable of a node is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cable {
    Plugged,
    Pulled,
}

/// Plugs or pulls the cable of a node other than the first.
pub(super) fn set_cable(layout: &Layout, number: usize, cable: Cable) -> Result<()> {
    let word = match cable {
        Cable::Plugged => "up",
        Cable::Pulled => "down",
    };
    inside(&layout.control_net(), &format!("ip link set v{number} {word}"))
}

/// Tells every other node the way to the pods of this one.
pub(super) fn route_pods(layout: &Layout, ranges: &[(usize, String)]) -> Result<()> {
    for (from, _) in ranges {
        let commands: Vec<String> = ranges
            .iter()
            .filter(|(to, _)| to != from)
            .map(|(to, range)| format!("ip route replace {range} via {}", layout.node(*to).address()))
            .collect();
        if !commands.is_empty() {
            inside(&layout.node(*from).net(layout), &commands.join("; "))?;
        }
    }
    Ok(())
}

/// A namespace that lives as long as its file is mounted; not in the machine-wide list of `ip netns`.
fn namespace(file: &Path) -> Result<()> {
    fs::write(file, "").context(|| format!("make {}", file.display()))?;
    run(&mut command("unshare", &[format!("--net={}", shown(file)), "true".to_owned()])).map(drop)
}

fn inside(net: &Path, script: &str) -> Result<()> {
    let mut shell = command("nsenter", &[format!("--net={}", shown(net))]);
    shell.args(["sh", "-e", "-c", script]).env("PATH", crate::host::path_with(&[]));
    run(&mut shell).map(drop)
}
