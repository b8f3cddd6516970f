//! The worker program: configured by its environment alone.

use std::path::PathBuf;

use bellows_example_thumbnails::worker::ThumbnailWorker;
use bellows_sdk::prelude::*;
use bellows_sdk::{ServeError, WorkerId};

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let volume = PathBuf::from(std::env::var("THUMBNAILS_VOLUME").unwrap_or_else(|_| "/volume".to_owned()));
    let factory = move |_: &WorkerId| ThumbnailWorker { volume: volume.clone() };
    bellows_sdk::serve(Tasks::new().with(factory)).await
}
