//! Watching how far a task is.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bellows_registry::backend::{Change, Entry};
use bellows_registry::id::TaskId;
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{Progress, Record, Tally};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::definition::TaskDefinition;
use crate::error::WaitError;
use crate::handle::{TaskHandle, TaskStatus};

/// What a task reports, as it comes: see [`TaskHandle::watch_progress`].
pub struct ProgressWatch<P> {
    told: BoxStream<'static, Result<P, WaitError>>,
}

impl<P> fmt::Debug for ProgressWatch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressWatch")
    }
}

impl<P> ProgressWatch<P> {
    /// The next report; `None` once the task has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<P, WaitError>> {
        self.told.next().await
    }
}

impl<P> Stream for ProgressWatch<P> {
    type Item = Result<P, WaitError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.told.poll_next_unpin(cx)
    }
}

impl<T: TaskDefinition> TaskHandle<T> {
    /// Looks once: what the attempt that runs now has reported last. `None` if it has
    /// reported nothing, or if none runs.
    ///
    /// # Errors
    /// [`WaitError::Progress`] if it is of another type, [`WaitError::NotFound`], and as
    /// [`TaskHandle::status`].
    pub async fn progress<P: DeserializeOwned>(&self) -> Result<Option<P>, WaitError> {
        match self.glance().await? {
            TaskStatus::Waiting { tally } | TaskStatus::Running { tally, .. } => {
                tally.progress.map(|progress| read(self.id(), &progress)).transpose()
            }
            TaskStatus::Ended(_) => Ok(None),
            TaskStatus::NotFound => Err(WaitError::NotFound(self.id())),
        }
    }

    /// Follows what the task reports, from what it has reported last until it has ended:
    /// through all its attempts, wherever they run.
    ///
    /// Reports that follow each other within a second may be left out. The stream ends
    /// with an error if the task is not found, or the registry does not answer for as long
    /// as waiters are patient. One watch on the registry while it is held.
    pub fn watch_progress<P: DeserializeOwned + Send + 'static>(&self) -> ProgressWatch<P> {
        let shared = &self.client.shared;
        let raw = self.task.raw();
        let key = shared.space.path(&Key::Tally(raw.definition.clone(), raw.id));
        let mirror = Mirror::new(Arc::clone(&shared.backend), KeyRange::one(key));
        let waiter = Self::new(self.client.clone(), self.task.clone());
        let ended = async move { waiter.outcome().await.map(|_| ()) }.boxed();
        let following = Following { task: raw.id, mirror, ended: Some(ended), last: None };
        let told = futures::stream::unfold(following, |mut following| async move {
            let told = following.next().await?;
            Some((told, following))
        });
        ProgressWatch { told: told.boxed() }
    }
}

fn read<P: DeserializeOwned>(task: TaskId, progress: &Progress) -> Result<P, WaitError> {
    serde_json::from_str(&progress.value).map_err(|source| WaitError::Progress { task, source })
}

struct Following {
    task: TaskId,
    mirror: Mirror,
    /// `None` once it has.
    ended: Option<BoxFuture<'static, Result<(), WaitError>>>,
    last: Option<Progress>,
}

impl Following {
    async fn next<P: DeserializeOwned>(&mut self) -> Option<Result<P, WaitError>> {
        loop {
            let ended = self.ended.as_mut()?;
            tokio::select! {
                biased;
                event = self.mirror.next() => {
                    if let Some(news) = self.news(&event) {
                        return Some(read(self.task, &news));
                    }
                }
                ended = ended => {
                    self.ended = None;
                    return ended.err().map(Err);
                }
            }
        }
    }

    fn news(&mut self, event: &MirrorEvent) -> Option<Progress> {
        let newest: Option<&Entry> = match event {
            MirrorEvent::Listed { entries, .. } => entries.first(),
            MirrorEvent::Changed(changes) => match changes.changes.last() {
                Some(Change::Put(entry)) => Some(entry),
                Some(Change::Delete { .. }) | None => None,
            },
            MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => None,
        };
        let progress = Tally::decode(&newest?.value).ok()?.progress?;
        let news = self.last.as_ref() != Some(&progress);
        news.then(|| {
            self.last = Some(progress.clone());
            progress
        })
    }
}
