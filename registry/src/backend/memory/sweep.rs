//! The task that ends leases when nobody calls.
//!
//! Owned by the backend and aborted with it. Holds the store weakly, so that it does
//! not keep alive what it sweeps.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Shared;
use crate::clock::{FAR, Instant, instant};

/// Starts the task at the first lease and wakes it at each later one.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    task: Mutex<JoinSet<()>>,
    granted: Arc<Notify>,
}

impl Sweeper {
    /// Makes sure that the leases just granted will end in time.
    pub(super) fn watch_over(&self, shared: &Arc<Shared>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // One task only; a finished one belonged to a runtime that is gone.
        while task.try_join_next().is_some() {}
        if task.is_empty() {
            task.spawn(sweep(Arc::downgrade(shared), Arc::clone(&self.granted)));
        }
        self.granted.notify_one();
    }
}

async fn sweep(shared: Weak<Shared>, granted: Arc<Notify>) {
    while let Some(next) = turn(&shared) {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = granted.notified() => {}
        }
    }
}

/// Ends what is over; answers when to come again, or `None` if the store is gone.
fn turn(shared: &Weak<Shared>) -> Option<Instant> {
    let shared = shared.upgrade()?;
    let next = shared.turn(|store, _| store.next_deadline());
    Some(next.unwrap_or_else(|| instant() + FAR))
}
