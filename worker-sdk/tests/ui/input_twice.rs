//! Two inputs.

use bellows_sdk::prelude::*;

#[task(name = "add")]
async fn add(left: u32, right: u32) -> Result<u32, TaskError> {
    Ok(left + right)
}

fn main() {}
