//! A time-out that nobody can keep.

use bellows_sdk::prelude::*;

#[task(name = "greet", timeout = "300ms")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "meet", timeout = "25h")]
async fn meet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
