//! Awaiting many tasks, with a progress bar, and writing down what became of them.

use std::path::Path;

use anyhow::{Context, Result};
use bellows_sdk::prelude::*;
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};

use crate::refs::SavedRef;
use crate::task::Thumbnail;

/// What became of one photograph.
#[derive(Debug, Serialize)]
pub struct Ending {
    /// The photograph.
    pub path: String,
    /// The thumbnail, if the task succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<Thumbnail>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The worker of the last attempt.
    pub worker: Option<String>,
    /// The number of the last attempt.
    pub attempt: u32,
    /// When it began, in milliseconds since 1970, by the worker's clock.
    pub started: u64,
    /// When the task ended, likewise.
    pub finished: u64,
}

/// Awaits all tasks, in the order in which they end.
pub async fn all(bellows: &Bellows, refs: Vec<SavedRef>) -> Result<Vec<Ending>> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} thumbnails, {elapsed}")?;
    let bar = ProgressBar::new(refs.len() as u64).with_style(style);
    let mut waiting: FuturesUnordered<_> = refs.into_iter().map(|saved| one(bellows, saved)).collect();
    let mut endings = Vec::new();
    while let Some(ending) = waiting.next().await {
        let ending = ending?;
        bar.inc(1);
        if let Some(text) = &ending.error {
            bar.suspend(|| println!("failed {}: {text}", ending.path));
        }
        endings.push(ending);
    }
    bar.finish();
    endings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(endings)
}

async fn one(bellows: &Bellows, saved: SavedRef) -> Result<Ending> {
    let SavedRef { path, task } = saved;
    let handle = bellows.task(task);
    let record = handle.outcome().await.with_context(|| format!("awaiting {path}"))?;
    let (thumbnail, error) = match handle.await {
        Ok(thumbnail) => (Some(thumbnail), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    Ok(Ending {
        path,
        thumbnail,
        error,
        worker: record.worker.map(|worker| worker.to_string()),
        attempt: record.attempt,
        started: record.started.0,
        finished: record.finished.0,
    })
}

/// Writes what became of them, as a JSON list.
pub fn save(file: &Path, endings: &[Ending]) -> Result<()> {
    let text = serde_json::to_string_pretty(endings)?;
    std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
