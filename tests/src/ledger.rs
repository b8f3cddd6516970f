//! What the registry told while the story went on: a witness beside the system.
//!
//! It follows the whole registry by a mirror of its own and keeps every publish,
//! assignment and terminal record with the moment it was seen. It writes nothing itself.

mod fold;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::backend::{DynBackend, RangeRequest, Revision};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::mirror::{Mirror, MirrorEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use fold::{Assigned, Book, Leading, Settled};

use crate::cluster::Reach;
use crate::narrate::CheckFailed;

/// Follows one registry, across restarts of its etcd.
#[derive(Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    news: Arc<watch::Sender<Revision>>,
    space: Keyspace,
    backend: DynBackend,
    reach: Reach,
    following: JoinSet<()>,
}

impl Ledger {
    /// Opens the book; following begins at once.
    pub fn open(reach: Reach) -> Result<Self> {
        let mut ledger = Self {
            book: Arc::default(),
            news: Arc::new(watch::channel(0).0),
            space: Keyspace::default(),
            backend: connect(&reach.endpoint)?,
            reach,
            following: JoinSet::new(),
        };
        ledger.follow();
        Ok(ledger)
    }

    /// Goes on at another address of the same registry.
    pub fn reopen(&mut self, reach: Reach) -> Result<()> {
        self.backend = connect(&reach.endpoint)?;
        self.reach = reach;
        self.follow();
        Ok(())
    }

    fn follow(&mut self) {
        self.following.abort_all();
        let (book, news, space) = (Arc::clone(&self.book), Arc::clone(&self.news), self.space.clone());
        let mut mirror = Mirror::new(Arc::clone(&self.backend), space.everything());
        self.following.spawn(async move {
            loop {
                let event = mirror.next().await;
                let Ok(mut book) = book.lock() else { return };
                match event {
                    MirrorEvent::Listed { revision, entries } => book.listed(&space, revision, &entries),
                    MirrorEvent::Changed(changes) => book.changed(&space, &changes),
                    MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => {}
                }
                news.send_replace(book.revision);
            }
        });
    }

    /// Reads the book.
    pub fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> Result<T> {
        let book = self.book.lock().map_err(|_| anyhow!("the ledger's follower panicked"))?;
        Ok(look(&book))
    }

    /// Waits until the book shows something.
    pub async fn until<T>(
        &self,
        what: &str,
        bound: Duration,
        mut look: impl FnMut(&Book) -> Option<T>,
    ) -> Result<T> {
        let mut news = self.news.subscribe();
        let looking = async {
            loop {
                if let Some(found) = self.read(&mut look)? {
                    return Ok(found);
                }
                news.changed().await?;
            }
        };
        let late = |_| {
            let summary = self.read(Book::summary).unwrap_or_default();
            let why = format!("not within {} s; the registry has {summary}", bound.as_secs());
            CheckFailed { check: what.to_owned(), why }
        };
        tokio::time::timeout(bound, looking).await.map_err(late)?
    }

    /// The registry itself, for what only a vandal or another cluster would write.
    pub fn registry(&self) -> &DynBackend {
        &self.backend
    }

    /// The store's revision now, linearizably.
    pub async fn revision(&self) -> Result<Revision> {
        let meta = KeyRange::one(self.space.path(&Key::Meta));
        Ok(self.backend.range(RangeRequest::new(meta)).await?.revision)
    }
}

fn connect(endpoint: &str) -> Result<DynBackend> {
    Ok(Arc::new(EtcdBackend::new(EtcdConfig::new([endpoint]))?))
}
