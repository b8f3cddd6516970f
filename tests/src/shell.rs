//! Commands as a user would type them: printed, run, and quoted when they fail.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// No command of the story takes longer.
const BOUND: Duration = Duration::from_secs(300);

/// Runs a command line that the reader sees, and answers what it printed.
///
/// The line is split at blanks; nothing is quoted or expanded.
pub async fn typed(line: &str) -> Result<String> {
    println!("    $ {line}");
    let words: Vec<&str> = line.split_whitespace().collect();
    quiet(words).await
}

/// Runs a command that the story does not show.
pub async fn quiet<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<String> {
    run(words, None).await
}

/// `kubectl apply` of a manifest made by the story.
pub async fn apply(manifest: &str) -> Result<String> {
    run(["kubectl", "apply", "-f", "-"], Some(manifest)).await
}

/// What the API server would say to a manifest, which it does not keep.
pub async fn dry_run(manifest: &str) -> Result<String> {
    run(["kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-"], Some(manifest)).await
}

async fn run<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>, input: Option<&str>) -> Result<String> {
    let mut words = words.into_iter();
    let program = words.next().context("an empty command")?;
    let name = program.as_ref().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(words).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await.with_context(|| format!("writing to {name}"))?;
    }
    let output = tokio::time::timeout(BOUND, child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end within {} s", BOUND.as_secs()))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!("{name} ended with {}: {}{text}", output.status, String::from_utf8_lossy(&output.stderr))
}
