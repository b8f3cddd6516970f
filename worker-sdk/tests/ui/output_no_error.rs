//! An error that is none.

use bellows_sdk::prelude::*;

struct Oops;

#[task(name = "greet")]
async fn greet(name: String) -> Result<String, Oops> {
    Ok(name)
}

fn main() {}
