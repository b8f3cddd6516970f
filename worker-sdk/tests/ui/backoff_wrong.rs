//! A back-off that cannot be.

use bellows_sdk::prelude::*;

#[task(name = "greet", backoff(initial = "10m", max = "1m"))]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "meet", backoff(initail = "1s"))]
async fn meet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "part", backoff(jitter = "120%"))]
async fn part(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "stay", backoff = "1s")]
async fn stay(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
