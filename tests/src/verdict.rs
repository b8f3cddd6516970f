//! How the story ends: one line, and what helps when it is a bad one.

use std::time::Duration;

use crate::names::{SYSTEM, WORK};
use crate::narrate::CheckFailed;
use crate::shell;

/// The name of what failed and why, in one line.
pub fn failure(error: &anyhow::Error, chapter: &str) -> String {
    let failed = error.chain().find_map(|cause| cause.downcast_ref::<CheckFailed>());
    let (check, why) = match failed {
        Some(CheckFailed { check, why }) => (check.as_str(), why.clone()),
        None => (chapter, format!("{error:#}")),
    };
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{check}: {}", line.chars().take(400).collect::<String>())
}

/// Prints what a person would look at first: pods, events, the operator's log.
pub async fn dump() {
    let looks: [&[&str]; 7] = [
        &["kubectl", "get", "pods", "-A", "-o", "wide"],
        &["kubectl", "get", "taskdefinitions", "-A", "-o", "yaml"],
        &["kubectl", "get", "events", "-n", WORK, "--sort-by=.lastTimestamp"],
        &["kubectl", "get", "events", "-n", SYSTEM, "--sort-by=.lastTimestamp"],
        &["kubectl", "logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=bellows", "--tail=60", "--prefix"],
        &[
            "kubectl",
            "logs",
            "-n",
            WORK,
            "-l",
            "app.kubernetes.io/name=bellows-worker",
            "--tail=30",
            "--prefix",
        ],
        &[
            "kubectl",
            "logs",
            "-n",
            WORK,
            "-l",
            "app.kubernetes.io/name=thumbnails-publisher",
            "--tail=30",
            "--prefix",
        ],
    ];
    for look in looks {
        println!("\n-- {}", look.join(" "));
        match tokio::time::timeout(Duration::from_secs(20), shell::quiet(look)).await {
            Ok(Ok(text)) => println!("{}", text.trim_end()),
            Ok(Err(error)) => println!("{error:#}"),
            Err(_) => println!("no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_named_and_anything_else_names_its_chapter() {
        let check = CheckFailed { check: "no task was lost".to_owned(), why: "2\nwere".to_owned() };
        let error = anyhow::Error::from(check).context("collecting");
        assert_eq!(failure(&error, "results"), "no task was lost: 2 were");
        assert_eq!(failure(&anyhow::anyhow!("no route"), "install"), "install: no route");
    }
}
