//! How many tasks a second one file carries, with every answer synced to the disk.
//!
//! `cargo run --release --example embedded_throughput -p bellows-sdk -- folder`

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bellows_sdk::prelude::*;
use futures::StreamExt;

struct Nothing;

impl TaskDefinition for Nothing {
    const NAME: &'static str = "nothing";
    type Callback = ();
    type Trigger = PublishTrigger<u32>;
}

const TASKS: u32 = 20_000;

/// Publishers that wait for their answers at any time.
const PUBLISHERS: usize = 256;

#[allow(clippy::disallowed_methods, reason = "an example reads the clock as any program does")]
fn now() -> Instant {
    Instant::now()
}

/// What one sync costs here: the median of many.
fn sync_cost(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join("sync-cost");
    let mut file = File::create(&path)?;
    let mut costs = Vec::new();
    for _ in 0..200 {
        let began = now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        costs.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    costs.sort();
    Ok(costs[costs.len() / 2])
}

fn a_second(began: Instant) -> f64 {
    f64::from(TASKS) / began.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = Path::new(&folder);
    println!("one sync of 4 KiB   {:>10.2?}", sync_cost(folder)?);
    let path = folder.join("throughput.redb");
    let bellows = Bellows::embedded(&path).await?;

    let tasks = Tasks::new().with_fn::<Nothing, _, _>(|_, _| async { Ok(().into()) });
    let worker = WorkerDispatcher::of(&bellows, tasks).concurrency(256).launch().await?;
    let one = now();
    for n in 0..20 {
        bellows.publish::<Nothing>(n).await?.await?;
    }
    println!("one after another   {:>10.2?} from publish to result", one.elapsed() / 20);

    let began = now();
    let publishes = futures::stream::iter(0..TASKS).map(|n| bellows.publish::<Nothing>(n).into_future());
    let published: Vec<_> = publishes.buffer_unordered(PUBLISHERS).collect().await;
    println!("published           {:>10.0} a second, {PUBLISHERS} at a time", a_second(began));
    for task in published {
        task?.await?;
    }
    println!("published and ended {:>10.0} a second", a_second(began));
    worker.drain(Duration::from_secs(5)).await?;
    drop(bellows);
    println!("the file            {:>10} KiB", std::fs::metadata(&path)?.len() / 1024);
    std::fs::remove_file(path)?;
    Ok(())
}
