//! Durable, typed tasks: define, publish, run and await them.
//!
//! A **task** is the smallest unit of work with side effects. It succeeds or fails as a
//! whole and carries all it needs in its payload. You write what it does; Bellows keeps it,
//! gives it to a live worker, runs it again when something went wrong, and keeps its typed
//! result until you ask.
//!
//! The same code runs in one process over memory and on a Kubernetes cluster over etcd.
//!
//! # A worker and a publisher in one program
//!
//! ```
//! use bellows_sdk::prelude::*;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Resize { url: String, width: u32 }
//!
//! struct ResizeImage;
//! impl TaskDefinition for ResizeImage {
//!     const NAME: &'static str = "resize-image";
//!     type Callback = String;
//!     type Trigger = PublishTrigger<Resize>;
//! }
//!
//! async fn resize(_: TaskContext, input: Resize) -> TaskResult<String> {
//!     if input.width == 0 {
//!         return Err(TaskFailure::park("width must not be 0")); // trying again cannot help
//!     }
//!     Ok(format!("{}@{}", input.url, input.width).into()) // `?` on any error would mean: retry
//! }
//!
//! # #[tokio::main] async fn main() -> anyhow::Result<()> {
//! let bellows = Bellows::in_memory();
//! let tasks = Tasks::new().with_fn::<ResizeImage, _, _>(resize);
//! let worker = WorkerDispatcher::of(&bellows, tasks).launch().await?;
//!
//! let task = bellows.publish::<ResizeImage>(Resize { url: "a.png".into(), width: 320 }).await?;
//! let saved = serde_json::to_string(&task.to_ref())?; // awaited later, elsewhere
//! assert_eq!(task.await?, "a.png@320");
//!
//! let task = bellows.task::<ResizeImage>(serde_json::from_str(&saved)?);
//! assert_eq!(task.await?, "a.png@320");
//! worker.drain(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! On a cluster the worker's `main` is [`serve`], and the publisher's client is
//! [`Bellows::from_env`].
//!
//! # Promises
//!
//! | Promise | Words |
//! |---|---|
//! | Durable once acknowledged | a publish that returned `Ok` is never lost while etcd keeps its quorum's data |
//! | Settled exactly once | at most one terminal record per task; a late worker's outcome is refused |
//! | Processed at least once | a handler may run again after a crash; the task id stays, the attempt id does not |
//! | Not promised | order between tasks, exactly-once side effects outside etcd |

#![cfg_attr(
    not(feature = "etcd"),
    allow(dead_code, unused_imports, reason = "what only a process on a cluster needs")
)]

mod blocking;
mod client;
#[cfg(feature = "etcd")]
mod config;
mod control;
mod define;
mod definition;
mod dispatcher;
mod draft;
mod drift;
mod envelope;
mod error;
mod follow_up;
#[cfg(doctest)]
mod guides;
mod handle;
mod handler;
mod hosted;
#[cfg(feature = "etcd")]
mod http;
mod manifest;
mod many;
mod metrics;
pub mod middleware;
mod outcome;
mod parked;
mod progress;
mod publish;
mod refs;
mod reports;
mod requests;
mod results;
#[cfg(feature = "etcd")]
mod serve;
mod settings;
mod state;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod turn;
mod waiting;
mod worker;

#[cfg(feature = "embedded")]
pub use bellows_registry::backend::embedded::{EmbeddedBackend, EmbeddedConfig, OpenError};
#[cfg(feature = "etcd")]
pub use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
pub use bellows_registry::backend::{Backend, DynBackend, memory::MemoryBackend};
pub use bellows_registry::id::{AttemptId, TaskId, WorkerId};
pub use bellows_registry::record::{
    AttemptError, Cancellation, ChoiceError, Ended, ErrorKind, OutcomeRecord, Progress, Tally,
};
pub use bellows_registry::spec::Policy;

pub use bellows_registry::spec;
#[cfg(feature = "macros")]
pub use bellows_sdk_macros::task;
pub use client::{Bellows, Options};
#[cfg(feature = "etcd")]
pub use config::Config;
pub use define::DefineError;
pub use definition::{
    ActivationStrategy, PayloadOf, PublishStrategy, PublishTrigger, SingletonTrigger, TaskDefinition,
};
pub use dispatcher::{DEFAULT_SLOTS, DispatcherError, DispatcherHandle, Health, WorkerDispatcher};
pub use draft::{NewTask, OnConflict};
pub use drift::Drift;
pub use envelope::codec::{About, Codec, CodecError, Encoded, Part};
pub use envelope::codecs::Codecs;
#[cfg(feature = "encryption")]
pub use envelope::encryption::{Encryption, Keyring};
pub use envelope::trace::{TraceParent, TraceParentError};
pub use envelope::undecodable::PayloadError;
pub use envelope::version::{UpgradeError, upgrade};
#[cfg(feature = "zstd")]
pub use envelope::zstd::Zstd;
pub use error::{ConnectError, OptionError, PublishError, TaskFailed, WaitError};
pub use handle::{AwaitableTask, TaskHandle, TaskStatus};
pub use handler::{HandlerOutput, HandlerSuccess, TaskHandler};
pub use manifest::{ImageError, print_manifest_if_asked};
#[cfg(feature = "object-store")]
pub use object_store;
pub use outcome::{TaskError, TaskFailure, TaskResult, TaskSuccess};
pub use parked::{ParkedTask, ParkedTasks, Purged, Replayed};
pub use progress::ProgressWatch;
pub use publish::{Publication, Publish};
pub use refs::{RawTaskRef, TaskRef};
pub use reports::ReportError;
pub use requests::{Cancelled, RequestError};
#[cfg(feature = "etcd")]
pub use serve::{ServeError, init_logging, serve};
pub use settings::TaskSettings;
pub use state::{Injected, Need, State, States};
pub use tasks::{MissingState, Tasks};
pub use worker::{TaskContext, Worker, WorkerFactory};

/// What a worker or a publisher usually needs.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    #[cfg(feature = "macros")]
    pub use crate::task;
    pub use crate::{
        AwaitableTask, Bellows, Injected, PublishTrigger, SingletonTrigger, State, TaskContext,
        TaskDefinition, TaskError, TaskFailure, TaskHandle, TaskRef, TaskResult, TaskSuccess, Tasks, Worker,
        WorkerDispatcher, WorkerFactory, tasks,
    };
}
