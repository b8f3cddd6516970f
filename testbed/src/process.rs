//! Processes by identity: a pid together with its start time, so that a reused pid is never taken for the old one.
//! Nothing here signals a process that it cannot identify.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::clock::wait_until;
use crate::error::{Error, IoContext, Result};

/// The variable that marks every server of a cluster; its value is the cluster's state folder.
pub(crate) const MARK: &str = "BELLOWS_TESTBED_SERVER";

/// One process, told apart from any later process of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// The live process of this pid, if there is one.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != 'Z').then_some(Self { pid, started: stat.started })
    }

    /// Reads a pid file written by [`Process::save`]; `None` when it is missing or its process is gone.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let process = Self { pid: pid.parse().ok()?, started: started.parse().ok()? };
        process.alive().then_some(process)
    }

    pub(crate) fn save(self, path: &Path) -> Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.started))
            .context(|| format!("write {}", path.display()))
    }

    /// Its pid, as the machine sees it.
    #[must_use]
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// When it started, in clock ticks since boot: the field of `/proc/PID/stat`.
    pub(crate) fn started(self) -> u64 {
        self.started
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Sends a signal; a process that is gone already is no error.
    ///
    /// # Errors
    /// When the system refuses, for example without the right to signal it.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).context(|| format!("send {signal} to process {}", self.pid)),
        }
    }

    /// Freezes it (SIGSTOP) and waits until every thread stands still; the signal alone returns before that.
    ///
    /// # Errors
    /// When it is gone, or does not stop within 10 s.
    pub fn freeze(self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        wait_until(&format!("process {} to stand still", self.pid), Duration::from_secs(10), || {
            if !self.alive() {
                return Err(Error::Invalid(format!("process {} is gone", self.pid)));
            }
            Ok(self.thread_states().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X')).then_some(()))
        })
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn thaw(self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn thread_states(self) -> impl Iterator<Item = char> {
        let folder = format!("/proc/{}/task", self.pid);
        let threads = fs::read_dir(folder).into_iter().flatten().flatten();
        threads.filter_map(|thread| Some(Stat::read_file(&thread.path().join("stat"))?.state))
    }

    /// Waits until it is gone, and reaps it when it is a child of this process.
    pub(crate) fn wait_gone(self, bound: Duration) -> Result<()> {
        wait_until(&format!("the end of process {}", self.pid), bound, || {
            let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            Ok((!self.alive()).then_some(()))
        })
    }

    /// Its children, as the machine sees them.
    pub(crate) fn children(self) -> Vec<Self> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| Self::find(pid.parse().ok()?)).collect()
    }

    /// Waits for its only child: what `nsenter` or `unshare --fork` started.
    pub(crate) fn wait_child(self, what: &str) -> Result<Self> {
        wait_until(&format!("{what} to start"), Duration::from_secs(20), || {
            let children = self.children();
            if children.is_empty() && !self.alive() {
                return Err(Error::Died { server: what.to_owned(), log: String::new() });
            }
            Ok(children.first().copied())
        })
    }
}

/// Every live process that carries the mark of the cluster with this state folder.
pub(crate) fn marked(state: &Path) -> Vec<Process> {
    let wanted = format!("{MARK}={}", state.display());
    all_pids()
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
        })
        .filter_map(Process::find)
        .collect()
}

/// The pids there are at this moment.
pub(crate) fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
}

struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::read_file(Path::new(&format!("/proc/{pid}/stat")))
    }

    fn read_file(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        // The name is in parentheses and may hold anything, so count from the last one.
        let rest = text.rsplit_once(')')?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self { state: fields.first()?.chars().next()?, started: fields.get(19)?.parse().ok()? })
    }
}
