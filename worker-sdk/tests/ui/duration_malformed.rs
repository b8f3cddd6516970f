//! Durations that are none.

use bellows_sdk::prelude::*;

#[task(name = "greet", timeout = "30 seconds")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "meet", timeout = 30)]
async fn meet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
