//! Takes a cluster away, whatever state it is in: half started, with killed servers, its starter crashed. Finds
//! processes by the mark in their environment, groups and mounts by their names, and touches nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::layout::Layout;
use super::{cgroups, server};
use crate::clock::wait_until;
use crate::command::{command, run};
use crate::error::{Error, IoContext, Result};
use crate::log::say;
use crate::process::{self, Process};

/// Removes everything of the cluster. Nothing happens when there is nothing.
pub(super) fn down(layout: &Layout) -> Result<()> {
    end_processes(layout)?;
    cgroups::remove(layout)?;
    name_guests(layout);
    unmount(&layout.state)?;
    if !layout.state.exists() {
        return Ok(());
    }
    // A folder that only looks like ours is not ours to remove.
    let empty = fs::read_dir(&layout.state).is_ok_and(|mut entries| entries.next().is_none());
    if !layout.description().exists() && !empty {
        let shown = layout.state.display();
        return Err(Error::Invalid(format!("{shown} is not the folder of a testbed; move it away")));
    }
    remove(&layout.state)
}

fn end_processes(layout: &Layout) -> Result<()> {
    for polite in ["kube-controller-manager", "kube-scheduler"] {
        if let Some(process) = server::running(layout, polite) {
            process.signal(Signal::SIGTERM)?;
        }
    }
    // Inits first: with them the kernel ends everything of their nodes at once.
    let inits = fs::read_dir(layout.folder("pids")).into_iter().flatten().flatten();
    let inits = inits.filter(|entry| entry.file_name().to_string_lossy().ends_with("-init"));
    for init in inits.filter_map(|entry| Process::load(&entry.path())) {
        init.signal(Signal::SIGKILL)?;
    }
    // Again and again, as one may be starting another at this moment.
    wait_until("the servers to end", Duration::from_secs(20), || {
        let left = process::marked(&layout.state);
        for process in &left {
            process.signal(Signal::SIGKILL)?;
        }
        for process in &left {
            process.wait_gone(Duration::from_secs(10))?;
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// Processes that a person runs inside the cluster's network are not ours to kill, but they keep it alive.
fn name_guests(layout: &Layout) {
    let Ok(net) = fs::metadata(layout.control_net()) else { return };
    let this = i32::try_from(std::process::id()).unwrap_or(0);
    let inside = |pid: &i32| {
        let path = format!("/proc/{pid}/ns/net");
        *pid != this && fs::metadata(path).is_ok_and(|ns| ns.ino() == net.ino() && ns.dev() == net.dev())
    };
    let guests: Vec<String> = process::all_pids().filter(inside).map(|pid| pid.to_string()).collect();
    if !guests.is_empty() {
        say(&format!("still inside the removed network: processes {}", guests.join(" ")));
    }
}

fn unmount(state: &Path) -> Result<()> {
    let mut mounts = mounts_below(state);
    mounts.reverse();
    for mount in &mounts {
        run(&mut command("umount", &[mount]))?;
    }
    // Removing a folder with something mounted in it would remove what is mounted.
    match mounts_below(state).first() {
        None => Ok(()),
        Some(mount) => Err(Error::Invalid(format!("{} is still mounted", mount.display()))),
    }
}

fn mounts_below(state: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(state)).collect()
}

/// The description goes last, so that a removal that was interrupted can be taken up again.
fn remove(state: &Path) -> Result<()> {
    let entries = fs::read_dir(state).context(|| format!("read {}", state.display()))?;
    for entry in entries.flatten().filter(|entry| entry.file_name() != "testbed.json") {
        let path = entry.path();
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.context(|| format!("remove {}", path.display()))?;
    }
    fs::remove_dir_all(state).context(|| format!("remove {}", state.display()))
}
