//! A function that is not async.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
