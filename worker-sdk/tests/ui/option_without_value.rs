//! Options without their values, and a flag with one.

use bellows_sdk::prelude::*;

#[task(name = "greet", timeout, concurrency(4))]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(singleton = true, name = "tick")]
async fn tick() -> Result<(), TaskError> {
    Ok(())
}

fn main() {}
