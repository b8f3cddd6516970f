//! What runs, and in what order it began: for the behaviours of scheduling and of limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::spec::{Execution, Policy};
use bellows_sdk::TaskHandle;
use bellows_sdk::prelude::*;
use tokio::sync::watch;

use super::world::{Act, LONG, SOON, World, policy, within};

/// What began, and what runs.
#[derive(Clone, Default)]
pub(super) struct Log {
    pub(super) began: Arc<Mutex<Vec<(String, Instant)>>>,
    running: Arc<Mutex<HashMap<String, usize>>>,
    most: Arc<Mutex<HashMap<String, usize>>>,
}

impl Log {
    pub(super) fn names(&self) -> Vec<String> {
        self.began.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn times(&self) -> Vec<Instant> {
        self.began.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// How many of these (of all: "") ran at once at most.
    pub(super) fn most(&self, key: &str) -> usize {
        self.most.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn change(&self, name: &str, by: isize) {
        for key in ["", &name[..1]] {
            let mut running = self.running.lock().unwrap();
            let count = running.entry(key.to_owned()).or_default();
            *count = count.saturating_add_signed(by);
            let mut most = self.most.lock().unwrap();
            let most = most.entry(key.to_owned()).or_default();
            *most = (*most).max(*count);
        }
    }

    /// A handler that takes so long.
    pub(super) fn taking(
        &self,
        time: Duration,
    ) -> impl Fn(TaskContext, String) -> Run + Clone + Send + Sync + 'static {
        let log = self.clone();
        move |_, name| {
            let log = log.clone();
            Box::pin(async move {
                log.began.lock().unwrap().push((name.clone(), clock::instant()));
                log.change(&name, 1);
                tokio::time::sleep(time).await;
                log.change(&name, -1);
                Ok(name.into())
            })
        }
    }

    /// A handler that runs until it is let go, and a moment more.
    pub(super) fn held(
        &self,
        go: &watch::Sender<bool>,
    ) -> impl Fn(TaskContext, String) -> Run + Clone + Send + Sync + 'static {
        let (log, go) = (self.clone(), go.subscribe());
        move |_, name| {
            let (log, mut go) = (log.clone(), go.clone());
            Box::pin(async move {
                log.began.lock().unwrap().push((name.clone(), clock::instant()));
                log.change(&name, 1);
                let _ = go.wait_for(|go| *go).await;
                tokio::time::sleep(QUICK).await;
                log.change(&name, -1);
                Ok(name.into())
            })
        }
    }

    pub(super) async fn until_began(&self, count: usize) {
        let began = async {
            while self.began.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(SOON, began).await;
    }
}

pub(super) type Run = std::pin::Pin<Box<dyn Future<Output = TaskResult<String>> + Send>>;

pub(super) const QUICK: Duration = Duration::from_millis(5);

/// Long enough for a task to be given out that may be, with much to spare.
pub(super) const A_WHILE: Duration = Duration::from_millis(300);

pub(super) async fn define(world: &World, execution: impl FnOnce(&mut Execution)) {
    let mut policy: Policy = policy(LONG);
    execution(&mut policy.execution);
    world.bellows.define::<Act>(policy).await.unwrap();
}

/// Publishes tasks named by key and number, such as `a1`, in this order.
pub(super) async fn publish(world: &World, names: &[&str]) -> Vec<TaskHandle<Act>> {
    let mut tasks = Vec::new();
    for name in names {
        let task = world.bellows.publish::<Act>((*name).to_owned()).key(&name[..1]);
        tasks.push(task.await.unwrap());
    }
    tasks
}

pub(super) async fn all_end(tasks: Vec<TaskHandle<Act>>) {
    for task in tasks {
        within(SOON, task).await.unwrap();
    }
}

pub(super) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}
