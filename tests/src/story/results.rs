//! All results are there, in the registry, in the publishers' hands and on disk.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use bellows_registry::record::Ended;

use crate::contact_sheet;
use crate::names::{TARGET, WORK};
use crate::narrate::{check, say};
use crate::photos::BROKEN;
use crate::pods;
use crate::scene::{Scene, root};

/// Awaits the two waves and draws the contact sheet.
pub async fn collect(scene: &mut Scene) -> Result<()> {
    scene.all_settled(Duration::from_secs(180)).await?;
    let bound = Duration::from_secs(30);
    let first = pods::ended(&scene.client, WORK, "wait-first", bound).await?;
    let second = pods::ended(&scene.client, WORK, "publish-second", bound).await?;
    first.log.lines().chain(second.log.lines()).filter(|l| l.contains("failed")).for_each(say);
    check("the second wave's publisher had all its results", second.succeeded, second.log)?;
    let endings = [scene.volume.endings("first")?, scene.volume.endings("second")?].concat();
    let expected = scene.volume.size("first")? + scene.volume.size("second")?;
    check(
        "every saved ref has an end",
        endings.len() == expected,
        format!("{} of {expected}", endings.len()),
    )?;
    let failed: Vec<_> = endings.iter().filter(|e| e.error.is_some()).collect();
    let only_broken = failed.len() == 1 && failed[0].path.ends_with(BROKEN);
    check("only the broken photograph failed", only_broken, format!("{failed:?}"))?;
    let text = failed[0].error.clone().unwrap_or_default();
    check("its failure says what is wrong", text.contains("cut off"), &text)?;
    let mut files = Vec::new();
    for made in endings.iter().filter_map(|e| e.thumbnail.as_ref()) {
        let file = scene.volume.root.join(&made.path);
        let bytes = std::fs::metadata(&file).with_context(|| format!("reading {}", file.display()))?.len();
        check_size(&made.path, bytes, made.bytes)?;
        files.push(file);
    }
    files.sort();
    let page = root().join(TARGET).join("demo.png");
    contact_sheet::draw(&files, &page)?;
    check("all thumbnails open as images", files.len() + 1 == expected, format!("{} do", files.len()))?;
    say(format!("the contact sheet: {TARGET}/demo.png"));
    measure(scene)
}

fn check_size(path: &str, found: u64, said: u64) -> Result<()> {
    anyhow::ensure!(found == said, "{path} has {found} bytes, its result says {said}");
    Ok(())
}

/// What the registry's records say about pods and first starts.
fn measure(scene: &mut Scene) -> Result<()> {
    let (pods, first_start) = scene.ledger.read(|book| {
        let records = || book.settled.values().map(|settled| &settled.record);
        let pods: BTreeSet<String> =
            records().filter_map(|r| r.worker.as_ref()).map(|w| w.pod().to_owned()).collect();
        let published = records().map(|r| r.published).min().unwrap_or_default();
        let started = records().map(|r| r.started).filter(|at| at.0 > 0).min().unwrap_or_default();
        (pods.len(), started.since(published))
    })?;
    scene.report.distinct_worker_pods = pods;
    scene.report.first_start_ms = u64::try_from(first_start.as_millis())?;
    check("the work was shared by several pods", pods >= 2, format!("{pods} pod did it all"))
}

/// The sums over the whole story, from the registry's witness.
pub fn balance(scene: &mut Scene) -> Result<()> {
    let report = &mut scene.report;
    scene.ledger.read(|book| {
        report.published = book.published.len();
        report.succeeded = book.ended(Ended::Succeeded);
        report.cancelled = book.ended(Ended::Cancelled);
        report.failed = book.settled.len() - report.succeeded - report.cancelled;
        report.replayed = book.replayed;
        report.lost = book.lost();
        report.settled_twice = book.settled_twice();
        report.attempts_charged_to_infrastructure = book.charged_to_infrastructure();
    })?;
    report.replicas_path = scene.replicas.path()?;
    let counts = format!(
        "{} published, {} succeeded, {} failed, {} cancelled, {} replayed",
        report.published, report.succeeded, report.failed, report.cancelled, report.replayed
    );
    let ended = report.succeeded + report.failed + report.cancelled;
    check("every task ended", report.published == ended, &counts)?;
    let asked = report.cancelled == 1 && report.replayed == 1;
    check("one was cancelled, one replayed", asked, &counts)?;
    check("one task failed: the broken photograph", report.failed == 1, &counts)?;
    check("no task was lost", report.lost == 0, format!("{} were", report.lost))?;
    check("no task was settled twice", report.settled_twice == 0, format!("{} were", report.settled_twice))?;
    let charged = report.attempts_charged_to_infrastructure;
    check("infrastructure cost no attempt", charged == 0, format!("{charged} attempts were charged"))
}
