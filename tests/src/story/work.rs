//! Tasks are published, pods come up in one write, the publisher dies, nothing is lost.

use std::time::Duration;

use anyhow::Result;

use crate::names::{MOST_PODS, WORK};
use crate::narrate::{check, say};
use crate::pods;
use crate::scene::Scene;

/// Publishes the first wave: one write from 0 to N, and the pods work.
pub async fn from_zero(scene: &mut Scene) -> Result<()> {
    let way_up = scene.publish_from_zero("first", &["--wait"]).await?;
    check("the wave needs all pods", way_up.to == MOST_PODS, format!("it needs {}", way_up.to))?;
    way_up.check()?;
    let milliseconds = scene.report.publish_to_replicas_ms;
    say(format!("from publish to replicas written: {milliseconds:.0} ms"));
    let bound = Duration::from_secs(60);
    scene
        .ledger
        .until("the pods register as workers", bound, |book| (book.workers.len() >= 2).then_some(()))
        .await?;
    scene.ledger.until("the first tasks end", bound, |book| (book.settled.len() >= 3).then_some(())).await?;
    say(scene.ledger.read(crate::ledger::Book::summary)?);
    Ok(())
}

/// The publisher is killed while it awaits its tasks; another process awaits the refs.
pub async fn kill_publisher(scene: &Scene) -> Result<()> {
    say(format!("$ kubectl delete pod -n {WORK} publish-first --force --grace-period=0"));
    pods::kill(&scene.client, WORK, "publish-first").await?;
    let (saved, published) = (scene.volume.saved_refs("first")?, scene.volume.size("first")?);
    check(
        "the killed publisher lost no ref",
        saved == published,
        format!("{saved} of {published} were saved"),
    )?;
    let open = scene.ledger.read(|book| book.open.len())?;
    check("it was killed in the middle", open > 0, "every task had ended")?;
    scene.await_refs("first").await
}
