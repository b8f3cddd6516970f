//! The control groups under which a node keeps its pods: one folder a node at the root of every hierarchy. Touches
//! only folders whose names begin with this cluster's prefix.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::{Layout, NodeLayout};
use crate::clock::wait_until;
use crate::error::{IoContext, Result};

/// One mounted hierarchy.
struct Hierarchy {
    root: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let root = PathBuf::from(fields.next()?);
        let version = match fields.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Hierarchy { root, version })
    };
    mounts.lines().filter_map(parse).collect()
}

/// Makes the node's group in every hierarchy.
pub(super) fn create(node: &NodeLayout) -> Result<()> {
    let all = hierarchies();
    let only_two = all.iter().all(|hierarchy| hierarchy.version == Version::Two);
    for Hierarchy { root, version } in all {
        let group = root.join(&node.cgroup);
        match version {
            Version::One => make(&group)?,
            // Beside version 1 the unified hierarchy has no controllers; runc makes its folder there when it wants one.
            Version::Two if !only_two => continue,
            Version::Two => {
                for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
                    // Mostly done already by the machine's init, and some controllers may be missing.
                    let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
                }
                make(&group)?;
            }
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // In version 1 a group without processors and memory cannot hold a process.
            if version == Version::One
                && let Ok(value) = fs::read(root.join(file))
            {
                fs::write(group.join(file), value).context(|| format!("write {file}"))?;
            }
        }
    }
    Ok(())
}

fn make(group: &Path) -> Result<()> {
    fs::create_dir_all(group).context(|| format!("make {}", group.display()))
}

/// Removes the groups of all nodes of the cluster. Their processes are gone or about to go.
pub(super) fn remove(layout: &Layout) -> Result<()> {
    let prefix = layout.cgroup_prefix();
    wait_until("the control groups to be empty", Duration::from_secs(10), || {
        let groups = hierarchies().into_iter().flat_map(|hierarchy| ours(&hierarchy.root, &prefix));
        let left = groups.filter(|group| !removed(group));
        Ok((left.count() == 0).then_some(()))
    })
}

fn ours(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group and those below it; files in it belong to the kernel and go with it.
fn removed(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
