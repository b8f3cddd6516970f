//! Which Kubernetes the story is played on, and what differs between the two.
//!
//! The testbed where there is no Docker engine, else kind. The process runs where the
//! cluster's API can be reached; everything else is the same for both.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use bellows_testbed::Testbed;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::process::Child;

use crate::names::{RELEASE, SYSTEM, TARGET, WORK, WORKER};
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

    /// SIGKILLs the worker's container in a pod, as the kernel does when memory runs out.
    pub async fn kill_worker(&self, pod: &str) -> Result<()> {
        match self {
            Self::Testbed { name } => {
                let (name, pod) = (name.clone(), pod.to_owned());
                tokio::task::spawn_blocking(move || -> Result<()> {
                    let testbed =
                        Testbed::open(&name)?.with_context(|| format!("testbed {name} is not up"))?;
                    Ok(testbed.kill_container(WORK, &pod, WORKER)?)
                })
                .await?
            }
            Self::Kind { .. } => kill_on_kind(pod).await,
        }
    }

    /// Resident memory of a pod's first process, in bytes, where its files in `/proc` can
    /// be seen from here.
    pub async fn resident(&self, namespace: &str, pod: &str, container: &str) -> Result<Option<f64>> {
        let Self::Testbed { name } = self else { return Ok(None) };
        let [name, namespace, pod, container] = [name, namespace, pod, container].map(str::to_owned);
        tokio::task::spawn_blocking(move || {
            let testbed = Testbed::open(&name)?.with_context(|| format!("testbed {name} is not up"))?;
            let pid = testbed.container_process(&namespace, &pod, &container)?.pid();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
            Ok(Some(kib.context("no VmRSS")?.trim().parse::<f64>()? * 1024.0))
        })
        .await?
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

/// The node is a container of the Docker engine here, and has the runtime's own client.
async fn kill_on_kind(pod: &str) -> Result<()> {
    let path = "jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}";
    let found = shell::quiet(["kubectl", "get", "pod", "-n", WORK, pod, "-o", path]).await?;
    let (node, id) = found.split_once(' ').context("the pod has no container yet")?;
    let id = id.trim().trim_start_matches("containerd://");
    let kill =
        ["docker", "exec", node, "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", id];
    shell::quiet(kill).await.map(drop)
}
