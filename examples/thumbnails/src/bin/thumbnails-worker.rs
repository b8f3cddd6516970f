//! The worker program: configured by its environment alone.

use std::path::PathBuf;

use bellows_example_thumbnails::worker::{Volume, thumbnails};
use bellows_sdk::ServeError;
use bellows_sdk::prelude::*;

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let volume = std::env::var("THUMBNAILS_VOLUME").unwrap_or_else(|_| "/volume".to_owned());
    bellows_sdk::serve(tasks![thumbnails].with_state(Volume(PathBuf::from(volume)))).await
}
