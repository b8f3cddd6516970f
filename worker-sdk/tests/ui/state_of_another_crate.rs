//! A `State` that is not ours.

use bellows_sdk::prelude::*;

mod web {
    pub struct State<T>(pub T);
}

#[task(name = "greet")]
async fn greet(name: String, db: web::State<u32>) -> Result<u32, TaskError> {
    drop(name);
    Ok(db.0)
}

fn main() {}
