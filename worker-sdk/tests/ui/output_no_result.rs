//! A function that returns no Result.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
async fn greet(name: String) -> String {
    name
}

fn main() {}
