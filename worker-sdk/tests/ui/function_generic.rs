//! A generic function.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
async fn greet<T: Send>(name: T) -> Result<(), TaskError> {
    drop(name);
    Ok(())
}

fn main() {}
