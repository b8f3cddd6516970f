//! What can be asked of tasks by their saved refs, from any process: to be told how far
//! they are, to stop, to run again.

use anyhow::{Context, Result};
use bellows_sdk::prelude::*;
use bellows_sdk::{Cancelled, Replayed};
use futures::future::try_join_all;

use crate::refs::SavedRef;
use crate::task::Step;
use crate::worker::thumbnails;

/// Prints what each task is busy with, as it comes, until all have ended.
pub async fn watch(bellows: &Bellows, refs: Vec<SavedRef>) -> Result<()> {
    let one = |SavedRef { path, task }| async move {
        let handle: TaskHandle<thumbnails> = bellows.task(task);
        let mut steps = handle.watch_progress::<Step>();
        while let Some(step) = steps.next().await {
            println!("{path}: {}", step.with_context(|| format!("following {path}"))?);
        }
        let ended = handle.outcome().await.with_context(|| format!("awaiting {path}"))?.ended;
        println!("{path}: {}", format!("{ended:?}").to_lowercase());
        Ok::<_, anyhow::Error>(())
    };
    try_join_all(refs.into_iter().map(one)).await.map(drop)
}

/// Cancels each task, and prints what became of it.
pub async fn cancel(bellows: &Bellows, refs: Vec<SavedRef>) -> Result<()> {
    let one = |SavedRef { path, task }| async move {
        let said = bellows.task(task).cancel().await.with_context(|| format!("cancelling {path}"))?;
        println!(
            "{path}: {}",
            match said {
                Cancelled::WasWaiting => "cancelled before it began".to_owned(),
                Cancelled::Stopped => "cancelled; its worker stopped in time".to_owned(),
                Cancelled::NotStopped => "cancelled; its worker goes on, in vain".to_owned(),
                Cancelled::TooLate(record) => format!("too late: it has {:?}", record.ended).to_lowercase(),
                Cancelled::NotFound => "not known (any more)".to_owned(),
                other => format!("{other:?}"),
            }
        );
        Ok::<_, anyhow::Error>(())
    };
    try_join_all(refs.into_iter().map(one)).await.map(drop)
}

/// Runs again those that were given up, and prints which.
pub async fn replay(bellows: &Bellows, refs: Vec<SavedRef>) -> Result<()> {
    let one = |SavedRef { path, task }| async move {
        let said = bellows.task(task).replay().await.with_context(|| format!("replaying {path}"))?;
        match said {
            Replayed::Again { life } => println!("{path}: runs again, its life {}", life + 1),
            Replayed::NotParked => println!("{path}: was not given up"),
            other => println!("{path}: {other:?}"),
        }
        Ok::<_, anyhow::Error>(())
    };
    try_join_all(refs.into_iter().map(one)).await.map(drop)
}
