//! One typed task with Bellows: worker and publisher over one durable file. On a cluster,
//! `Bellows::from_env()` takes the place of `Bellows::embedded`.

use std::time::Duration;

use bellows_sdk::prelude::*;

#[derive(Serialize, Deserialize)]
struct Resize {
    url: String,
    width: u32,
}

#[derive(Serialize, Deserialize)]
struct Thumb {
    key: String,
}

#[task(name = "resize-image", timeout = "30s", max_attempts = 5)]
async fn resize_image(input: Resize) -> Result<Thumb, TaskError> {
    Ok(Thumb { key: format!("{}@{}", input.url, input.width) })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bellows = Bellows::embedded("tasks.redb").await?;
    let worker = WorkerDispatcher::of(&bellows, tasks![resize_image]).launch().await?;

    let input = Resize { url: "https://example.org/cat.png".into(), width: 320 };
    let task = bellows
        .publish::<resize_image>(input)
        .unique_by(|input| input.url.clone())
        .delay(Duration::from_secs(5))
        .await?;
    let thumb: Thumb = task.await?;
    println!("{}", thumb.key);

    worker.drain(Duration::from_secs(5)).await?;
    Ok(())
}
