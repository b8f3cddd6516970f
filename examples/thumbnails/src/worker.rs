//! One attempt of one task.

use std::path::PathBuf;

use bellows_sdk::prelude::*;

use crate::task::{Request, Thumbnail, Thumbnails};
use crate::thumbnail;

/// Makes one thumbnail. A new one is built for every attempt, so nothing leaks from one
/// task to the next.
#[derive(Debug, Clone)]
pub struct ThumbnailWorker {
    /// The volume's root.
    pub volume: PathBuf,
}

impl Worker for ThumbnailWorker {
    type Task = Thumbnails;

    async fn process(self, context: TaskContext, request: Request) -> TaskResult<Thumbnail> {
        let attempt = context.attempt_id().to_string();
        // Decoding and shrinking take a core for a while: on a thread of its own, so that
        // the worker's other tasks and its lease go on.
        let work = move || thumbnail::make(&self.volume, &request, &attempt);
        match tokio::task::spawn_blocking(work).await? {
            Ok(made) => Ok(TaskSuccess::done(made)),
            Err(error) if error.is_temporary() => Err(TaskError::retry(error)),
            Err(error) => Err(TaskError::park(error)),
        }
    }
}
