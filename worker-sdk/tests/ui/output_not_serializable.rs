//! A result that nobody could await.

use bellows_sdk::prelude::*;

struct Thumb;

#[task(name = "resize")]
async fn resize(url: String) -> Result<Thumb, TaskError> {
    drop(url);
    Ok(Thumb)
}

fn main() {}
