//! The same task with apalis, over Postgres (`DATABASE_URL`).

use std::time::Duration;

use apalis::layers::retry::backoff::{ExponentialBackoffMaker, MakeBackoff};
use apalis::prelude::*;
use apalis_postgres::{PgPool, PostgresStorage};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

#[derive(Clone, Serialize, Deserialize)]
struct Resize {
    url: String,
    width: u32,
}

#[derive(Serialize, Deserialize)]
struct Thumb {
    key: String,
}

async fn resize_image(input: Resize) -> Result<Thumb, BoxDynError> {
    Ok(Thumb { key: format!("{}@{}", input.url, input.width) })
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    PostgresStorage::setup(&pool).await?;
    let mut storage = PostgresStorage::new(&pool);

    let backoff = ExponentialBackoffMaker::default().make_backoff();
    let worker = WorkerBuilder::new("resize-image")
        .backend(storage.clone().poll_with_interval(Duration::from_secs(1)))
        .retry(RetryPolicy::retries(4).with_backoff(backoff))
        .timeout(Duration::from_secs(30))
        .build(resize_image);
    tokio::spawn(worker.run());

    let input = Resize { url: "https://example.org/cat.png".into(), width: 320 };
    let id = TaskId::from_ulid(Ulid::generate());
    let task = TaskBuilder::new(input.clone())
        .task_id(id.clone())
        .max_attempts(5)
        .idempotency_key(&input.url)
        .run_after(Duration::from_secs(5))
        .build();
    storage.push_task(task).await?;
    let mut results = storage.wait_for_single(id);
    let result: TaskResult<Thumb> = results.next().await.ok_or("the database did not answer")??;
    let thumb = result.take()?;
    println!("{}", thumb.key);
    Ok(())
}
