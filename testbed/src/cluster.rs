//! A Kubernetes cluster of real servers in namespaces of this machine.
//!
//! ```no_run
//! use bellows_testbed::{Testbed, TestbedOptions};
//!
//! let testbed = Testbed::up(&TestbedOptions::new("mine").nodes(2))?;
//! testbed.kubectl(&["get", "nodes"])?;
//! testbed.down()?;
//! # Ok::<(), bellows_testbed::Error>(())
//! ```
//!
//! All verbs block and need root. The cluster outlives the program that started it; `down` takes it away, also from
//! another program, also after a crash.

mod addons;
mod cgroups;
mod control;
mod down;
mod faults;
mod images;
mod kubectl;
mod layout;
mod network;
mod node;
mod node_config;
mod pki;
mod server;
mod up;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

use self::kubectl::Kubectl;
use self::layout::{Layout, shown};
use crate::error::{Error, IoContext, Result};
use crate::host;
use crate::lock::FileLock;
use crate::log::{say, step};
use crate::tools::Tool;

/// Which cluster to start.
#[derive(Clone, Debug)]
pub struct TestbedOptions {
    name: String,
    nodes: usize,
}

impl TestbedOptions {
    /// A cluster of this name with one node. Clusters of different names run side by side.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), nodes: 1 }
    }

    /// How many nodes, 1 to 9.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }
}

/// A cluster that was started, by this program or an earlier one. Dropping it leaves the cluster running.
#[derive(Clone, Debug)]
pub struct Testbed {
    layout: Layout,
    nodes: usize,
}

impl Testbed {
    /// Starts the cluster and waits until its nodes are ready and names resolve. A healthy cluster of the same name
    /// and size is used as it is; anything else of that name is taken down first.
    ///
    /// # Errors
    /// Without root, when a program is missing and cannot be installed, or when a part does not come up; what was
    /// started stays for a look at its logs, until the next `up` or `down`.
    pub fn up(options: &TestbedOptions) -> Result<Self> {
        let layout = Layout::new(&options.name)?;
        if !(1..=9).contains(&options.nodes) {
            return Err(Error::Invalid(format!("a testbed has 1 to 9 nodes, not {}", options.nodes)));
        }
        host::require_root()?;
        host::require_programs()?;
        host::require_bridge_filter()?;
        step("programs there and whole", || {
            Tool::ensure_all(&[Tool::Etcd, Tool::Kube, Tool::CoreDns, Tool::Pause, Tool::Helm])
        })?;
        let _lock = FileLock::wait(&layout.lock())?;
        let testbed = Self { layout, nodes: options.nodes };
        let layout = &testbed.layout;
        if layout.complete().exists() {
            if read_nodes(layout) == Some(testbed.nodes) && testbed.problems().is_empty() {
                say(&format!("{} runs already", layout.name));
                testbed.recycle_volumes()?;
                return Ok(testbed);
            }
            say(&format!("{} is there, but broken or of another size", layout.name));
        }
        step("removed what was left of an earlier one", || down::down(layout))?;
        let logs = layout.folder("logs");
        let name = &layout.name;
        step(&format!("{name} is up"), || up::fresh(layout, testbed.nodes)).inspect_err(|_| {
            say(&format!("logs are in {}; `testbed down --name {name}` removes them", logs.display()));
        })?;
        Ok(testbed)
    }

    /// The running cluster of this name, if `up` came to its end.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub fn open(name: &str) -> Result<Option<Self>> {
        let layout = Layout::new(name)?;
        let complete = layout.complete().exists();
        Ok(read_nodes(&layout).filter(|_| complete).map(|nodes| Self { layout, nodes }))
    }

    /// Takes the cluster away; nothing of it stays.
    ///
    /// # Errors
    /// When something resists.
    pub fn down(self) -> Result<()> {
        Self::remove(&self.layout.name)
    }

    /// Takes the cluster of this name away, whatever state it is in.
    ///
    /// # Errors
    /// Without root, or when something resists.
    pub fn remove(name: &str) -> Result<()> {
        let layout = Layout::new(name)?;
        host::require_root()?;
        let _lock = FileLock::wait(&layout.lock())?;
        step(&format!("{name} is down"), || down::down(&layout))
    }

    /// What does not work, one sentence each; empty when the cluster is healthy.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let dead =
            self.server_names().into_iter().filter(|name| server::running(&self.layout, name).is_none());
        let mut problems: Vec<String> = dead.map(|name| format!("{name} does not run")).collect();
        if problems.is_empty()
            && let Err(error) = self.check_api()
        {
            problems.push(error.to_string());
        }
        problems
    }

    fn check_api(&self) -> Result<()> {
        let kubectl = Kubectl::new(&self.layout)?;
        kubectl.run(&["get", "--raw=/readyz", "--request-timeout=5s"])?;
        let ready = "--output=jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let statuses = kubectl.run(&["get", "nodes", ready])?;
        if statuses.split_whitespace().filter(|status| *status == "True").count() == self.nodes {
            return Ok(());
        }
        Err(Error::Invalid(format!("not all of {} nodes are ready: {statuses}", self.nodes)))
    }

    /// The names of all servers, as [`Testbed::server_process`] takes them.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let mut names: Vec<String> = control::SERVERS.map(str::to_owned).to_vec();
        for number in 1..=self.nodes {
            let node = self.layout.node(number);
            names.push(node.server("init"));
            names.extend(node::SERVERS.map(|program| node.server(program)));
        }
        names
    }

    /// The administrator's kubeconfig. Its address is reachable only in the cluster's network namespace.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig("admin")
    }

    /// How many nodes it has; they are called `n1`, `n2` and so on.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The folder with everything of this cluster.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.layout.state
    }

    /// The network namespace from which the API, services and pods are reachable: `nsenter --net=FILE CMD`.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        self.layout.control_net()
    }

    /// The network namespace of one node; node 1 has that of the whole cluster.
    #[must_use]
    pub fn node_network_namespace(&self, number: usize) -> PathBuf {
        self.layout.node(number).net(&self.layout)
    }

    /// Moves the calling thread, and the threads and processes it starts from now on, into the cluster's network. Good
    /// for `on_thread_start` of a tokio runtime whose clients are to reach the API server and pods.
    ///
    /// # Errors
    /// Without root, or when the cluster is down.
    pub fn enter_network(&self) -> Result<()> {
        let file = self.network_namespace();
        let open = fs::File::open(&file).context(|| format!("open {}", file.display()))?;
        setns(open, CloneFlags::CLONE_NEWNET).context(|| format!("enter {}", file.display()))
    }

    /// A command that runs in the cluster's network, with `KUBECONFIG` and `PATH` set for kubectl and helm.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", shown(self.network_namespace()))).arg("--").arg(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", host::path_with(&[&self.programs()]));
        command
    }

    /// The folder with kubectl and helm, which enter the cluster's network by themselves.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.layout.folder("bin")
    }

    /// Runs kubectl with the administrator's rights and returns what it printed.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        Kubectl::new(&self.layout)?.run(args)
    }

    /// `kubectl apply` of a manifest in YAML or JSON.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        Kubectl::new(&self.layout)?.run_with_input(&["apply", "--filename=-"], manifest)
    }

    /// Loads an OCI image archive into every node. Pods that use it need `imagePullPolicy: IfNotPresent`.
    ///
    /// # Errors
    /// When the archive is missing or is not an image.
    pub fn load_image(&self, archive: impl AsRef<Path>) -> Result<()> {
        let archive = archive.as_ref();
        images::require(&[archive.to_owned()])?;
        thread::scope(|scope| {
            let load = |number| images::load(&self.layout.node(number), archive);
            let loads: Vec<_> = (1..=self.nodes).map(|number| scope.spawn(move || load(number))).collect();
            loads.into_iter().try_for_each(up::joined)
        })
    }

    /// Empties the volumes that no claim holds any more and offers them again; says how many.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn recycle_volumes(&self) -> Result<usize> {
        addons::recycle_volumes(&self.layout)
    }
}

fn read_nodes(layout: &Layout) -> Option<usize> {
    let text = fs::read_to_string(layout.description()).ok()?;
    let description: serde_json::Value = serde_json::from_str(&text).ok()?;
    usize::try_from(description["nodes"].as_u64()?).ok()
}
