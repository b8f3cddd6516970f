//! Nothing stays behind: after a quiet life, after killed servers, after a crash of the starter.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use bellows_testbed::{Process, Signal, Testbed, TestbedOptions, wait_until};

use crate::fixture::Clean;
use crate::machine::{Machine, Namespaces, commands_of, foreign_namespaces, processes_of};

/// Runs a cluster's life and compares the machine before and after.
fn leaves_nothing(name: &'static str, life: impl FnOnce() -> Result<Testbed>) -> Result<()> {
    let _clean = Clean::new(&[name])?;
    let others = foreign_namespaces();
    let before = Machine::look(name)?;
    let testbed = life()?;
    let state = testbed.state().to_owned();
    let namespaces: Namespaces = foreign_namespaces().difference(&others).copied().collect();
    assert!(!namespaces.is_empty(), "a running cluster has namespaces");
    testbed.down()?;
    nothing_is_left(name, &namespaces, &state, &before)
}

fn nothing_is_left(name: &str, namespaces: &Namespaces, state: &Path, before: &Machine) -> Result<()> {
    let left = wait_until("the end of all processes", Duration::from_secs(5), || {
        Ok(processes_of(namespaces, state).is_empty().then_some(()))
    });
    assert!(left.is_ok(), "processes left: {:?}", commands_of(&processes_of(namespaces, state)));
    assert_eq!(Machine::look(name)?.differences(before), Vec::<String>::new());
    Ok(())
}

#[test]
fn down_leaves_no_process_mount_namespace_or_cgroup() -> Result<()> {
    leaves_nothing("t-quiet", || Ok(Testbed::up(&TestbedOptions::new("t-quiet"))?))
}

#[test]
fn down_leaves_nothing_after_servers_were_killed() -> Result<()> {
    leaves_nothing("t-killed", || {
        let testbed = Testbed::up(&TestbedOptions::new("t-killed").nodes(2))?;
        for server in ["kube-apiserver", "n1-kubelet", "n1-containerd", "n2-init"] {
            testbed.server_process(server)?.signal(Signal::SIGKILL)?;
        }
        Ok(testbed)
    })
}

/// Kills the program that starts a cluster at a certain moment, takes away what there is, and compares.
fn leaves_nothing_of_a_crash(name: &'static str, moment: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let _clean = Clean::new(&[name])?;
    let others = foreign_namespaces();
    let before = Machine::look(name)?;
    let state = std::env::var("BELLOWS_STATE").unwrap_or_else(|_| "/tmp".to_owned());
    let state = Path::new(&state).join(format!("bellows-{name}"));
    let mut starter = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["up", "--name", name])
        .stderr(Stdio::null())
        .spawn()
        .context("could not run the testbed's program")?;
    let reached = moment(&state);
    starter.kill()?;
    starter.wait()?;
    reached?;
    let namespaces: Namespaces = foreign_namespaces().difference(&others).copied().collect();
    assert!(Testbed::open(name)?.is_none(), "half a cluster does not count as one");
    Testbed::remove(name)?;
    nothing_is_left(name, &namespaces, &state, &before)
}

#[test]
fn down_leaves_nothing_after_the_starter_was_killed() -> Result<()> {
    // At this moment etcd and the node are up and the API server is starting.
    leaves_nothing_of_a_crash("t-crash", |state| {
        wait_until("the API server to be started", Duration::from_secs(60), || {
            Ok(state.join("pids/kube-apiserver").exists().then_some(()))
        })?;
        Ok(())
    })
}

#[test]
fn down_leaves_nothing_after_the_starter_was_killed_while_it_waited_for_a_frozen_runtime() -> Result<()> {
    leaves_nothing_of_a_crash("t-frozen", |state| {
        let (pid, socket) = (state.join("pids/n1-containerd"), state.join("n1/ctd.sock"));
        let containerd = wait_until("containerd to listen", Duration::from_secs(60), || {
            let pid = fs::read_to_string(&pid).unwrap_or_default();
            let pid = pid.split(' ').next().and_then(|pid| pid.parse().ok());
            Ok(pid.and_then(Process::find).filter(|_| socket.exists()))
        })?;
        containerd.freeze()?;
        wait_until("its client to wait for it", Duration::from_secs(60), || {
            Ok((!processes_of(&Namespaces::new(), &socket).is_empty()).then_some(()))
        })?;
        Ok(())
    })
}
