//! Not the way options are written.

use bellows_sdk::prelude::*;

#[task("greet")]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name: "meet")]
async fn meet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
