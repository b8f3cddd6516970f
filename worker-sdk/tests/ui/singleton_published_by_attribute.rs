//! A singleton by attribute that somebody tries to publish.

use bellows_sdk::prelude::*;

#[task(singleton, name = "sweep")]
async fn sweep() -> Result<(), TaskError> {
    Ok(())
}

fn example(bellows: &Bellows) {
    let _ = bellows.publish::<sweep>(());
}

fn main() {}
