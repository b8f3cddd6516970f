//! Bellows is upgraded, uninstalled while tasks wait, and installed again.

use std::time::Duration;

use anyhow::Result;

use crate::names::{CHART, RELEASE, SCALE_TO_ZERO_S, SYSTEM, WORK};
use crate::narrate::{check, say};
use crate::pods;
use crate::scene::Scene;
use crate::shell;

use super::install::helm_install;

/// `helm upgrade` with changed values; then tasks run as before, from 0.
pub async fn upgrade(scene: &mut Scene) -> Result<()> {
    shell::typed(&format!(
        "helm upgrade {RELEASE} {CHART} --namespace {SYSTEM} --set operator.log.filter=debug --wait --timeout 120s"
    ))
    .await?;
    small_wave(scene, "third", &["--wait"]).await?;
    scene.back_to_zero(Duration::from_secs(SCALE_TO_ZERO_S + 50)).await?;
    small_wave(scene, "fourth", &["--wait"]).await?;
    scene.back_to_zero(Duration::from_secs(SCALE_TO_ZERO_S + 50)).await
}

async fn small_wave(scene: &mut Scene, wave: &str, more: &[&str]) -> Result<()> {
    scene.publish_from_zero(wave, more).await?.check()?;
    scene.all_settled(Duration::from_secs(60)).await?;
    let publisher =
        pods::ended(&scene.client, WORK, &format!("publish-{wave}"), Duration::from_secs(20)).await?;
    check("its publisher had all results", publisher.succeeded, publisher.log)
}

/// `helm uninstall` while tasks wait; after `helm install` they run.
pub async fn reinstall(scene: &mut Scene) -> Result<()> {
    let before = scene.ledger.read(|book| book.published.len())?;
    scene.publish("fifth", &["--delay", "15"]).await?;
    let size = scene.volume.size("fifth")?;
    let published = |book: &crate::ledger::Book| (book.published.len() == before + size).then_some(());
    scene.ledger.until("tasks are published that are due later", Duration::from_secs(30), published).await?;
    shell::typed(&format!("helm uninstall {RELEASE} --namespace {SYSTEM} --wait --timeout 120s")).await?;
    say(format!("{size} tasks wait in the registry's volume; nothing of Bellows runs"));
    let larger = format!("helm install {RELEASE} {CHART} --namespace {SYSTEM} --set etcd.replicas=3");
    let refusal =
        shell::typed(&larger).await.map_or_else(|error| format!("{error:#}"), |_| "installed".into());
    let kept = "etcd.replicas is 3, but volumes of 1 are kept here";
    check("an etcd of another size is refused beside the kept volume", refusal.contains(kept), refusal)?;
    helm_install().await?;
    scene.ledger.reopen(scene.cluster.registry(&scene.client).await?)?;
    scene.all_settled(Duration::from_secs(90)).await?;
    scene.await_refs("fifth").await?;
    let second = pods::ended(&scene.client, WORK, "wait-fifth", Duration::from_secs(30)).await?;
    check("the tasks that waited through the uninstall ran", second.succeeded, second.log)?;
    scene.back_to_zero(Duration::from_secs(SCALE_TO_ZERO_S + 50)).await
}
