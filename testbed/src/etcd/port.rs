//! Ports that stay ours: below the range from which the kernel serves outgoing connections, so that a member that
//! is down for a while finds its port free again, and locked against other testbeds on the machine.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::lock::FileLock;

const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A folder for each user, as nobody may lock the files of another.
fn claims() -> PathBuf {
    std::env::temp_dir().join(format!("bellows.ports.{}", nix::unistd::geteuid()))
}

/// A port on 127.0.0.1, claimed until it is dropped.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _claim: FileLock,
}

impl Port {
    pub(super) fn claim() -> Result<Self> {
        for _ in 0..COUNT {
            // Processes begin at different places, so that they rarely try the same port.
            let offset =
                NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
            let number = u16::try_from(FIRST + offset % COUNT).unwrap_or(u16::MAX);
            let path = claims().join(number.to_string());
            if let Some(port) = Self::try_claim(number, &path)? {
                return Ok(port);
            }
        }
        Err(Error::Invalid(format!("no free port from {FIRST} to {}", FIRST + COUNT)))
    }

    /// Whether the port is free is asked too: another user's testbed claims elsewhere.
    fn try_claim(number: u16, path: &Path) -> Result<Option<Self>> {
        let Some(claim) = FileLock::try_now(path)? else { return Ok(None) };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(free.then_some(Self { number, _claim: claim }))
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}
