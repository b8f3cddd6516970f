//! The names, paths and addresses of one cluster. Touches nothing; everything else gets its paths from here.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The bridge address of the control plane and of node 1.
pub(crate) const CONTROL_ADDRESS: &str = "10.99.0.1";
/// Where services get their addresses from.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Where pods get their addresses from.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
/// The name server's service.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

/// Unix sockets take paths of 107 bytes; what the kubelet puts below the state folder takes up to 50.
const LONGEST_STATE: usize = 50;

/// One cluster's place on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
}

impl Layout {
    /// `$BELLOWS_STATE/bellows-NAME`, with `/tmp` when the variable is not set.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || name.starts_with('-') || !name.chars().all(letters) {
            return Err(Error::Invalid(format!(
                "a testbed's name has 1 to 20 of a-z, 0-9 and '-', and does not begin with '-': {name:?} has not"
            )));
        }
        let base = std::env::var_os("BELLOWS_STATE").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let state = base.join(format!("bellows-{name}"));
        let hidden = ["/var", "/run", "/proc", "/sys", "/dev"].iter().any(|folder| state.starts_with(folder));
        if !state.is_absolute() || hidden || state.as_os_str().len() > LONGEST_STATE {
            return Err(Error::Invalid(format!(
                "{} cannot hold a testbed: BELLOWS_STATE must be absolute, short (the whole path within \
                 {LONGEST_STATE} bytes, for the sake of unix sockets) and not in /var, /run, /proc, /sys or /dev",
                state.display()
            )));
        }
        Ok(Self { name: name.to_owned(), state })
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state.with_extension("lock")
    }

    /// Says what this folder is; written first, removed last.
    pub(crate) fn description(&self) -> PathBuf {
        self.state.join("testbed.json")
    }

    /// There when `up` came to its end.
    pub(crate) fn complete(&self) -> PathBuf {
        self.state.join("complete")
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The network namespace of the control plane, node 1 and whoever wants to reach the cluster.
    pub(crate) fn control_net(&self) -> PathBuf {
        self.state.join("net/cp")
    }

    pub(crate) fn pid_file(&self, server: &str) -> PathBuf {
        self.state.join("pids").join(server)
    }

    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.state.join("logs").join(format!("{server}.log"))
    }

    /// A file of the public key infrastructure, as a flag wants it.
    pub(crate) fn pki(&self, file: &str) -> String {
        self.state.join("pki").join(file).display().to_string()
    }

    pub(crate) fn kubeconfig(&self, who: &str) -> PathBuf {
        self.state.join("kubeconfig").join(who)
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    pub(crate) fn node(&self, number: usize) -> NodeLayout {
        let name = format!("n{number}");
        NodeLayout {
            number,
            state: self.state.clone(),
            folder: self.state.join(&name),
            cgroup: format!("bellows-{}-{name}", self.name),
            name,
        }
    }

    /// What the cgroups of all nodes of this cluster begin with.
    pub(crate) fn cgroup_prefix(&self) -> String {
        format!("bellows-{}-n", self.name)
    }
}

/// One node's place.
#[derive(Clone, Debug)]
pub(crate) struct NodeLayout {
    pub(crate) number: usize,
    pub(crate) name: String,
    /// The cluster's, which has the folders of all its nodes.
    pub(crate) state: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: String,
}

impl NodeLayout {
    pub(crate) fn address(&self) -> String {
        format!("10.99.0.{}", self.number)
    }

    /// Node 1 shares the control plane's network namespace.
    pub(crate) fn net(&self, layout: &Layout) -> PathBuf {
        if self.number == 1 { layout.control_net() } else { layout.state.join("net").join(&self.name) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("ctd.sock")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The name of one of the node's servers in pid files and logs.
    pub(crate) fn server(&self, program: &str) -> String {
        format!("{}-{program}", self.name)
    }
}

/// A path as a flag wants it.
pub(crate) fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
