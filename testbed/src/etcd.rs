//! Real etcd members on loopback, for tests: no cluster, no root, no Kubernetes.
//!
//! ```no_run
//! use bellows_testbed::EtcdServer;
//!
//! let folder = std::env::temp_dir().join("my-etcd");
//! let mut etcd = EtcdServer::start(&folder)?;
//! println!("{}", etcd.client_url());
//! etcd.kill()?; // as a crash does
//! etcd.restart()?; // same address, same data
//! # Ok::<(), bellows_testbed::Error>(())
//! ```
//!
//! All verbs block; from asynchronous code they take at most some hundred milliseconds, so a test may call them
//! directly. Members die with their owner: on drop, and by a watchdog when the owning process is killed.

mod http;
mod port;
mod quorum;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use self::port::Port;
pub use self::quorum::EtcdCluster;
use crate::clock::wait_until;
use crate::command::run;
use crate::error::{Error, IoContext, Result, log_tail};
use crate::host::find;
use crate::process::Process;
use crate::tools::Tool;

/// From start to healthy; generous, as the machine may be compiling beside it.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How a member is started.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    args: Vec<String>,
    fsync: bool,
}

impl EtcdOptions {
    /// The defaults: no fsync, since no test cuts the power; everything else as etcd has it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flag, for example `--quota-backend-bytes=16777216`.
    #[must_use]
    pub fn arg(mut self, flag: impl Into<String>) -> Self {
        self.args.push(flag.into());
        self
    }

    /// Makes etcd wait for the disk, as in production.
    #[must_use]
    pub fn with_fsync(mut self) -> Self {
        self.fsync = true;
        self
    }
}

/// One etcd member: a real process with its own folder and its own two ports on 127.0.0.1.
#[derive(Debug)]
pub struct EtcdServer {
    name: String,
    folder: PathBuf,
    client: Port,
    peer: Port,
    client_url: String,
    initial_cluster: String,
    options: EtcdOptions,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    process: Process,
    watchdog: Child,
}

impl EtcdServer {
    /// Starts a single member that keeps its data and its log in `folder`, and waits until it is healthy.
    /// Data that is there already is used.
    ///
    /// # Errors
    /// When etcd cannot be built, does not start or does not become healthy within 30 s.
    pub fn start(folder: impl AsRef<Path>) -> Result<Self> {
        Self::start_with(folder, EtcdOptions::new())
    }

    /// As [`EtcdServer::start`], with other flags.
    ///
    /// # Errors
    /// As [`EtcdServer::start`].
    pub fn start_with(folder: impl AsRef<Path>, options: EtcdOptions) -> Result<Self> {
        let mut server = Self::prepare("m1", folder.as_ref(), options)?;
        server.initial_cluster = server.as_initial_member();
        server.restart()?;
        Ok(server)
    }

    fn prepare(name: &str, folder: &Path, options: EtcdOptions) -> Result<Self> {
        fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
        let folder = folder.canonicalize().context(|| format!("find {}", folder.display()))?;
        let (client, peer) = (Port::claim()?, Port::claim()?);
        let client_url = format!("http://127.0.0.1:{}", client.number());
        let name = name.to_owned();
        Ok(Self {
            name,
            folder,
            client,
            peer,
            client_url,
            initial_cluster: String::new(),
            options,
            running: None,
        })
    }

    fn as_initial_member(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.number())
    }

    /// Where clients connect, for example `http://127.0.0.1:23791`; stays the same over restarts.
    #[must_use]
    pub fn client_url(&self) -> &str {
        &self.client_url
    }

    /// The member's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("etcd.log")
    }

    /// The running process, `None` while stopped.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        self.running.as_ref().map(|running| running.process)
    }

    /// Stops it the polite way (SIGTERM) and waits for its end. Nothing happens when it is stopped already.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Kills it (SIGKILL), as a crash does. Nothing happens when it is stopped already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Freezes the process (SIGSTOP): it keeps its connections and answers nothing. Returns when it stands still.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.running()?.freeze()
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.running()?.thaw()
    }

    /// Starts it again with the same data and the same address, and waits until it is healthy. Stops it first
    /// when it runs.
    ///
    /// # Errors
    /// When it does not start or does not become healthy within 30 s.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()?;
        self.wait_healthy()
    }

    /// Runs `etcdctl` against this member and returns what it printed.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut etcdctl = Command::new(Tool::Etcd.program("etcdctl")?);
        run(etcdctl.arg(format!("--endpoints={}", self.client_url)).args(args))
    }

    /// Starts the process and does not wait for its health: a member alone has none before its peers are there.
    fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.context(|| format!("open {}", self.log().display()))?;
        let errors = log.try_clone().context(|| "share the log".to_owned())?;
        let mut etcd = Command::new(Tool::Etcd.program("etcd")?);
        etcd.args(self.flags()).args(&self.options.args);
        // In the background group, Ctrl-C reaches only the test; the watchdog then ends the member.
        std::os::unix::process::CommandExt::process_group(&mut etcd, 0);
        etcd.current_dir(&self.folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = etcd.spawn().context(|| "start etcd".to_owned())?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let Some(process) = Process::find(pid) else {
            let _ = child.wait();
            return Err(self.died());
        };
        let watchdog = watch_over(process)?;
        self.running = Some(Running { child, process, watchdog });
        Ok(())
    }

    fn flags(&self) -> Vec<String> {
        let (client, peer) = (&self.client_url, self.peer_url());
        let mut flags = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.folder.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", self.initial_cluster),
            "--log-level=warn".to_owned(),
        ];
        if !self.options.fsync {
            flags.push("--unsafe-no-fsync".to_owned());
        }
        flags
    }

    /// Waits until it answers `GET /health` with healthy, which takes a leader.
    ///
    /// # Errors
    /// When that takes more than 30 s, or the process ends.
    pub fn wait_healthy(&self) -> Result<()> {
        wait_until(&format!("etcd at {} to be healthy", self.client_url), HEALTHY_WITHIN, || {
            if !self.process().is_some_and(Process::alive) {
                return Err(self.died());
            }
            Ok(self.is_healthy().then_some(()))
        })
    }

    /// Whether it says that it is healthy, now.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        http::get(self.client.number(), "/health").is_some_and(|body| body.contains("\"health\":\"true\""))
    }

    fn died(&self) -> Error {
        Error::Died { server: format!("etcd {}", self.name), log: log_tail(&self.log()) }
    }

    fn running(&self) -> Result<Process> {
        self.process().ok_or_else(|| Error::Invalid(format!("etcd {} is stopped", self.name)))
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let sent = running.process.signal(signal).and_then(|()| running.process.signal(Signal::SIGCONT));
        let gone = sent.and_then(|()| running.process.wait_gone(GONE_WITHIN));
        // `wait_gone` may have reaped it already; then this says "no such child", which is fine.
        let _ = running.child.try_wait();
        drop(running.watchdog.stdin.take());
        let _ = running.watchdog.wait();
        gone
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A shell that waits for the end of its standard input, which comes when this process ends in whatever way, and
/// then kills the member, told apart by its start time. `PR_SET_PDEATHSIG` would not do: it fires when the thread
/// that started the member ends, and tests are threads.
fn watch_over(process: Process) -> Result<Child> {
    let (pid, started) = (process.pid(), process.started());
    let script = format!(
        "read -r _; [ \"$(cut -d' ' -f22 /proc/{pid}/stat 2>/dev/null)\" = {started} ] && kill -9 {pid}; exit 0"
    );
    let shell = find("sh").unwrap_or_else(|| PathBuf::from("/bin/sh"));
    let mut watchdog = Command::new(shell);
    std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
    watchdog.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    watchdog.spawn().context(|| "start the watchdog of etcd".to_owned())
}
