//! Starts the servers of a cluster so that they outlive the program that starts them, and so that `down` finds every
//! one of them: each has a log, a pid file and the mark of its cluster in its environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use super::layout::{Layout, shown};
use crate::error::{Error, IoContext, Result, log_tail};
use crate::process::{MARK, Process};

/// Where a server runs.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In a network namespace, otherwise on the machine.
    Net(&'a Path),
    /// In all namespaces of a node, given by its init.
    Node(Process),
}

/// Starts a server and records it. In a node, `nsenter` forks to enter the pid namespace, and the recorded process is
/// the program itself, so that a kill hits it.
pub(super) fn start<S: AsRef<OsStr>>(
    layout: &Layout,
    name: &str,
    place: Place<'_>,
    program: &Path,
    args: &[S],
) -> Result<Process> {
    let mut server = detached(layout, name)?;
    match place {
        Place::Net(net) => server.arg(format!("--net={}", shown(net))),
        Place::Node(init) => server.args(["--target", &init.pid().to_string()]).args([
            "--mount", "--pid", "--uts", "--ipc", "--net", // all that a node has of its own
        ]),
    };
    server.arg(program).args(args);
    let first = spawn(&mut server, layout, name)?;
    let process = match place {
        Place::Net(_) => first,
        Place::Node(_) => first.wait_child(name)?,
    };
    process.save(&layout.pid_file(name))?;
    Ok(process)
}

/// `setsid nsenter ...`: in a session of its own, so no terminal reaches it; its output goes to its log.
pub(super) fn detached(layout: &Layout, name: &str) -> Result<Command> {
    let log = layout.log(name);
    for file in [&log, &layout.pid_file(name)] {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
        }
    }
    let output = File::options().create(true).append(true).open(&log);
    let output = output.context(|| format!("open {}", log.display()))?;
    let errors = output.try_clone().context(|| "share a log".to_owned())?;
    let mut command = Command::new("setsid");
    command.arg("nsenter").current_dir("/").env(MARK, &layout.state).env("PATH", path(layout));
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Ok(command)
}

/// Starts what [`detached`] prepared; the pid stays the same through `setsid` and `nsenter`.
pub(super) fn spawn(command: &mut Command, layout: &Layout, name: &str) -> Result<Process> {
    let child = command.spawn().context(|| format!("start {name}"))?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    Process::find(pid).ok_or_else(|| died(layout, name))
}

/// Fails when a server that should run has ended.
pub(super) fn require_alive(layout: &Layout, name: &str) -> Result<()> {
    if running(layout, name).is_some() { Ok(()) } else { Err(died(layout, name)) }
}

/// The server's process, if it runs.
pub(super) fn running(layout: &Layout, name: &str) -> Option<Process> {
    Process::load(&layout.pid_file(name))
}

fn died(layout: &Layout, name: &str) -> Error {
    Error::Died { server: name.to_owned(), log: log_tail(&layout.log(name)) }
}

/// Servers look for runc, mount, nft and the like.
fn path(layout: &Layout) -> String {
    crate::host::path_with(&[&layout.folder("bin")])
}
