//! Several members that form one etcd cluster, for tests of lost leaders, lost quorum and frozen members.

use std::path::Path;
use std::time::Duration;

use super::{EtcdOptions, EtcdServer};
use crate::clock::wait_until;
use crate::error::{Error, Result};

/// An etcd cluster; every member has the verbs of [`EtcdServer`].
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts three members with their data under `folder`, and waits until all are healthy.
    ///
    /// # Errors
    /// As [`EtcdServer::start`].
    pub fn start(folder: impl AsRef<Path>) -> Result<Self> {
        Self::start_with(folder, 3, &EtcdOptions::new())
    }

    /// As [`EtcdCluster::start`], with that many members and other flags.
    ///
    /// # Errors
    /// As [`EtcdServer::start`].
    pub fn start_with(folder: impl AsRef<Path>, size: usize, options: &EtcdOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let prepare = |index: usize| {
            let name = format!("m{}", index + 1);
            EtcdServer::prepare(&name, &folder.join(&name), options.clone())
        };
        let mut members = (0..size).map(prepare).collect::<Result<Vec<_>>>()?;
        let peers: Vec<String> = members.iter().map(EtcdServer::as_initial_member).collect();
        for member in &mut members {
            member.initial_cluster = peers.join(",");
            // No wait between two starts: none is healthy before a majority runs.
            member.launch()?;
        }
        members.iter().try_for_each(EtcdServer::wait_healthy)?;
        Ok(Self { members })
    }

    /// The client URLs of all members, running or not.
    #[must_use]
    pub fn client_urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url().to_owned()).collect()
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &[EtcdServer] {
        &self.members
    }

    /// One member, to stop, kill, pause or restart it.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn member(&mut self, index: usize) -> &mut EtcdServer {
        &mut self.members[index]
    }

    /// The index of the member that leads, found by asking the running members; waits for an election.
    ///
    /// # Errors
    /// When none leads within 20 s, as without a quorum.
    pub fn leader(&self) -> Result<usize> {
        wait_until("an etcd leader", Duration::from_secs(20), || {
            Ok(self.members.iter().position(|member| leads(member).unwrap_or(false)))
        })
    }
}

fn leads(member: &EtcdServer) -> Result<bool> {
    if member.process().is_none() {
        return Ok(false);
    }
    let text = member.etcdctl(&["--command-timeout=1s", "endpoint", "status", "--write-out=json"])?;
    let what = || "etcdctl endpoint status".to_owned();
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| Error::Json { what: what(), source })?;
    let status = &json[0]["Status"];
    Ok(status["leader"].is_u64() && status["leader"] == status["header"]["member_id"])
}
