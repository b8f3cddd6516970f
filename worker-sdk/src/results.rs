//! Waiting for terminal records: one watch for all tasks of this process and definition,
//! one for each task of others.
//!
//! A watch here is a hint only: whoever is woken looks again, and looking reads all keys
//! of the task in one transaction (law 13).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bellows_registry::backend::{Change, DynBackend};
use bellows_registry::key::KeyRange;
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::control::{Control, Owned};

/// The followed ranges of one client.
pub(crate) struct Results {
    backend: DynBackend,
    control: Control,
    followed: Mutex<HashMap<KeyRange, Weak<Followed>>>,
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Results")
    }
}

/// One range and who waits for its keys. The watch ends with the last waiter.
struct Followed {
    waiting: Arc<Waiting>,
    _following: Owned<()>,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<Bytes, Vec<Arc<Notify>>>>);

/// A place among those that wait for a key. Leaves it when dropped.
pub(crate) struct Place {
    followed: Arc<Followed>,
    key: Bytes,
    woken: Arc<Notify>,
}

impl Results {
    pub(crate) fn new(backend: DynBackend, control: Control) -> Self {
        Self { backend, control, followed: Mutex::default() }
    }

    /// Subscribes to a key by following `range`. From now on no change of it is missed.
    pub(crate) fn subscribe(&self, range: KeyRange, key: Bytes) -> Place {
        let followed = self.follow(range);
        let woken = Arc::new(Notify::new());
        followed.waiting.lock().entry(key.clone()).or_default().push(Arc::clone(&woken));
        Place { followed, key, woken }
    }

    fn follow(&self, range: KeyRange) -> Arc<Followed> {
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = all.get(&range).and_then(Weak::upgrade) {
            return followed;
        }
        all.retain(|_, followed| followed.strong_count() > 0);
        let waiting = Arc::new(Waiting::default());
        let mirror = Mirror::new(Arc::clone(&self.backend), range.clone());
        let following = self.control.spawn(follow(mirror, Arc::clone(&waiting)));
        let followed = Arc::new(Followed { waiting, _following: following });
        all.insert(range, Arc::downgrade(&followed));
        followed
    }
}

async fn follow(mut mirror: Mirror, waiting: Arc<Waiting>) {
    loop {
        match mirror.next().await {
            // Whatever happened before the list: everyone looks once more.
            MirrorEvent::Listed { .. } => waiting.wake_all(),
            MirrorEvent::Changed(changes) => {
                for change in &changes.changes {
                    if let Change::Put(entry) = change {
                        waiting.wake(&entry.key);
                    }
                }
            }
            MirrorEvent::Resumed => {}
            MirrorEvent::Interrupted(error) => tracing::debug!(%error, "results are followed again"),
        }
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Bytes, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, key: &Bytes) {
        for woken in self.lock().get(key).into_iter().flatten() {
            woken.notify_one();
        }
    }

    fn wake_all(&self) {
        for woken in self.lock().values().flatten() {
            woken.notify_one();
        }
    }
}

impl Place {
    /// Waits until the key may have changed. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.followed.waiting.lock();
        if let Some(places) = waiting.get_mut(&self.key) {
            places.retain(|place| !Arc::ptr_eq(place, &self.woken));
            if places.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}
