//! A worker's container dies of SIGKILL; the operator's leader is deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bellows_registry::clock::{self, WallMillis};
use bellows_registry::id::{AttemptId, TaskId, WorkerId};

use crate::ledger::Book;
use crate::names::SYSTEM;
use crate::narrate::{check, figure, say};
use crate::scene::Scene;
use crate::shell;

/// SIGKILLs the container of a busy worker and waits until its tasks ended elsewhere.
pub async fn kill_worker(scene: &mut Scene) -> Result<()> {
    for _ in 0..3 {
        let worker = scene.ledger.until("a worker is busy", Duration::from_secs(30), busiest).await?;
        say(format!("SIGKILL to the container of pod {}", worker.pod()));
        let killed = clock::now();
        scene.cluster.kill_worker(worker.pod()).await?;
        let dead = clock::wall();
        let now = scene.ledger.revision().await?;
        scene
            .ledger
            .until("the witness has caught up", Duration::from_secs(10), |b| {
                (b.revision >= now).then_some(())
            })
            .await?;
        let had = scene.ledger.read(|book| held_by(book, &worker))?;
        if had.is_empty() {
            say("it had just finished everything; another one");
            continue;
        }
        say(format!("it had {} tasks; its lease of 10 s must run out first", had.len()));
        if let Some(last) = last_start_elsewhere(scene, &had, dead).await? {
            scene.report.kill_recovery_s = last.since(killed.wall).as_secs_f64();
            // The lease's TTL, and 2 s in which its end is noticed and the tasks are given out.
            figure("from the kill to the last start elsewhere", scene.report.kill_recovery_s, 12.0);
            return Ok(());
        }
        say("what it had finished was still on its way; another one");
    }
    bail!("three killed workers in turn had no task at the moment they died")
}

/// The worker with the most tasks, if it has all slots full.
fn busiest(book: &Book) -> Option<WorkerId> {
    let mut count: BTreeMap<&WorkerId, usize> = BTreeMap::new();
    for (_, worker) in book.standing.values() {
        *count.entry(worker).or_default() += 1;
    }
    count.into_iter().filter(|(_, n)| *n >= 2).max_by_key(|(_, n)| *n).map(|(worker, _)| worker.clone())
}

fn held_by(book: &Book, worker: &WorkerId) -> BTreeMap<TaskId, AttemptId> {
    let standing = book.standing.iter().filter(|(_, (_, holder))| holder == worker);
    standing.map(|(attempt, (task, _))| (*task, *attempt)).collect()
}

/// Waits until every task of the killed worker has ended; answers when the last one of those
/// that ended elsewhere had started there. `None` if none did: what the worker sent before it
/// was `dead` may be recorded later.
async fn last_start_elsewhere(
    scene: &Scene,
    had: &BTreeMap<TaskId, AttemptId>,
    dead: WallMillis,
) -> Result<Option<WallMillis>> {
    let ended = |book: &Book| {
        let records = had.iter().map(|(task, attempt)| {
            let record = &book.settled.get(task)?.record;
            if record.attempt_id == Some(*attempt) {
                // The nodes share this machine's clock.
                return (record.finished <= dead).then_some(None);
            }
            Some(Some(record.started))
        });
        records.collect::<Option<Vec<_>>>()
    };
    let what = "the killed worker's tasks end";
    let started = scene.ledger.until(what, Duration::from_secs(60), ended).await?;
    Ok(started.into_iter().flatten().max())
}

/// Deletes the leader's pod while a second wave waits, and sees assigning go on.
pub async fn delete_leader(scene: &mut Scene) -> Result<()> {
    let before = scene.ledger.read(|book| book.published.len())?;
    scene.publish("second", &["--wait", "--json", "/volume/refs/second-results.json"]).await?;
    let half = before + scene.volume.size("second")?;
    let published = |book: &Book| (book.published.len() >= half).then_some(());
    scene.ledger.until("the second wave is published", Duration::from_secs(60), published).await?;
    let leader = scene.ledger.read(|book| book.terms.last().cloned())?.context("no assigner leads")?;
    let waiting = scene.ledger.read(|book| book.open.len() - book.standing.len())?;
    check("tasks wait while the leader goes", waiting > 0, "every task had been assigned")?;
    let deleted = clock::instant();
    shell::typed(&format!("kubectl delete pod -n {SYSTEM} {} --wait=false", leader.identity)).await?;
    let (next, at) = scene
        .ledger
        .until("another leader assigns", Duration::from_secs(30), |book| {
            let next = book.terms.iter().find(|t| t.term > leader.term && t.identity != leader.identity)?;
            let first = book.assigned.iter().find(|a| a.revision > next.term)?;
            Some((next.identity.clone(), first.at.instant))
        })
        .await?;
    scene.report.operator_failover_s = at.saturating_duration_since(deleted).as_secs_f64();
    say(format!(
        "{next} leads; from the delete to its first assignment: {:.1} s",
        scene.report.operator_failover_s
    ));
    Ok(())
}
