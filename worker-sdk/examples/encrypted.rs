//! A task whose payload and result nobody can read but those who have the key.
//!
//! `cargo run -p bellows-sdk --example encrypted --features zstd,encryption`

use std::sync::Arc;

use bellows_sdk::prelude::*;
use bellows_sdk::{Codecs, Encryption, Keyring, MemoryBackend, Options, Zstd};

struct Greet;

impl TaskDefinition for Greet {
    const NAME: &'static str = "greet";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

async fn greet(_: TaskContext, name: String) -> TaskResult<String> {
    Ok(format!("Hello, {name}!").into())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `openssl rand -hex 32` makes a key. This one is for show.
    let keys = std::env::var("TASK_KEYS").unwrap_or_else(|_| format!("2026-07={}", "0f".repeat(32)));
    let codecs = Codecs::new().with(Zstd::new()).with(Encryption::new(Keyring::parse(&keys)?));
    let options = Options { codecs, ..Options::default() };
    let bellows = Bellows::hosted(Arc::new(MemoryBackend::new()), options)?;
    let worker = WorkerDispatcher::of(&bellows, Tasks::new().with_fn::<Greet, _, _>(greet)).launch().await?;

    let task = bellows.publish::<Greet>("Ada".into()).await?;
    let outcome = task.outcome().await?;
    println!("stored: {} bytes under key {:?}", outcome.result.len(), outcome.codecs[0].key);
    println!("read:   {}", task.await?);
    worker.drain(std::time::Duration::from_secs(5)).await?;
    Ok(())
}
