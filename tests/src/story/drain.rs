//! A busy pod is deleted, as a rollout or the draining of a node does it.

use std::time::Duration;

use anyhow::{Context, Result};
use bellows_registry::clock;
use bellows_registry::record::Ended;

use crate::names::{DEFINITION, WORK};
use crate::narrate::{check, say};
use crate::scene::Scene;
use crate::{pods, shell, wait};

/// How long a pod may finish what it runs: shorter than the task takes.
const DRAIN: &str = r#"{"spec":{"worker":{"drainTimeout":"1s"}}}"#;
/// Handing back must be quicker than any way in which the loss of a worker is noticed: the
/// rest of the grace period, and then the time its lease lives.
const HANDED_BACK: Duration = Duration::from_secs(12);

/// `kubectl delete pod` of a busy worker: it hands its task back, which costs no attempt,
/// and another finishes it. Begins at 0 pods, so that the changed template replaces none.
pub async fn delete_busy_pod(scene: &mut Scene) -> Result<()> {
    shell::typed(&format!("kubectl patch td -n {WORK} {DEFINITION} --type merge -p {DRAIN}")).await?;
    let grace = "jsonpath={.spec.template.spec.terminationGracePeriodSeconds}";
    wait::until("the Deployment has the shorter drain", Duration::from_secs(20), || async {
        let read = shell::quiet(["kubectl", "get", "deployment", "-n", WORK, DEFINITION, "-o", grace]);
        let seconds = read.await?;
        anyhow::ensure!(seconds == "11", "its grace period is {seconds} s");
        Ok(Some(()))
    })
    .await?;
    let late = scene.volume.lay_out_late("late")?;
    scene.publish("late", &[]).await?;
    let reading =
        wait::until("a worker reads a photograph that is not there yet", Duration::from_secs(40), || async {
            late.held()
        });
    let held = reading.await?;
    let standing = |book: &crate::ledger::Book| {
        let (attempt, (task, worker)) = book.standing.iter().next()?;
        Some((*task, *attempt, worker.clone()))
    };
    let (task, first, worker) =
        scene.ledger.until("its task is assigned", Duration::from_secs(5), standing).await?;
    shell::typed(&format!("kubectl delete pod -n {WORK} {} --wait=false", worker.pod())).await?;
    let deleted = clock::instant();
    let handed_back = |book: &crate::ledger::Book| (!book.standing.contains_key(&first)).then_some(());
    scene.ledger.until("the task is handed back", HANDED_BACK, handed_back).await?;
    say(format!("handed back after {:.1} s", (clock::instant() - deleted).as_secs_f64()));
    wait::until("the deleted pod is gone", Duration::from_secs(40), || async {
        Ok(pods::find(&scene.client, WORK, worker.pod()).await?.is_none().then_some(()))
    })
    .await?;
    let elsewhere = |book: &crate::ledger::Book| {
        let mut standing = book.standing.iter();
        standing.any(|(attempt, (held, _))| *held == task && *attempt != first).then_some(())
    };
    scene.ledger.until("another worker has it", Duration::from_secs(40), elsewhere).await?;
    late.arrive(held).await.context("the late photograph")?;
    let settled = |book: &crate::ledger::Book| book.settled.get(&task).map(|settled| settled.record.clone());
    let record = scene.ledger.until("the task ends elsewhere", Duration::from_secs(40), settled).await?;
    let (hand_backs, losses) = (record.tally.hand_backs, record.tally.losses);
    let told = format!(
        "{:?} in attempt {}, {hand_backs} hand-backs, {losses} losses, by {:?}",
        record.ended, record.attempt, record.worker
    );
    check("a deleted pod's task ends well elsewhere", record.ended == Ended::Succeeded, &told)?;
    check("by another attempt", record.attempt_id != Some(first), &told)?;
    check("handing back costs no attempt", record.attempt == 1 && hand_backs >= 1, &told)?;
    check("and is no loss", losses == 0, &told)
}
