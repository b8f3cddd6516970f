//! Sixty seconds with Bellows: a worker, a publisher and the assigner in one program, over
//! one durable file.
//!
//! `cargo run --example quickstart -p bellows-sdk`

use std::time::{Duration, Instant};

use bellows_sdk::prelude::*;

/// What a task carries.
#[derive(Serialize, Deserialize)]
struct Guest {
    name: String,
}

/// The work itself: an async function. `?` on any error means: try again later.
#[task(name = "greet", timeout = "10s", max_attempts = 5)]
async fn greet(guest: Guest, ctx: TaskContext) -> Result<String, TaskError> {
    match guest.name.as_str() {
        "" => Err(TaskError::park("nobody to greet")), // trying again cannot help
        "Grace" if ctx.attempt() == 1 => Err("the line is busy".into()),
        name => Ok(format!("Hello, {name}!")),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "an example reads the clock as any program does")]
    let began = Instant::now();
    let ms = || began.elapsed().as_millis();

    let file = std::env::args().nth(1).unwrap_or_else(|| "quickstart.redb".to_owned());
    let bellows = Bellows::embedded(&file).await?; // on a cluster: Bellows::from_env().await?
    let worker = WorkerDispatcher::of(&bellows, tasks![greet]).launch().await?;

    println!("One worker, four tasks. They are kept in {file}:");
    let mut tasks = Vec::new();
    for name in ["Ada", "Grace", "Linus", ""] {
        let task = bellows.publish::<greet>(Guest { name: name.to_owned() });
        tasks.push((name, task.await?)); // Ok: it is on the disk now
        println!("{:>6} ms  published greet({name:?})", ms());
    }
    println!("Their results, as typed values:");
    for (name, task) in tasks {
        match task.await {
            Ok(greeting) => println!("{:>6} ms  {greeting}", ms()),
            Err(error) => println!("{:>6} ms  greet({name:?}): {error}", ms()),
        }
    }
    worker.drain(Duration::from_secs(5)).await?;

    println!("Grace was greeted at the second attempt, a second later. The last task was given up,");
    println!("and is kept for a person to look at.");
    println!("This program is worker-sdk/examples/quickstart.rs. Next: docs/guide/first-worker.md");
    Ok(())
}
