//! The task itself: one attempt at one thumbnail.

use std::path::PathBuf;

use bellows_sdk::prelude::*;

use crate::task::{Request, Thumbnail};
use crate::thumbnail;

/// Where the photographs are: the volume's root.
#[derive(Debug, Clone)]
pub struct Volume(pub PathBuf);

/// Makes one thumbnail. What the attribute says, `taskdefinition.yaml` says too.
#[task(
    name = "thumbnails",
    timeout = "60s",
    max_attempts = 3,
    concurrency = 2,
    retention(succeeded = "1h", failed = "168h")
)]
pub async fn thumbnails(
    request: Request,
    context: TaskContext,
    volume: State<Volume>,
) -> Result<Thumbnail, TaskError> {
    let (attempt, told) = (context.attempt_id().to_string(), context.cancelled());
    // Who follows the progress need not know of the last second; one report more or less
    // is no reason to fail.
    let report = move |step| drop(context.progress(&step));
    // Decoding and shrinking take a core for a while: on a thread of its own, so that
    // the worker's other tasks and its lease go on.
    let work = move || thumbnail::make(&volume.0, &request, &attempt, report);
    tokio::select! {
        made = tokio::task::spawn_blocking(work) => made?
            .map_err(|error| if error.is_temporary() { TaskError::retry(error) } else { TaskError::park(error) }),
        // Somebody cancelled the task, its time is over, or the pod ends: an error will do,
        // for Bellows knows which. The thread cannot be stopped. It ends by itself, and what
        // it may still write is what any other attempt would.
        () = told.cancelled() => Err("told to stop".into()),
    }
}
