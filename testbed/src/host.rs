//! What the machine must have: root, and a few Debian packages. Installs what is missing where `apt-get` is there,
//! and says what to install otherwise.

use std::path::{Path, PathBuf};

use crate::command::{command, run};
use crate::error::{Error, Result};
use crate::log::{say, step};

/// Programs a cluster needs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 12] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("modprobe", "kmod"),
];

/// Where Debian puts the CNI plug-ins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Folders of system programs, which the PATH of an ordinary user often lacks.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Fails with one clear sentence unless this process is root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// Makes sure that every program is there, installing packages where that is possible.
pub(crate) fn require_programs() -> Result<()> {
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(());
    }
    if apt_there() {
        apt_install(&wanted)?;
    }
    let still = missing();
    if still.is_empty() {
        return Ok(());
    }
    Err(Error::Missing {
        program: "part of the container runtime".to_owned(),
        remedy: format!("install {}", still.join(", ")),
    })
}

/// Makes the kernel show bridged packets to the rules of services; without it a pod does not reach a service that is
/// served by its own node.
pub(crate) fn require_bridge_filter() -> Result<()> {
    let there = || Path::new("/proc/sys/net/bridge").exists();
    if !there() {
        let _ = run(&mut command("modprobe", &["br_netfilter"]));
    }
    if there() {
        return Ok(());
    }
    let remedy = "use a kernel that has it, built in or as a module";
    Err(Error::Missing { program: "the kernel's br_netfilter".to_owned(), remedy: remedy.to_owned() })
}

/// The packages that are missing, each once.
fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(CNI_PLUGINS).join("bridge").exists() {
        packages.push("containernetworking-plugins");
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The path of a program, looked for on PATH and in the folders of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// PATH with `first` in front and the folders of system programs behind.
pub(crate) fn path_with(first: &[&Path]) -> String {
    let mut folders: Vec<String> = first.iter().map(|folder| folder.display().to_string()).collect();
    folders.push(std::env::var("PATH").unwrap_or_default());
    folders.extend(SYSTEM_FOLDERS.iter().map(ToString::to_string));
    folders.join(":")
}

fn apt_there() -> bool {
    nix::unistd::geteuid().is_root() && find("apt-get").is_some()
}

/// Installs Debian packages without starting their services.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    say(&format!("installing {} with apt-get", packages.join(", ")));
    let mut install = command("apt-get", &["install", "--yes", "--no-install-recommends"]);
    // The testbed runs its own containerd; the package's service would only be in the way.
    // Scripts of System V heed the run level; systemd does not.
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    step("installed packages", || {
        if run(&mut install).is_err() {
            run(&mut command("apt-get", &["update"]))?;
            run(&mut install)?;
        }
        Ok(())
    })?;
    stop_service(packages);
    Ok(())
}

/// Where systemd runs, the package has started its service all the same, and would at every boot.
fn stop_service(packages: &[&str]) {
    const OURS: &str = "containerd";
    if packages.contains(&OURS) && Path::new("/run/systemd/system").exists() {
        let _ = run(&mut command("systemctl", &["disable", "--now", OURS]));
    }
}

/// The version that apt would install, if this is such a machine.
pub(crate) fn apt_candidate(package: &str) -> Option<String> {
    if !apt_there() {
        return None;
    }
    let policy = run(&mut command("apt-cache", &["policy", package])).ok()?;
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    Some(line.trim().to_owned())
}
