//! The backlog is empty, the Deployment is back at 0, and idle costs nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;

use crate::ledger::Book;
use crate::names::{SCALE_TO_ZERO_S, SYSTEM};
use crate::narrate::{check, say};
use crate::scene::Scene;
use crate::{shell, wait};

/// How long the story looks at an idle registry.
const IDLE: Duration = Duration::from_secs(30);

/// No task waits or runs; the Deployment falls to 0.
pub async fn back_to_zero(scene: &Scene) -> Result<()> {
    wait::until("the TaskDefinition reports an empty backlog", Duration::from_secs(20), || async {
        let status = scene.status().await?;
        let count = |field: &str| status[field].as_i64().unwrap_or(0);
        let (backlog, running) = (count("backlog"), count("running"));
        anyhow::ensure!(backlog + running == 0, "{backlog} wait, {running} run");
        Ok(Some(()))
    })
    .await?;
    scene.back_to_zero(Duration::from_secs(SCALE_TO_ZERO_S + 50)).await?;
    let path = scene.replicas.path()?;
    say(format!("replicas went {path:?}"));
    Ok(())
}

/// The store's revision stands still for [`IDLE`].
pub async fn idle(scene: &mut Scene) -> Result<()> {
    // Their pods are told to go once replicas are 0, and each says goodbye to the registry.
    let gone = |book: &Book| book.workers.is_empty().then_some(());
    scene.ledger.until("the last worker has left the registry", Duration::from_secs(20), gone).await?;
    let before = scene.ledger.revision().await?;
    tokio::time::sleep(IDLE).await; // not a wait for something: nothing must happen
    let moved = scene.ledger.revision().await? - before;
    scene.report.idle_revision_moved = moved;
    check("30 idle seconds did not move the store's revision", moved == 0, format!("it moved by {moved}"))?;
    scene.report.operator_rss_mb = operator_rss(scene).await?;
    let rss = scene.report.operator_rss_mb;
    check("the idle operator is below 64 MiB", rss < 64.0 * 1.048_576, format!("it has {rss:.1} MB"))
}

/// Resident memory of the leading operator in MB: the kernel's figure where it can be
/// read, else the kubelet's, which leaves out the program's own pages.
async fn operator_rss(scene: &Scene) -> Result<f64> {
    let leader = scene.ledger.read(|b| b.terms.last().map(|t| t.identity.clone()))?.context("no leader")?;
    if let Some(bytes) = scene.cluster.resident(SYSTEM, &leader, "operator").await? {
        return Ok(bytes / 1e6);
    }
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), SYSTEM);
    let node = pods.get(&leader).await?.spec.and_then(|s| s.node_name).context("the leader has no node")?;
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    wait::until("the kubelet counts the operator's memory", Duration::from_secs(30), || async {
        let text = shell::quiet(["kubectl", "get", "--raw", &path]).await?;
        let summary: Value = serde_json::from_str(&text)?;
        let pods = summary["pods"].as_array().context("no pods")?;
        let ours =
            pods.iter().find(|pod| pod["podRef"]["name"] == leader.as_str()).context("not among them")?;
        let bytes = ours["containers"][0]["memory"]["rssBytes"].as_f64();
        Ok(bytes.filter(|bytes| *bytes > 0.0).map(|bytes| bytes / 1e6))
    })
    .await
}
