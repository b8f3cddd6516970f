//! Everything the chapters share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bellows_registry::clock;
use kube::Client;

use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::names::{DEFINITION, MOST_PODS, MOUNT, SLOTS, WORK};
use crate::replicas::{Replicas, WayUp};
use crate::report::Report;
use crate::volume::Volume;
use crate::{manifests, narrate, shell};

/// The stage, once Bellows is installed on it.
#[allow(missing_debug_implementations, reason = "the client of the Kubernetes API has none")]
pub struct Scene {
    /// Which Kubernetes.
    pub cluster: Cluster,
    /// Its API.
    pub client: Client,
    /// The witness of the registry.
    pub ledger: Ledger,
    /// The witness of the Deployment.
    pub replicas: Replicas,
    /// The photographs and what becomes of them.
    pub volume: Volume,
    /// What was measured so far.
    pub report: Report,
}

/// The repository's root; the story's paths begin there.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

impl Scene {
    /// Starts the example's publisher as a pod for one wave of photographs.
    pub async fn publish(&self, wave: &str, more: &[&str]) -> Result<()> {
        let photos = format!("{MOUNT}/photos/{wave}");
        let refs = format!("{MOUNT}/refs/{wave}.jsonl");
        let arguments = [&["publish", "--photos", &photos, "--refs", &refs], more].concat();
        narrate::say(format!("$ kubectl run publish-{wave} … -- thumbnails {}", arguments.join(" ")));
        shell::apply(&manifests::publisher(&format!("publish-{wave}"), &arguments)).await.map(drop)
    }

    /// Starts a second process that awaits the saved refs of a wave.
    pub async fn await_refs(&self, wave: &str) -> Result<()> {
        let refs = format!("{MOUNT}/refs/{wave}.jsonl");
        let json = format!("{MOUNT}/refs/{wave}-results.json");
        let arguments = ["wait", "--refs", &refs, "--json", &json];
        narrate::say(format!("$ kubectl run wait-{wave} … -- thumbnails {}", arguments.join(" ")));
        shell::apply(&manifests::publisher(&format!("wait-{wave}"), &arguments)).await.map(drop)
    }

    /// Starts a process that asks something of the saved refs of a wave; answers its pod.
    pub async fn ask(&self, verb: &str, wave: &str) -> Result<String> {
        let arguments = [verb, "--refs", &format!("{MOUNT}/refs/{wave}.jsonl")];
        let pod = format!("{verb}-{wave}");
        narrate::say(format!("$ kubectl run {pod} … -- thumbnails {}", arguments.join(" ")));
        shell::apply(&manifests::publisher(&pod, &arguments)).await?;
        Ok(pod)
    }

    /// Publishes a wave at 0 replicas and watches the way up, until all of it was published
    /// and there are as many as it needs.
    pub async fn publish_from_zero(&mut self, wave: &str, more: &[&str]) -> Result<WayUp> {
        let (before, mark) = (self.ledger.read(|book| book.published.len())?, self.replicas.mark()?);
        let (size, began) = (self.volume.size(wave)?, clock::instant());
        self.publish(wave, more).await?;
        let first = self.ledger.until("the first task is published", Duration::from_secs(30), |book| {
            (book.published.len() > before).then(|| book.published.values().map(|now| now.instant).max())
        });
        let first = first.await?.unwrap_or_else(clock::instant);
        let (up, _) =
            self.replicas.until("replicas rise from 0", Duration::from_secs(20), mark, |n| n > 0).await?;
        self.report.add_episode(up.saturating_duration_since(first).as_secs_f64() * 1000.0);
        let all = |book: &crate::ledger::Book| (book.published.len() >= before + size).then_some(());
        self.ledger.until("all of the wave is published", Duration::from_secs(30), all).await?;
        let pods = size.div_ceil(SLOTS).min(MOST_PODS as usize);
        // The first task that one pod fewer could not take.
        let last = pods.saturating_sub(1) * SLOTS + 1;
        let took = self.ledger.read(|book| book.time_to_publish(last, began))?.context("no such wave")?;
        let to = i32::try_from(pods)?;
        let bound = Duration::from_secs(20);
        self.replicas.until(&format!("replicas rise to {to}"), bound, mark, |n| n >= to).await?;
        let path = self.replicas.since(mark)?.into_iter().map(|(_, replicas)| replicas).collect();
        Ok(WayUp { path, to, took })
    }

    /// Waits until every published task has ended.
    pub async fn all_settled(&self, bound: Duration) -> Result<()> {
        let settled = |book: &crate::ledger::Book| {
            book.published.keys().all(|task| book.settled.contains_key(task)).then_some(())
        };
        self.ledger.until("every task has ended", bound, settled).await
    }

    /// Waits until the Deployment is back at 0 and its pods are gone.
    pub async fn back_to_zero(&self, bound: Duration) -> Result<()> {
        let mark = self.replicas.mark()?.saturating_sub(1);
        self.replicas.until("replicas fall to 0", bound, mark, |n| n == 0).await?;
        crate::wait::until("the worker pods are gone", bound, || async {
            Ok(crate::pods::workers(&self.client).await?.is_empty().then_some(()))
        })
        .await
    }

    /// The task definition's status, as JSON.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let json =
            shell::quiet(["kubectl", "-n", WORK, "get", "taskdefinition", DEFINITION, "-o", "json"]).await?;
        let object: serde_json::Value = serde_json::from_str(&json).context("what kubectl printed")?;
        Ok(object["status"].clone())
    }
}
