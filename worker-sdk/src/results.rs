//! Waiting for terminal records: one watch for all tasks of this process and definition,
//! one for each task of others.
//!
//! The watch of this process's own slot is kept for as long as the client lives. Opening
//! it begins with a list of the slot, so that a publisher which awaits one task after the
//! other would else list all its kept results for each of them.
//!
//! A watch here is a hint only: whoever is woken looks again, and looking reads all keys
//! of the task in one transaction (law 13).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bellows_registry::backend::DynBackend;
use bellows_registry::key::KeyRange;
use bellows_registry::mirror::{Mirror, MirrorEvent, PageEvent};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::control::{Control, Owned};

/// The followed ranges of one client.
pub(crate) struct Results {
    backend: DynBackend,
    control: Control,
    followed: Mutex<HashMap<KeyRange, Kept>>,
}

/// How long a range is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// As long as the client lives.
    Always,
    /// As long as anybody waits.
    WhileWaiting,
    /// As long as anybody waits; and what they wait for is that the key is gone.
    UntilGone,
}

enum Kept {
    Always(Arc<Followed>),
    WhileWaiting(Weak<Followed>),
}

impl Kept {
    fn get(&self) -> Option<Arc<Followed>> {
        let followed = match self {
            Self::Always(followed) => Some(Arc::clone(followed)),
            Self::WhileWaiting(followed) => followed.upgrade(),
        };
        // It ends with the runtime it runs on, which the client may survive.
        followed.filter(|followed| !followed.following.has_ended())
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Results")
    }
}

/// One range and who waits for its keys.
struct Followed {
    waiting: Arc<Waiting>,
    following: Owned<()>,
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
    pub(crate) fn subscribe(&self, range: KeyRange, follow: Follow, key: Bytes) -> Place {
        let followed = self.follow(range, follow);
        let woken = Arc::new(Notify::new());
        followed.waiting.lock().entry(key.clone()).or_default().push(Arc::clone(&woken));
        Place { followed, key, woken }
    }

    fn follow(&self, range: KeyRange, follow: Follow) -> Arc<Followed> {
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = all.get(&range).and_then(Kept::get) {
            return followed;
        }
        all.retain(|_, kept| kept.get().is_some());
        let waiting = Arc::new(Waiting::default());
        let mirror = Mirror::new(Arc::clone(&self.backend), range.clone());
        let following = self.control.spawn(wake(mirror, Arc::clone(&waiting), follow));
        let followed = Arc::new(Followed { waiting, following });
        let kept = match follow {
            Follow::Always => Kept::Always(Arc::clone(&followed)),
            Follow::WhileWaiting | Follow::UntilGone => Kept::WhileWaiting(Arc::downgrade(&followed)),
        };
        all.insert(range, kept);
        followed
    }
}

async fn wake(mut mirror: Mirror, waiting: Arc<Waiting>, follow: Follow) {
    loop {
        // By the page: kept results may be many, and only their keys matter.
        match mirror.next_page().await {
            PageEvent::Page(page) if follow == Follow::UntilGone => {
                if page.last {
                    waiting.wake_all();
                }
            }
            // Who is not in the list has nothing new to look at: a waiter looks after it
            // has subscribed, and what ended since then is listed or will be told.
            PageEvent::Page(page) => page.entries.iter().for_each(|entry| waiting.wake(&entry.key)),
            PageEvent::Other(MirrorEvent::Changed(changes)) => {
                for change in &changes.changes {
                    waiting.wake(change.key());
                }
            }
            PageEvent::Other(MirrorEvent::Interrupted(error)) => {
                tracing::debug!(%error, "results are followed again");
            }
            PageEvent::Other(MirrorEvent::Resumed | MirrorEvent::Listed { .. }) => {}
        }
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Bytes, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        self.lock().values().flatten().for_each(|woken| woken.notify_one());
    }

    fn wake(&self, key: &Bytes) {
        for woken in self.lock().get(key).into_iter().flatten() {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bellows_registry::backend::{
        Backend, BackendError, Entry, Lease, LeaseId, RangeAnswer, RangeRequest, Txn, TxnAnswer,
        WatchRequest, WatchStream,
    };
    use futures::future::BoxFuture;
    use futures::{FutureExt, StreamExt, stream};

    use super::*;

    const RESULTS: usize = 10_000;

    /// Many results, and how many of them somebody holds in memory.
    #[derive(Debug, Default)]
    struct Shelf {
        held: Arc<AtomicUsize>,
        most: AtomicUsize,
        read: AtomicUsize,
        largest_page: AtomicUsize,
    }

    /// A value that is counted while it is held.
    struct Value(Arc<AtomicUsize>);

    impl AsRef<[u8]> for Value {
        fn as_ref(&self) -> &[u8] {
            &[0; 1024]
        }
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn key(n: usize) -> Bytes {
        format!("r/{n:05}").into()
    }

    impl Shelf {
        fn take(&self, n: usize) -> Entry {
            let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(held, Ordering::SeqCst);
            let value = Bytes::from_owner(Value(Arc::clone(&self.held)));
            Entry { key: key(n), value, create_revision: 1, mod_revision: 1, lease: None }
        }

        fn page(&self, request: &RangeRequest) -> RangeAnswer {
            let mut left = (0..RESULTS).filter(|n| request.range.contains(&key(*n)));
            let entries: Vec<_> = left.by_ref().take(request.limit).map(|n| self.take(n)).collect();
            self.read.fetch_add(entries.len(), Ordering::SeqCst);
            self.largest_page.fetch_max(entries.len(), Ordering::SeqCst);
            RangeAnswer { revision: 1, entries, more: left.next().is_some() }
        }
    }

    fn only_read<T: Send + 'static>() -> BoxFuture<'static, Result<T, BackendError>> {
        std::future::ready(Err(BackendError::unknown("it is only read"))).boxed()
    }

    impl Backend for Shelf {
        fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
            std::future::ready(Ok(self.page(&request))).boxed()
        }
        fn watch(&self, _: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
            std::future::ready(Ok(stream::pending().boxed())).boxed()
        }
        fn txn(&self, _: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
            only_read()
        }
        fn grant(&self, _: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
            only_read()
        }
        fn keep_alive(&self, _: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
            only_read()
        }
        fn revoke(&self, _: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
            only_read()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_results_no_more_than_a_page_is_held() {
        for follow in [Follow::Always, Follow::UntilGone] {
            let shelf = Arc::new(Shelf::default());
            let results = Results::new(shelf.clone(), Control::on_the_callers_runtime());
            let place = results.subscribe(KeyRange::prefix("r/"), follow, key(RESULTS - 1));
            let woken = tokio::time::timeout(Duration::from_secs(60), place.woken()).await;
            assert!(woken.is_ok(), "{follow:?}: all were listed, and it was not told");
            assert_eq!(shelf.read.load(Ordering::SeqCst), RESULTS, "{follow:?}: it was told before");
            let (most, page) = (shelf.most.load(Ordering::SeqCst), shelf.largest_page.load(Ordering::SeqCst));
            assert_eq!(most, page, "{follow:?}");
            assert!(page < RESULTS / 2, "{follow:?}: {page} in one page");
        }
    }
}
