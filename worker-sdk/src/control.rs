//! Where the SDK's own loops run.
//!
//! On a cluster, and over a file, they have a thread to themselves: a handler that blocks
//! every thread of the user's runtime must not cost the lease, nor keep an outcome from
//! being sent. In memory they run on the user's runtime, so that a test under paused time moves them too.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A runtime for loops. Clones share it; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    home: Home,
}

#[derive(Clone, Debug)]
enum Home {
    /// The runtime of whoever asks.
    Callers,
    /// A thread of its own.
    #[cfg_attr(
        not(any(feature = "etcd", feature = "embedded")),
        allow(dead_code, reason = "for a cluster and for a file")
    )]
    Own { handle: Handle, _ends_with_last_clone: Arc<DropGuard> },
}

impl Control {
    pub(crate) fn on_the_callers_runtime() -> Self {
        Self { home: Home::Callers }
    }

    /// Starts the thread.
    #[cfg(any(feature = "etcd", feature = "embedded"))]
    pub(crate) fn on_its_own_thread() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let until = stop.clone();
        std::thread::Builder::new().name("bellows".to_owned()).spawn(move || {
            runtime.block_on(until.cancelled());
        })?;
        Ok(Self { home: Home::Own { handle, _ends_with_last_clone: Arc::new(stop.drop_guard()) } })
    }

    /// Spawns a loop; whoever gets the handle owns it.
    pub(crate) fn spawn<F>(&self, future: F) -> Owned<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = match &self.home {
            Home::Callers => Handle::current().spawn(future),
            Home::Own { handle, .. } => handle.spawn(future),
        };
        Owned { task, ended: None }
    }

    /// Makes something that spawns loops of its own when it is made.
    pub(crate) fn within<T>(&self, make: impl FnOnce() -> T) -> T {
        match &self.home {
            Home::Callers => make(),
            Home::Own { handle, .. } => {
                let _inside = handle.enter();
                make()
            }
        }
    }
}

/// A spawned loop that ends with its owner.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    task: JoinHandle<T>,
    ended: Option<Option<T>>,
}

impl<T: Clone> Owned<T> {
    /// Waits for its end; `None` if it panicked. Cancel safe, and may be asked again.
    pub(crate) async fn join(&mut self) -> Option<T> {
        if self.ended.is_none() {
            self.ended = Some((&mut self.task).await.ok());
        }
        self.ended.clone().flatten()
    }
}

impl<T> Owned<T> {
    /// Waits for its end; `None` if it panicked. Dropping the future ends it.
    #[cfg_attr(
        not(any(feature = "etcd", feature = "embedded")),
        allow(dead_code, reason = "for loops on a thread of their own")
    )]
    pub(crate) async fn end(mut self) -> Option<T> {
        (&mut self.task).await.ok()
    }

    /// Whether it has ended, with the runtime it was spawned on for instance.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
