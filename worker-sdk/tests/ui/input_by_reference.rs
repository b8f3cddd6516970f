//! An input by reference.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
async fn greet(name: &str) -> Result<(), TaskError> {
    drop(name);
    Ok(())
}

fn main() {}
