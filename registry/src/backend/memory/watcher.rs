//! A watch: a cursor into the store's history, and a wait for the next revision.
//!
//! Holds no queue of its own, so that a slow reader costs nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::watch;

use super::Shared;
use crate::backend::{BackendError, Changes, Revision, WatchRequest};
use crate::clock;
use crate::key::KeyRange;

/// Whole revisions told in one item; etcd's number.
const REVISIONS: usize = 1000;

struct Cursor {
    shared: Arc<Shared>,
    newest: watch::Receiver<Revision>,
    range: KeyRange,
    /// Everything before this revision has been looked at.
    next: Revision,
    progress: Duration,
}

/// The stream of a watch; ends after an error.
pub(super) fn open(
    shared: Arc<Shared>,
    request: WatchRequest,
    progress: Duration,
) -> impl Stream<Item = Result<Changes, BackendError>> + Send + 'static {
    let newest = shared.newest.subscribe();
    let next = request.from.max(1);
    let cursor = Cursor { shared, newest, range: request.range, next, progress };
    stream::unfold(Some(cursor), |cursor| async move {
        let mut cursor = cursor?;
        match cursor.advance().await {
            Ok(changes) => Some((Ok(changes), Some(cursor))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl Cursor {
    /// The next item. Cancel safe: the cursor moves only together with its answer or
    /// over revisions that say nothing to this watch.
    async fn advance(&mut self) -> Result<Changes, BackendError> {
        let silence = tokio::time::sleep(self.progress);
        tokio::pin!(silence);
        loop {
            // Marked before looking, so that a write after the look wakes us.
            let newest = *self.newest.borrow_and_update();
            self.shared.usable()?;
            let found =
                self.shared.turn(|store, _| store.changes(&self.range, self.next, newest, REVISIONS))?;
            if let Some(found) = found {
                self.next = found.complete + 1;
                if !found.changes.is_empty() {
                    return Ok(found);
                }
            }
            tokio::select! {
                // The sender lives in `shared`, which the cursor holds.
                _ = self.newest.changed() => {}
                () = &mut silence => {
                    // As on etcd, a watch that begins in the future has no progress.
                    if self.next <= *self.newest.borrow() + 1 {
                        return Ok(Changes { complete: self.next - 1, changes: Vec::new() });
                    }
                    silence.as_mut().reset(clock::instant() + self.progress);
                }
            }
        }
    }
}
