//! Runs a short command to its end and turns a failure into an error that says what it printed.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, IoContext, Result};

/// Builds a command from a program and its arguments.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<std::ffi::OsStr>,
    args: &[S],
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs `command` to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command.output().context(|| format!("run {}", shown(command)))?;
    judge(command, &output)
}

/// Runs `command` with `input` as its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(|| format!("run {}", shown(command)))?;
    // A program that ends early closes the pipe; its exit status tells the story better than EPIPE would.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context(|| format!("wait for {}", shown(command)))?;
    judge(command, &output)
}

/// Runs `command` with a file as its standard input.
pub(crate) fn run_with_file(command: &mut Command, input: File) -> Result<String> {
    command.stdin(input);
    let output = command.output().context(|| format!("run {}", shown(command)))?;
    judge(command, &output)
}

fn judge(command: &Command, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Command {
        command: shown(command),
        status: output.status.to_string(),
        output: end_of(&String::from_utf8_lossy(said)),
    })
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let line = words.join(" ");
    if line.len() > 300 { format!("{}...", line.chars().take(300).collect::<String>()) } else { line }
}

fn end_of(text: &str) -> String {
    const KEPT: usize = 2000;
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(KEPT);
    text.chars().skip(skipped).collect()
}
