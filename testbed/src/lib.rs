//! A real Kubernetes and real etcd members on one machine, from package registries only, for the demo and the tests.
//!
//! [`EtcdServer`] and [`EtcdCluster`] run real etcd on loopback and need neither root nor a cluster.
//!
//! [`Testbed`] is a whole Kubernetes in namespaces of this machine and needs root. [`ImageSpec`] packs programs into
//! an image for it.
//!
//! This crate must not decide anything about tasks and knows nothing of the other rooms; it starts programs, and it
//! leaves the machine as it found it.

mod clock;
mod cluster;
mod command;
mod error;
mod etcd;
mod host;
mod lock;
mod log;
mod oci;
mod process;
mod tools;

pub use clock::wait_until;
pub use cluster::{Testbed, TestbedOptions};
pub use error::{Error, Result};
pub use etcd::{EtcdCluster, EtcdOptions, EtcdServer};
pub use nix::sys::signal::Signal;
pub use oci::ImageSpec;
pub use process::Process;
pub use tools::Tool;
