//! What can go wrong in the testbed. Every message says which thing failed, and where it helps, what to do.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Result of a testbed operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a testbed operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cluster needs namespaces, mounts and cgroups, which only root may make.
    #[error("a testbed cluster needs root: run it as root, for example with sudo")]
    NotRoot,
    /// A program of the machine is missing and could not be installed.
    #[error("{program} is missing: {remedy}")]
    Missing {
        /// The program that was looked for.
        program: String,
        /// What to install.
        remedy: String,
    },
    /// A name, path or option that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// A file or process operation failed.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A condition did not come true in time.
    #[error("waited {} s in vain for {what}", after.as_secs())]
    Timeout {
        /// The condition.
        what: String,
        /// The bound that passed.
        after: Duration,
    },
    /// A server ended although it should run.
    #[error("{server} ended by itself; the end of its log:\n{log}")]
    Died {
        /// The server's name.
        server: String,
        /// The last lines of its log.
        log: String,
    },
    /// Certificates could not be made.
    #[error("could not make the certificate of {subject}")]
    Certificate {
        /// Whose certificate.
        subject: String,
        /// What the generator said.
        #[source]
        source: rcgen::Error,
    },
    /// JSON that does not look as expected.
    #[error("could not read {what}")]
    Json {
        /// What was read.
        what: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

/// Names the action that an I/O error interrupted.
pub(crate) trait IoContext<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { action: action(), source })
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { action: action(), source: errno.into() })
    }
}

/// The last lines of a log, for error messages; empty when there is none.
pub(crate) fn log_tail(path: &Path) -> String {
    const LINES: usize = 12;
    let Ok(bytes) = std::fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
