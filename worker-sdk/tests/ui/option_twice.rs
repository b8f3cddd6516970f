//! An option written twice.

use bellows_sdk::prelude::*;

#[task(name = "greet", timeout = "30s", timeout = "40s")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
