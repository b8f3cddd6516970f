//! A singleton that takes an input.

use bellows_sdk::prelude::*;

#[task(singleton, name = "sweep")]
async fn sweep(folder: String) -> Result<(), TaskError> {
    drop(folder);
    Ok(())
}

fn main() {}
