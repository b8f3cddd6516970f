//! The attribute on something else.

use bellows_sdk::prelude::*;

#[task(name = "greet")]
struct Greet;

fn main() {}
