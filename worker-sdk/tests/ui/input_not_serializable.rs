//! An input that cannot be stored.

use bellows_sdk::prelude::*;

struct Greeting;

#[task(name = "greet")]
async fn greet(greeting: Greeting) -> Result<(), TaskError> {
    drop(greeting);
    Ok(())
}

fn main() {}
