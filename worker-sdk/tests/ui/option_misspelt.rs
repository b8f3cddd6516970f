//! An option that is nearly one.

use bellows_sdk::prelude::*;

#[task(name = "greet", time_out = "30s", max_atempts = 3)]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
