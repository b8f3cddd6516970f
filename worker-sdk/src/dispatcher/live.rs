//! The worker's own live key: what it says, and putting right what it should say.
//!
//! The operator writes there too, to cordon. So a change is written only over what was
//! seen, and what the watch tells decides what is to be changed next: level-triggered,
//! whatever became of an earlier write.

use bellows_registry::backend::{BackendError, Change, DynBackend, Entry, Revision};
use bellows_registry::backoff::Waits;
use bellows_registry::clock::{self, Instant};
use bellows_registry::id::{DefinitionId, WorkerId};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use bellows_registry::record::{Record, WorkerRecord, WorkerState};
use bellows_registry::txn::{self, Batch, Move};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep_until;

/// The live key, followed and put right.
pub(super) struct LiveKey {
    backend: DynBackend,
    space: Keyspace,
    def: DefinitionId,
    worker: WorkerId,
    mirror: Mirror,
    /// What it says, and since which revision.
    seen: Option<(Revision, WorkerRecord)>,
    /// The revision over which a change was answered: only news can follow.
    answered: Revision,
    /// A write under way, and over which revision.
    putting: Option<(Revision, BoxFuture<'static, Result<bool, BackendError>>)>,
    again: Instant,
    waits: Waits,
}

/// What the live key tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Live {
    Says(WorkerState),
    Gone,
    NoNews,
}

impl LiveKey {
    pub(super) fn new(backend: DynBackend, space: Keyspace, def: &DefinitionId, worker: &WorkerId) -> Self {
        let key = space.path(&Key::Worker(def.clone(), worker.clone()));
        let mirror = Mirror::new(backend.clone(), KeyRange::one(key.clone()));
        Self {
            backend,
            space,
            def: def.clone(),
            worker: worker.clone(),
            mirror,
            seen: None,
            answered: 0,
            putting: None,
            again: clock::instant(),
            waits: Waits::spread_by(&key),
        }
    }

    /// The next news, while the key is made to say that there are `slots` of them. Cancel
    /// safe: a write under way goes on with the next call.
    pub(super) async fn next(&mut self, slots: u32) -> Live {
        if self.putting.is_none()
            && let Some((over, row)) = self.correction(slots)
        {
            let (backend, again) = (self.backend.clone(), self.again);
            let putting = async move {
                sleep_until(again).await;
                send(&backend, row).await
            };
            self.putting = Some((over, putting.boxed()));
        }
        let putting = async {
            match &mut self.putting {
                Some((over, putting)) => (*over, putting.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = self.mirror.next() => self.told(event),
            (over, answer) = putting => {
                self.putting = None;
                self.answered(over, answer);
                Live::NoNews
            }
        }
    }

    /// What is to be written, if the key does not say so already.
    fn correction(&self, slots: u32) -> Option<(Revision, Move)> {
        let (revision, record) = self.seen.as_ref()?;
        if record.slots == slots || *revision == self.answered {
            return None;
        }
        let record = WorkerRecord { slots, ..record.clone() };
        let row = txn::change_worker(&self.space, &self.def, &self.worker, *revision, &record);
        Some((*revision, row))
    }

    fn answered(&mut self, over: Revision, answer: Result<bool, BackendError>) {
        match answer {
            Ok(_) => {
                // Done, or the key has changed meanwhile: the watch tells which, or has
                // told it already.
                self.answered = over;
                self.again = clock::instant();
                self.waits.succeeded();
            }
            Err(error) => {
                tracing::debug!(%error, worker = %self.worker, "the slots are told again");
                self.again = clock::instant() + self.waits.after_failure();
            }
        }
    }

    fn told(&mut self, event: MirrorEvent) -> Live {
        let newest = match event {
            MirrorEvent::Listed { entries, .. } => entries.into_iter().next(),
            MirrorEvent::Changed(changes) => match changes.changes.into_iter().next_back() {
                Some(Change::Put(entry)) => Some(entry),
                Some(Change::Delete { .. }) => None,
                None => return Live::NoNews,
            },
            MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => return Live::NoNews,
        };
        newest.map_or(Live::Gone, |entry| self.says(&entry))
    }

    fn says(&mut self, entry: &Entry) -> Live {
        // A newer version's record is no reason to stop, and none to write over it.
        let Ok(record) = WorkerRecord::decode(&entry.value) else {
            self.seen = None;
            return Live::NoNews;
        };
        let state = record.state;
        self.seen = Some((entry.mod_revision, record));
        Live::Says(state)
    }
}

/// Sends one move; answers whether its compares held.
pub(super) async fn send(backend: &DynBackend, row: Move) -> Result<bool, BackendError> {
    let mut batch = Batch::default();
    if batch.push(row).is_err() {
        return Ok(false);
    }
    let answers = Batch::answers(backend.txn(batch.into_txn(None)).await?);
    Ok(answers.is_some_and(|all| all.iter().all(|one| one.succeeded)))
}
