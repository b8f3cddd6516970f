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

use crate::narrate::{CheckFailed, check};

/// How the replicas went up from 0 while a wave was published.
#[derive(Debug)]
pub struct WayUp {
    /// The values that they took.
    pub path: Vec<i32>,
    /// How many the wave needs.
    pub to: i32,
    /// How long it took to publish as much of it as needs so many.
    pub took: Duration,
}

/// What the registry's witness sees published within this time is one burst for the operator
/// too. Half of the time for which the operator gathers one: it sees them at other moments.
const BURST: Duration = Duration::from_millis(25);

impl WayUp {
    /// A burst is one write. What was published more slowly may be several, but none that takes
    /// a pod away, and none beyond what the wave needs.
    pub fn check(&self) -> Result<()> {
        let Self { path, to, took } = self;
        let found = format!("replicas went 0 then {path:?}; publishing took {took:?}");
        if *took <= BURST {
            return check(&format!("one write from 0 to {to}"), *path == [*to], found);
        }
        let rises = path.is_sorted_by(|one, next| one < next);
        let ends = path.first().is_some_and(|first| *first > 0) && path.last() == Some(to);
        check(&format!("replicas rise from 0 to {to}, as tasks come within {took:?}"), rises && ends, found)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(path: &[i32], took: Duration) -> bool {
        WayUp { path: path.to_vec(), to: 4, took }.check().is_ok()
    }

    #[test]
    fn a_burst_is_one_write_to_the_right_number() {
        assert_eq!(BURST * 2, bellows_operator::scale::GATHER);
        assert!(holds(&[4], BURST));
        for path in [&[][..], &[3], &[5], &[1, 4], &[4, 4]] {
            assert!(!holds(path, BURST), "{path:?}");
        }
    }

    #[test]
    fn a_slow_wave_is_never_a_step_down_nor_another_end() {
        let slow = BURST + Duration::from_millis(1);
        assert!(holds(&[4], slow) && holds(&[1, 4], slow) && holds(&[1, 2, 4], slow));
        for path in [&[][..], &[3], &[0, 4], &[2, 1, 4], &[1, 4, 4], &[4, 3], &[1, 5]] {
            assert!(!holds(path, slow), "{path:?}");
        }
    }
}
