//! A method.

use bellows_sdk::prelude::*;

struct Greeter;

impl Greeter {
    #[task(name = "greet")]
    async fn greet(&self, name: String) -> Result<String, TaskError> {
        Ok(name)
    }
}

fn main() {}
