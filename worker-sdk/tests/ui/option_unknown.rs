//! An option that there is not.

use bellows_sdk::prelude::*;

#[task(name = "greet", colour = "red")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
