//! Sixty seconds with Bellows: a worker, a publisher and the assigner in one program, over
//! one durable file.
//!
//! `cargo run --example quickstart -p bellows-sdk`

use std::time::{Duration, Instant};

use bellows_sdk::prelude::*;

/// What a task of this kind takes.
#[derive(Serialize, Deserialize)]
struct Greeting {
    name: String,
}

/// A kind of work: its name, what it takes, what it gives.
struct Greet;

impl TaskDefinition for Greet {
    const NAME: &'static str = "greet";
    type Callback = String;
    type Trigger = PublishTrigger<Greeting>;
}

/// The work itself. `?` on any error means: try again later.
async fn greet(context: TaskContext, greeting: Greeting) -> TaskResult<String> {
    match greeting.name.as_str() {
        "" => Err(TaskFailure::park("nobody to greet")), // trying again cannot help
        "Grace" if context.attempt() == 1 => Err("the line is busy".into()),
        name => Ok(format!("Hello, {name}! (attempt {})", context.attempt()).into()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "an example reads the clock as any program does")]
    let began = Instant::now();
    let file = std::env::args().nth(1).unwrap_or_else(|| "target/quickstart.redb".to_owned());
    let bellows = Bellows::embedded(&file).await?; // on a cluster: Bellows::from_env().await?
    let worker = WorkerDispatcher::of(&bellows, Tasks::new().with_fn::<Greet, _, _>(greet)).launch().await?;

    println!("Publishing four tasks. They are kept in {file}.");
    let mut tasks = Vec::new();
    for name in ["Ada", "Grace", "Linus", ""] {
        tasks.push(bellows.publish::<Greet>(Greeting { name: name.to_owned() }).await?);
    }
    for task in tasks {
        let id = task.id();
        match task.await {
            Ok(greeting) => println!("  {:>4} ms  {id}  {greeting}", began.elapsed().as_millis()),
            Err(error) => println!("  {:>4} ms  {error}", began.elapsed().as_millis()),
        }
    }
    worker.drain(Duration::from_secs(5)).await?;
    println!(
        "Done: three greetings (one at the second attempt), and one task parked for a person to look at."
    );
    Ok(())
}
