//! A published task that takes nothing.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
async fn greet(ctx: TaskContext) -> Result<u32, TaskError> {
    Ok(ctx.attempt())
}

fn main() {}
