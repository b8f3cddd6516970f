//! By the saved ref alone, from other processes: a running task is followed and cancelled,
//! a task that was given up is replayed once its cause is mended.

use std::time::Duration;

use anyhow::{Context, Result};
use bellows_registry::id::TaskId;
use bellows_registry::record::{Ended, OutcomeRecord};
use kube::Api;
use kube::api::LogParams;

use crate::ledger::Book;
use crate::names::WORK;
use crate::narrate::{check, say};
use crate::scene::Scene;
use crate::{pods, wait};

/// How long one step may take; pods may have to come up for it.
const BOUND: Duration = Duration::from_secs(40);

/// A task that waits for its photograph tells so, and is cancelled while it runs.
pub async fn follow_and_cancel(scene: &Scene) -> Result<()> {
    let late = scene.volume.lay_out_late("unwanted")?;
    let task = publish_one(scene, "unwanted").await?;
    let reading =
        wait::until("a worker reads a photograph that is not there yet", BOUND, || async { late.held() });
    let held = reading.await?;
    let watching = scene.ask("watch", "unwanted").await?;
    let logs: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(scene.client.clone(), WORK);
    wait::until("another process sees its progress", BOUND, || async {
        let log = logs.logs(&watching, &LogParams::default()).await?;
        anyhow::ensure!(log.contains("reading"), "it printed: {log}");
        Ok(Some(()))
    })
    .await?;
    let cancelling = scene.ask("cancel", "unwanted").await?;
    let said = pods::ended(&scene.client, WORK, &cancelling, BOUND).await?;
    say(said.log.trim_end());
    check("its handler was told, and stopped in time", said.log.contains("stopped in time"), &said.log)?;
    let record = ending(scene, "the cancelled task has ended", task, Ended::Cancelled).await?;
    check("the handler saw one attempt", record.attempt <= 1, format!("{}", record.attempt))?;
    drop(held);
    let told = pods::ended(&scene.client, WORK, &watching, BOUND).await?;
    told.log.lines().for_each(say);
    check("who followed it is told of its end", told.log.contains("cancelled"), &told.log)
}

/// A photograph is cut off, its task gives up; the photograph is mended, the task replayed.
pub async fn mend_and_replay(scene: &Scene) -> Result<()> {
    let photo = scene.volume.lay_out_broken("mended")?;
    let task = publish_one(scene, "mended").await?;
    let parked = ending(scene, "the task gives up", task, Ended::Parked).await?;
    let why = parked.tally.errors.last().map(|error| error.message.clone()).unwrap_or_default();
    check("and says why", why.contains("cut off"), &why)?;
    photo.mend()?;
    let replaying = scene.ask("replay", "mended").await?;
    let said = pods::ended(&scene.client, WORK, &replaying, BOUND).await?;
    say(said.log.trim_end());
    check("it runs again", said.succeeded && said.log.contains("runs again"), &said.log)?;
    let record = ending(scene, "the replayed task ends", task, Ended::Succeeded).await?;
    let (life, kept) = (record.tally.life, record.tally.errors.len());
    check(
        "in its second life, which remembers the first",
        life == 1 && kept >= 1,
        format!("life {life}, {kept} errors"),
    )?;
    scene.await_refs("mended").await?;
    let waiter = pods::ended(&scene.client, WORK, "wait-mended", BOUND).await?;
    check("the ref that was saved before has the result", waiter.succeeded, waiter.log)
}

/// Publishes a wave of one, and answers its task.
async fn publish_one(scene: &Scene, wave: &str) -> Result<TaskId> {
    let before = scene.ledger.read(|book| book.published.clone())?;
    scene.publish(wave, &[]).await?;
    let new = |book: &Book| book.published.keys().find(|task| !before.contains_key(task)).copied();
    scene.ledger.until("its task is published", BOUND, new).await
}

async fn ending(scene: &Scene, what: &str, task: TaskId, how: Ended) -> Result<OutcomeRecord> {
    let ended = |book: &Book| {
        let record = &book.settled.get(&task)?.record;
        (record.ended == how).then(|| record.clone())
    };
    scene.ledger.until(what, BOUND, ended).await.with_context(|| format!("waiting for {how:?}"))
}
