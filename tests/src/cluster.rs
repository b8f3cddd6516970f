//! Which Kubernetes the story is played on, and what differs between the two.
//!
//! The testbed where there is no Docker engine, else kind. The process runs where the
//! cluster's API can be reached; everything else is the same for both.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client};
use tokio::process::Child;

use crate::names::{RELEASE, SYSTEM, TARGET};
use crate::shell;

/// The Kubernetes at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster {
    /// The project's testbed; this process is inside its network namespace.
    Testbed {
        /// The testbed's name.
        name: String,
    },
    /// A kind cluster; nodes are containers of this machine's Docker engine.
    Kind {
        /// The cluster's name.
        name: String,
    },
}

impl Cluster {
    /// What this process was started in, by its environment.
    pub fn from_env() -> Result<Self> {
        let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
        if kubeconfig.is_empty() {
            bail!(
                "no Kubernetes: KUBECONFIG is not set. Run this by `make demo` or `make test`, \
                 or inside a cluster by `testbed up && testbed run -- …`"
            );
        }
        let name = |var: &str| std::env::var(var).ok().filter(|name| !name.is_empty());
        if let Some(name) = name("BELLOWS_KIND") {
            return Ok(Self::Kind { name });
        }
        Ok(Self::Testbed { name: name("BELLOWS_TESTBED").unwrap_or_else(|| "bellows".to_owned()) })
    }

    /// The word for the report.
    pub fn install(&self) -> &'static str {
        match self {
            Self::Testbed { .. } => "testbed",
            Self::Kind { .. } => "kind",
        }
    }

    /// The folder that all nodes see, and its path on the nodes.
    pub fn volume(&self, root: &Path) -> (PathBuf, PathBuf) {
        let here = root.join(TARGET).join("volume");
        match self {
            Self::Testbed { .. } => (here.clone(), here), // nodes share this machine's files
            Self::Kind { .. } => (here, PathBuf::from("/bellows-volume")), // an extraMount
        }
    }

    /// SIGKILLs the container of a pod, as the kernel does when memory runs out.
    pub async fn kill_container(&self, pod: &Pod, program: &str) -> Result<()> {
        let uid = pod.metadata.uid.as_deref().context("a pod has a uid")?;
        match self {
            Self::Testbed { .. } => kill_here(uid, program).await,
            Self::Kind { .. } => {
                let node =
                    pod.spec.as_ref().and_then(|s| s.node_name.clone()).context("the pod has no node")?;
                let find = format!(
                    "for p in /proc/[0-9]*; do grep -qs '{}' $p/cgroup && grep -qs '^{}' $p/comm && kill -9 ${{p#/proc/}}; done; true",
                    uid.replace('-', "_"),
                    comm(program)
                );
                shell::quiet(["docker", "exec", &node, "sh", "-c", &find]).await.map(drop)
            }
        }
    }

    /// The registry's etcd, as it can be reached from here.
    pub async fn registry(&self, client: &Client) -> Result<Reach> {
        let name = format!("{RELEASE}-etcd");
        if let Self::Kind { .. } = self {
            let mut forward = tokio::process::Command::new("kubectl");
            forward.args(["port-forward", "-n", SYSTEM, &format!("service/{name}"), "12379:2379"]);
            let forward = forward.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
            let forward = forward.context("kubectl port-forward")?;
            return Ok(Reach { endpoint: "http://127.0.0.1:12379".to_owned(), _forward: Some(forward) });
        }
        let services: Api<Service> = Api::namespaced(client.clone(), SYSTEM);
        let service = services.get(&name).await.context("the registry's Service")?;
        let ip = service.spec.and_then(|s| s.cluster_ip).context("the registry's Service has no address")?;
        Ok(Reach { endpoint: format!("http://{ip}:2379"), _forward: None })
    }
}

/// A way to the registry; it ends when this is dropped.
#[derive(Debug)]
pub struct Reach {
    /// The client URL.
    pub endpoint: String,
    _forward: Option<Child>,
}

/// The kernel's name of a program: its first 15 bytes.
fn comm(program: &str) -> &str {
    &program[..program.len().min(15)]
}

/// The nodes' processes are this machine's: finds those of the pod by their cgroup.
async fn kill_here(uid: &str, program: &str) -> Result<()> {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let process = entry?.path();
        let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
        let of_pod = read("cgroup").contains(&format!("pod{uid}"));
        if of_pod && read("comm").trim() == comm(program) {
            let pid = process.file_name().context("a pid")?.to_string_lossy().into_owned();
            shell::quiet(["kill", "-9", &pid]).await?;
            killed += 1;
        }
    }
    if killed == 0 {
        bail!("no process {program} of pod {uid} was found on this machine");
    }
    Ok(())
}
