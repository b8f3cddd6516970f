//! Nothing stays behind: after a quiet life, after killed servers, after a crash of the starter.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use bellows_testbed::{Signal, Testbed, TestbedOptions, wait_until};

use crate::fixture::Clean;
use crate::machine::{Machine, Namespaces, foreign_namespaces, processes_of};

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

    let left = wait_until("the end of all processes", Duration::from_secs(5), || {
        Ok(processes_of(&namespaces, &state).is_empty().then_some(()))
    });
    assert!(left.is_ok(), "processes left: {:?}", processes_of(&namespaces, &state));
    assert_eq!(Machine::look(name)?.differences(&before), Vec::<String>::new());
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

#[test]
fn down_leaves_nothing_after_the_starter_was_killed() -> Result<()> {
    const NAME: &str = "t-crash";
    let _clean = Clean::new(&[NAME])?;
    let others = foreign_namespaces();
    let before = Machine::look(NAME)?;
    let state = std::env::var("BELLOWS_STATE").unwrap_or_else(|_| "/tmp".to_owned());
    let state = std::path::PathBuf::from(state).join(format!("bellows-{NAME}"));
    let mut starter = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["up", "--name", NAME])
        .stderr(Stdio::null())
        .spawn()
        .context("could not run the testbed's program")?;
    // At this moment etcd and the node are up and the API server is starting.
    wait_until("the API server to be started", Duration::from_secs(60), || {
        Ok(state.join("pids/kube-apiserver").exists().then_some(()))
    })?;
    starter.kill()?;
    starter.wait()?;
    let namespaces: Namespaces = foreign_namespaces().difference(&others).copied().collect();
    assert!(Testbed::open(NAME)?.is_none(), "half a cluster does not count as one");
    Testbed::remove(NAME)?;

    let left = wait_until("the end of all processes", Duration::from_secs(5), || {
        Ok(processes_of(&namespaces, &state).is_empty().then_some(()))
    });
    assert!(left.is_ok(), "processes left: {:?}", processes_of(&namespaces, &state));
    assert_eq!(Machine::look(NAME)?.differences(&before), Vec::<String>::new());
    Ok(())
}
