//! A real Kubernetes and real etcd members on one machine, from package registries only, for the demo and the tests.
//!
//! [`EtcdServer`] and [`EtcdCluster`] run real etcd on loopback and need neither root nor a cluster.
//!
//! This crate must not decide anything about tasks and knows nothing of the other rooms; it starts programs, and it
//! leaves the machine as it found it.

mod clock;
mod command;
mod error;
mod etcd;
mod host;
mod lock;
mod log;
mod process;
mod tools;

pub use clock::wait_until;
pub use error::{Error, Result};
pub use etcd::{EtcdCluster, EtcdOptions, EtcdServer};
pub use process::Process;
pub use tools::Tool;
