//! The path of a Deployment's `spec.replicas`, as a watch tells it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bellows_registry::clock::{self, Instant};
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::narrate::CheckFailed;

/// Follows one Deployment.
#[derive(Debug)]
pub struct Replicas {
    path: Arc<Mutex<Vec<(Instant, i32)>>>,
    news: watch::Receiver<usize>,
    _following: JoinSet<()>,
}

impl Replicas {
    /// Follows the Deployment from now on; it need not exist yet.
    pub fn follow(client: Client, namespace: &str, name: &str) -> Self {
        let path: Arc<Mutex<Vec<(Instant, i32)>>> = Arc::default();
        let (tell, news) = watch::channel(0);
        let api: Api<Deployment> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut following = JoinSet::new();
        let seen = Arc::clone(&path);
        following.spawn(async move {
            let told = watcher(api, config).default_backoff().applied_objects().try_for_each(|deployment| {
                let replicas = deployment.spec.replicas.unwrap_or(1);
                if let Ok(mut path) = seen.lock()
                    && path.last().is_none_or(|(_, last)| *last != replicas)
                {
                    path.push((clock::instant(), replicas));
                    tell.send_replace(path.len());
                }
                std::future::ready(Ok(()))
            });
            let _ = told.await; // the watcher itself retries for ever
        });
        Self { path, news, _following: following }
    }

    /// Every value so far, in order.
    pub fn path(&self) -> Result<Vec<i32>> {
        Ok(self.since(0)?.into_iter().map(|(_, replicas)| replicas).collect())
    }

    /// How many values there were so far: a place to count from.
    pub fn mark(&self) -> Result<usize> {
        Ok(self.since(0)?.len())
    }

    /// The values after a mark, with the moments they were seen.
    pub fn since(&self, mark: usize) -> Result<Vec<(Instant, i32)>> {
        let path = self.path.lock().map_err(|_| anyhow!("the follower of the Deployment panicked"))?;
        Ok(path[mark.min(path.len())..].to_vec())
    }

    /// Waits for a value after the mark that `fits`, or the present one.
    pub async fn until(
        &self,
        what: &str,
        bound: Duration,
        mark: usize,
        fits: impl Fn(i32) -> bool,
    ) -> Result<(Instant, i32)> {
        let mut news = self.news.clone();
        let looking = async {
            loop {
                if let Some(found) = self.since(mark)?.into_iter().find(|(_, replicas)| fits(*replicas)) {
                    return Ok(found);
                }
                news.changed().await?;
            }
        };
        let late = |_| {
            let why = format!("not within {} s; replicas went {:?}", bound.as_secs(), self.path().ok());
            CheckFailed { check: what.to_owned(), why }
        };
        tokio::time::timeout(bound, looking).await.map_err(late)?
    }
}
