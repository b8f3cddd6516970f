//! The slots of one kind of work, and who occupies them.
//!
//! A handler occupies its slot until its code has really ended: a task that was told to
//! stop and ignores it, or a thread that nobody can end, keeps it. Such a slot is *stuck*:
//! the worker tells the assigner that it has one fewer, and once all are stuck it says that
//! it is not alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::metrics::Metrics;

/// The slots of one kind of work.
#[derive(Debug)]
pub(crate) struct Slots {
    all: u32,
    free: Arc<Semaphore>,
    stuck: watch::Sender<u32>,
    metrics: Metrics,
    name: &'static str,
}

/// A slot that is taken, until the last clone of its `Arc` is gone.
#[derive(Debug)]
pub(crate) struct Occupied {
    slots: Arc<Slots>,
    is_stuck: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new(all: u32, name: &'static str, metrics: Metrics) -> Arc<Self> {
        metrics.slots(name, all);
        let (stuck, _) = watch::channel(0);
        Arc::new(Self { all, free: Arc::new(Semaphore::new(all as usize)), stuck, metrics, name })
    }

    /// Waits for a slot. `None` once there are none to be had.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Arc<Occupied>> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        let slots = Arc::clone(self);
        Some(Arc::new(Occupied { slots, is_stuck: AtomicBool::new(false), _permit: permit }))
    }

    /// Nobody who waits gets a slot any more.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    /// How many the assigner may count on: all but the stuck ones.
    pub(crate) fn usable(&self) -> u32 {
        self.all.saturating_sub(*self.stuck.borrow())
    }

    /// How many are stuck, as it changes.
    pub(crate) fn stuck(&self) -> watch::Receiver<u32> {
        self.stuck.subscribe()
    }

    /// Whether nothing can run any more.
    pub(crate) fn all_stuck(&self) -> bool {
        self.usable() == 0
    }

    /// Whether so many stuck slots are all there are.
    pub(crate) fn are_all(&self, stuck: u32) -> bool {
        stuck >= self.all
    }

    /// Waits for a slot to be stuck.
    pub(crate) async fn any_stuck(&self) {
        // An error cannot be: the sender is `self`.
        let _ = self.stuck.subscribe().wait_for(|stuck| *stuck > 0).await;
    }

    /// The kind of work.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn count_stuck(&self, count: impl FnOnce(&mut u32), change: i64) {
        self.stuck.send_modify(count);
        self.metrics.stuck(self.name, change);
    }
}

impl Occupied {
    /// Its handler was told to stop and did not: the slot is stuck until it is dropped.
    pub(crate) fn stick(&self) {
        if !self.is_stuck.swap(true, Ordering::SeqCst) {
            self.slots.count_stuck(|stuck| *stuck += 1, 1);
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if *self.is_stuck.get_mut() {
            self.slots.count_stuck(|stuck| *stuck = stuck.saturating_sub(1), -1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_is_stuck_until_the_last_who_occupies_it_is_gone() {
        let slots = Slots::new(2, "act", Metrics::new());
        let (task, thread) = {
            let occupied = slots.take().await.unwrap();
            (Arc::clone(&occupied), occupied)
        };
        task.stick();
        task.stick();
        assert_eq!((slots.usable(), slots.all_stuck()), (1, false), "stuck once, however often it is said");
        drop(task);
        let other = slots.take().await.unwrap();
        other.stick();
        assert!(slots.all_stuck(), "the thread still occupies the first");
        drop(thread);
        assert_eq!(slots.usable(), 1);
        drop(other);
        assert_eq!((slots.usable(), *slots.stuck().borrow()), (2, 0));
    }

    #[tokio::test]
    async fn a_slot_of_a_handler_that_ended_well_was_never_stuck() {
        let slots = Slots::new(1, "act", Metrics::new());
        let changes = slots.stuck();
        drop(slots.take().await.unwrap());
        assert!(slots.take().await.is_some() && !changes.has_changed().unwrap());
    }
}
