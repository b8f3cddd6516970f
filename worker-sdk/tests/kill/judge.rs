//! The verdict over a file that was killed many times, given what was acknowledged.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bellows_registry::backend::embedded::EmbeddedBackend;
use bellows_registry::backend::{Backend, RangeRequest};
use bellows_registry::check::{self, Violation};
use bellows_registry::key::Keyspace;
use bellows_sdk::prelude::*;

use super::child::{ACK, Said, workers};

pub(crate) struct Verdict {
    /// Publishes that were acknowledged.
    pub(crate) published: usize,
    /// Results that were told.
    pub(crate) told: usize,
    /// What was acknowledged and is not there.
    pub(crate) lost: Vec<String>,
    /// Tasks whose result is not the one that was told.
    pub(crate) settled_twice: Vec<String>,
    /// Laws that the registry breaks at the end.
    pub(crate) unlawful: Vec<Violation>,
}

/// Opens the file once more, lets every task end, and compares.
pub(crate) fn judge(file: &Path, acknowledged: &str) -> Verdict {
    let (mut published, mut told) = (Vec::new(), HashMap::new());
    for line in acknowledged.lines() {
        match serde_json::from_str(line.strip_prefix(ACK).unwrap()).unwrap() {
            Said::Published(task) => published.push(task),
            Said::Told(task, result) => {
                told.insert(task.id(), result);
            }
        }
    }
    let mut verdict = Verdict {
        published: published.len(),
        told: told.len(),
        lost: Vec::new(),
        settled_twice: Vec::new(),
        unlawful: Vec::new(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bellows = Bellows::embedded(file).await.unwrap();
        let workers = workers(&bellows).await;
        for task in published {
            let id = task.id();
            let result = bellows.task(task).wait_timeout(Duration::from_secs(20)).await;
            match (result, told.get(&id)) {
                (Err(error), _) => verdict.lost.push(format!("{id}: {error}")),
                (Ok(now), Some(then)) if now != *then => verdict.settled_twice.push(id.to_string()),
                (Ok(_), _) => {}
            }
        }
        for worker in workers {
            worker.drain(Duration::from_secs(5)).await.unwrap();
        }
    });
    drop(runtime);
    verdict.unlawful = laws(file);
    verdict
}

fn laws(file: &Path) -> Vec<Violation> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (backend, space) = (EmbeddedBackend::open(file).await.unwrap(), Keyspace::default());
        let all = backend.range(RangeRequest::new(space.everything())).await.unwrap();
        check::registry(&space, &all.entries)
    })
}
