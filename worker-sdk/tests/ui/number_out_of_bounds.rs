//! Numbers that are too small, too large, or none.

use bellows_sdk::prelude::*;

#[task(name = "greet", max_attempts = 0, concurrency = 100_000, max_disruptions = "3")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
