//! Upgrades that lead nowhere.

use bellows_sdk::prelude::*;

fn from_v1(old: String) -> String {
    old
}

#[task(name = "greet", upgrade(from_v1))]
async fn greet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "meet", version = 2, upgrade(from_v1, from_v1))]
async fn meet(name: String) -> Result<String, TaskError> {
    Ok(name)
}

#[task(name = "part", version = 2, upgrade = from_v1, blocking = "yes", alias = "Part")]
async fn part(name: String) -> Result<String, TaskError> {
    Ok(name)
}

fn main() {}
