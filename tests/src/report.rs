//! What the story measured: `target/bellows/demo.json`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// The measures. Times end in their unit.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What the API server says it is.
    pub kubernetes_version: String,
    /// How many nodes.
    pub nodes: usize,
    /// `testbed` or `kind`.
    pub install: String,
    /// Tasks published.
    pub published: usize,
    /// Tasks that succeeded.
    pub succeeded: usize,
    /// Tasks that were given up: the broken photograph.
    pub failed: usize,
    /// Tasks that were cancelled while they ran.
    pub cancelled: usize,
    /// Tasks that had been given up, and were run again.
    pub replayed: usize,
    /// Tasks published that neither ended nor wait.
    pub lost: usize,
    /// Tasks with more than one terminal record.
    pub settled_twice: usize,
    /// The Deployment's `spec.replicas` over the story.
    pub replicas_path: Vec<i32>,
    /// Worker pods that finished a task.
    pub distinct_worker_pods: usize,
    /// From the first publish, as seen in the registry, to replicas above 0, as seen in
    /// the Kubernetes API: the median of the episodes.
    pub publish_to_replicas_ms: f64,
    /// The same for every episode.
    pub publish_to_replicas_all_ms: Vec<f64>,
    /// From the first publish to the first start of a task, from no pod at all.
    pub first_start_ms: u64,
    /// From the SIGKILL to the start of the last of the killed worker's tasks elsewhere.
    pub kill_recovery_s: f64,
    /// From the deletion of the leader's pod to the first assignment by the next leader.
    pub operator_failover_s: f64,
    /// Attempts counted against tasks that did not fail in them.
    pub attempts_charged_to_infrastructure: usize,
    /// By how much 30 idle seconds moved the store's revision.
    pub idle_revision_moved: i64,
    /// Resident memory of the operator's leader, idle.
    pub operator_rss_mb: f64,
    /// The CRD's manifest.
    pub crd_bytes: u64,
    /// The images, uncompressed, by the nodes' account.
    pub image_mb: std::collections::BTreeMap<String, f64>,
    /// Bringing Kubernetes up, if the story did it.
    pub testbed_up_s: Option<f64>,
    /// The whole story.
    pub wall_s: f64,
    /// Each chapter.
    pub chapters_s: Vec<(String, f64)>,
}

impl Report {
    /// Writes the report.
    pub fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
    }

    /// Adds an episode from 0 to N.
    pub fn add_episode(&mut self, milliseconds: f64) {
        self.publish_to_replicas_all_ms.push(milliseconds);
        let mut sorted = self.publish_to_replicas_all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        self.publish_to_replicas_ms = sorted[(sorted.len() - 1) / 2];
    }
}
