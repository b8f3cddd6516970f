//! The process that is killed: publishers, three workers and the assigner over one file.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Backoff, Execution, Percent, Retry, Span};
use bellows_sdk::{DispatcherHandle, Policy};

/// The variable that names the file, and makes this program the child.
pub(crate) const FILE: &str = "BELLOWS_TEST_KILL_FILE";

/// How a line begins that acknowledges something.
pub(crate) const ACK: &str = "ack ";

/// What the lines say after [`ACK`].
#[derive(Serialize, Deserialize)]
pub(crate) enum Said {
    /// A publish has returned.
    Published(TaskRef<Work>),
    /// A result was told to somebody.
    Told(TaskRef<Work>, String),
}

/// Succeeds at the attempt that the payload says.
pub(crate) struct Work;

impl TaskDefinition for Work {
    const NAME: &'static str = "work";
    type Callback = String;
    type Trigger = PublishTrigger<u32>;
}

/// The result names the attempt that settled the task: another one would settle it with
/// another result.
async fn work(context: TaskContext, succeeds_at: u32) -> TaskResult<String> {
    tokio::time::sleep(Duration::from_millis(u64::from(succeeds_at))).await;
    if context.attempt() < succeeds_at {
        return Err("not yet".into());
    }
    Ok(context.attempt_id().to_string().into())
}

pub(crate) fn policy() -> Policy {
    let (initial, max) = (Span::millis(1), Span::millis(20));
    let backoff = Backoff { initial, factor: 2, max, jitter: Percent::new(20).unwrap() };
    let retry = Retry { max_attempts: 10, backoff };
    // Those that run when the process is killed are tried again, however often that happens.
    let execution = Execution { retry, max_disruptions: 100, ..Execution::default() };
    Policy { execution, ..Policy::default() }
}

pub(crate) async fn workers(bellows: &Bellows) -> Vec<DispatcherHandle> {
    let launches = (0..3).map(|_| {
        let tasks = Tasks::new().with_fn::<Work, _, _>(work).policy(policy());
        WorkerDispatcher::of(bellows, tasks).concurrency(2).launch()
    });
    futures::future::try_join_all(launches).await.unwrap()
}

/// Publishes and runs tasks until it is killed.
pub(crate) fn main(file: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bellows = Bellows::embedded(file).await.unwrap();
        bellows.define::<Work>(policy()).await.unwrap();
        let _workers = workers(&bellows).await;
        let publishers = (0..8).map(|publisher| publish(&bellows, publisher));
        futures::future::join_all(publishers).await;
    });
    unreachable!("publishers do not end");
}

async fn publish(bellows: &Bellows, publisher: u32) {
    for count in 0.. {
        let task = bellows.publish::<Work>((publisher + count) % 4).await.unwrap();
        say(&Said::Published(task.to_ref()));
        let reference = task.to_ref();
        say(&Said::Told(reference, task.await.unwrap()));
    }
}

/// One write, so that a line is whole or cut short by the kill.
fn say(what: &Said) {
    let line = format!("{ACK}{}\n", serde_json::to_string(what).unwrap());
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}
