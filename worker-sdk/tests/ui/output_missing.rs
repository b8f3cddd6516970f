//! A function that returns nothing.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
async fn greet(name: String) {
    drop(name);
}

fn main() {}
