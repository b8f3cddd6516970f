//! [`Bellows`]: the way to a registry, for publishers, waiters and workers.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellows_registry::backend::DynBackend;
use bellows_registry::backend::coalesce::{Writer, WriterConfig};
use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::clock;
use bellows_registry::entropy::Entropy;
use bellows_registry::id::{DefinitionId, IdError, Namespace, ResultSlot};
use bellows_registry::key::Keyspace;
use bellows_registry::record::{TaskRecord, limits};

use crate::control::{Control, Owned};
use crate::definition::{PayloadOf, PublishStrategy, TaskDefinition};
use crate::envelope::codecs::Codecs;
use crate::error::{ConnectError, PublishError};
use crate::handle::{AwaitableTask, TaskHandle};
use crate::hosted::Hosted;
use crate::publish::Publish;
use crate::refs::TaskRef;
use crate::results::Results;

/// A client of one registry, in one namespace. Clones share everything.
#[derive(Clone)]
pub struct Bellows {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) backend: DynBackend,
    pub(crate) space: Keyspace,
    pub(crate) namespace: Namespace,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) control: Control,
    /// This process's slice of the result space.
    pub(crate) slot: ResultSlot,
    pub(crate) options: Options,
    pub(crate) results: Results,
    writer: OnceLock<Writer>,
    /// The assigner, where this process hosts one.
    pub(crate) assigner: Option<Owned<()>>,
}

/// What can be set of a client.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace of the definitions. Default `default`.
    pub namespace: String,
    /// The registry's prefix. Default `/bellows/`.
    pub prefix: String,
    /// The largest payload and the largest result as they are written, in bytes. At most
    /// 1 MiB; default 64 KiB. A worker of this client has the same, unless its
    /// [`Tasks::max_body`](crate::Tasks::max_body) says otherwise.
    pub max_body: usize,
    /// What is done to payloads before they are written, and undone to results. Default
    /// nothing. A worker of this client uses the same, unless its
    /// [`Tasks::codecs`](crate::Tasks::codecs) say otherwise.
    pub codecs: Codecs,
    /// How long a publish is tried before it is given up.
    pub publish_timeout: Duration,
    /// How long a waiter endures a registry that does not answer.
    pub wait_patience: Duration,
    /// How long a request about a task (a cancel, for instance) may take to be acted on.
    pub request_timeout: Duration,
    /// The time-to-live of a worker's lease: how soon a dead worker's tasks run elsewhere.
    pub lease_ttl: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            prefix: "/bellows/".to_owned(),
            max_body: limits::BODY_DEFAULT,
            codecs: Codecs::default(),
            publish_timeout: Duration::from_secs(10),
            wait_patience: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            lease_ttl: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Bellows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bellows").field("namespace", &self.shared.namespace).finish_non_exhaustive()
    }
}

impl Bellows {
    /// A registry in memory, with its assigner: everything in this process, gone with it.
    /// Kinds of work are defined by [`Bellows::define`], or by launching their workers.
    ///
    /// # Panics
    /// Outside of a tokio runtime, since the assigner runs on it.
    pub fn in_memory() -> Self {
        let backend = Arc::new(MemoryBackend::new());
        Self::hosted(backend, Options::default()).unwrap_or_else(|_| unreachable!("the defaults are valid"))
    }

    /// A registry behind any backend, with its assigner hosted by this process.
    ///
    /// # Errors
    /// [`ConnectError::Name`] for a namespace that is no DNS name.
    ///
    /// # Panics
    /// Outside of a tokio runtime, since the assigner runs on it.
    pub fn hosted(backend: DynBackend, options: Options) -> Result<Self, ConnectError> {
        Ok(Hosted::new(backend, Control::on_the_callers_runtime(), options).start()?.0)
    }

    /// A registry behind any backend, whose assigner runs elsewhere. The SDK's own loops
    /// run on the caller's runtime.
    ///
    /// # Errors
    /// [`ConnectError::Name`] for a namespace that is no DNS name.
    pub fn with_backend(backend: DynBackend, options: Options) -> Result<Self, ConnectError> {
        let entropy = Arc::new(Entropy::system());
        Self::assemble(backend, Control::on_the_callers_runtime(), options, entropy, None)
    }

    /// The registry that the environment names; see [`Config`](crate::Config) for the
    /// variables. Connects when first used: an unreachable etcd is told by the first
    /// call, within its time-out.
    #[cfg(feature = "etcd")]
    #[allow(clippy::unused_async, reason = "a later version may connect here")]
    pub async fn from_env() -> Result<Self, ConnectError> {
        Self::connect(&crate::config::Config::from_env()?)
    }

    /// The registry that a configuration names.
    #[cfg(feature = "etcd")]
    pub fn connect(config: &crate::config::Config) -> Result<Self, ConnectError> {
        use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
        let etcd = EtcdBackend::new(EtcdConfig::new(config.etcd_endpoints.clone()));
        let backend: DynBackend = Arc::new(etcd.map_err(ConnectError::Backend)?);
        let control = Control::on_its_own_thread().map_err(ConnectError::Thread)?;
        Self::assemble(backend, control, config.options.clone(), Arc::new(Entropy::system()), None)
    }

    pub(crate) fn assemble(
        backend: DynBackend,
        control: Control,
        mut options: Options,
        entropy: Arc<Entropy>,
        assigner: Option<Owned<()>>,
    ) -> Result<Self, ConnectError> {
        options.codecs.check()?;
        options.max_body = options.max_body.min(limits::BODY_HARD);
        let (namespace, space) = (Namespace::new(&options.namespace)?, Keyspace::new(&options.prefix));
        let results = Results::new(Arc::clone(&backend), control.clone());
        let shared = Shared {
            backend,
            space,
            namespace,
            slot: entropy.result_slot(),
            entropy,
            control,
            options,
            results,
            writer: OnceLock::new(),
            assigner,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Publishes a task: a builder that is a future.
    ///
    /// ```no_run
    /// # use bellows_sdk::prelude::*;
    /// # struct ResizeImage;
    /// # impl TaskDefinition for ResizeImage {
    /// #     const NAME: &'static str = "resize-image";
    /// #     type Callback = String;
    /// #     type Trigger = PublishTrigger<u32>;
    /// # }
    /// # async fn example(bellows: Bellows) -> anyhow::Result<()> {
    /// let task = bellows.publish::<ResizeImage>(320).await?;
    /// let key: String = task.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish<T: TaskDefinition<Trigger: PublishStrategy>>(
        &self,
        payload: PayloadOf<T>,
    ) -> Publish<'_, T> {
        Publish::new(self, payload)
    }

    /// The handle of a task that was saved as a [`TaskRef`]. Asks nothing yet.
    pub fn task<T: TaskDefinition>(&self, task: TaskRef<T>) -> TaskHandle<T> {
        TaskHandle::new(self.clone(), task)
    }

    /// Publishes a task and answers its handle: the other name of awaiting
    /// [`Bellows::publish`].
    pub async fn publish_awaitable<T: TaskDefinition<Trigger: PublishStrategy>>(
        &self,
        payload: PayloadOf<T>,
    ) -> Result<AwaitableTask<T>, PublishError> {
        self.publish::<T>(payload).await
    }

    pub(crate) fn definition<T: TaskDefinition>(&self) -> Result<DefinitionId, IdError> {
        self.definition_named(T::NAME)
    }

    pub(crate) fn definition_named(&self, name: &str) -> Result<DefinitionId, IdError> {
        DefinitionId::new(self.shared.namespace.as_str(), name)
    }

    pub(crate) fn task_record(&self, payload: bytes::Bytes) -> TaskRecord {
        TaskRecord {
            slot: self.shared.slot,
            published: clock::wall(),
            delay: None,
            headers: std::collections::BTreeMap::new(),
            options: bellows_registry::record::TaskOptions::default(),
            payload,
        }
    }
}

impl Shared {
    /// The writer of this client's publishes, which packs those that wait into one request.
    pub(crate) fn writer(&self) -> &Writer {
        self.writer.get_or_init(|| {
            let backend = Arc::clone(&self.backend);
            self.control.within(|| Writer::new(backend, None, WriterConfig::default()))
        })
    }
}
