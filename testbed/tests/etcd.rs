//! The etcd helper with real etcd: its verbs, and that nothing stays behind. Needs no root.

use std::process::{Command, Stdio};
use std::time::Duration;

use bellows_testbed::{EtcdCluster, EtcdServer, wait_until};

#[test]
fn a_member_keeps_its_data_over_stop_kill_and_restart() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut etcd = EtcdServer::start(folder.path())?;
    let url = etcd.client_url().to_owned();
    etcd.etcdctl(&["put", "one", "1"])?;
    etcd.stop()?;
    assert!(!etcd.is_healthy());
    etcd.restart()?;
    etcd.etcdctl(&["put", "two", "2"])?;
    etcd.kill()?;
    etcd.restart()?;
    assert_eq!(etcd.client_url(), url);
    assert_eq!(etcd.etcdctl(&["get", "--prefix", "", "--print-value-only"])?, "1\n2\n");
    Ok(())
}

#[test]
fn a_paused_member_answers_nothing_until_it_is_resumed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = EtcdServer::start(folder.path())?;
    etcd.pause()?;
    assert!(!etcd.is_healthy());
    etcd.resume()?;
    etcd.wait_healthy()?;
    Ok(())
}

#[test]
fn three_members_elect_another_leader_when_theirs_is_killed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut etcd = EtcdCluster::start(folder.path())?;
    let first = etcd.leader()?;
    etcd.member(first).kill()?;
    let second = etcd.leader()?;
    assert_ne!(first, second);
    etcd.member(second).etcdctl(&["put", "k", "v"])?;
    etcd.member(first).restart()?;
    assert_eq!(etcd.member(first).etcdctl(&["get", "k", "--print-value-only"])?, "v\n");
    Ok(())
}

#[test]
fn a_dropped_member_leaves_no_process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = EtcdServer::start(folder.path())?;
    let process = etcd.process().ok_or_else(|| anyhow::anyhow!("etcd does not run"))?;
    drop(etcd);
    assert!(!process.alive());
    Ok(())
}

/// Not a test by itself: the process that the next test starts and kills.
#[test]
fn owner_that_waits_to_be_killed() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os("OWNER_OF_ETCD") else { return Ok(()) };
    let etcd = EtcdServer::start(&folder)?;
    let process = etcd.process().ok_or_else(|| anyhow::anyhow!("etcd does not run"))?;
    let folder = std::path::Path::new(&folder);
    std::fs::write(folder.join("pid.tmp"), process.pid().to_string())?;
    std::fs::rename(folder.join("pid.tmp"), folder.join("pid"))?;
    loop {
        std::thread::park();
    }
}

#[test]
fn a_member_dies_with_a_killed_owner() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "owner_that_waits_to_be_killed"])
        .env("OWNER_OF_ETCD", folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let pid_file = folder.path().join("pid");
    let pid = wait_until("the owner's etcd", Duration::from_secs(60), || {
        Ok(std::fs::read_to_string(&pid_file).ok().and_then(|text| text.parse::<i32>().ok()))
    })?;
    let etcd = bellows_testbed::Process::find(pid).ok_or_else(|| anyhow::anyhow!("etcd does not run"))?;
    owner.kill()?;
    owner.wait()?;
    wait_until(
        "the end of the orphaned etcd",
        Duration::from_secs(10),
        || Ok((!etcd.alive()).then_some(())),
    )?;
    Ok(())
}
