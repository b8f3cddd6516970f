//! Registries that this process hosts: with the assigner in it, and for a file also with
//! the thread that the registry's own loops need.

use std::sync::Arc;

use bellows_registry::assigner::{Assigner, AssignerConfig};
use bellows_registry::backend::DynBackend;
use bellows_registry::demand::DemandReport;
use bellows_registry::entropy::Entropy;
use bellows_registry::id::Namespace;
use bellows_registry::key::Keyspace;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{Bellows, Options};
use crate::control::Control;
use crate::error::ConnectError;

/// A client that is about to host its registry.
pub(crate) struct Hosted {
    pub(crate) backend: DynBackend,
    pub(crate) control: Control,
    pub(crate) options: Options,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) assigner: AssignerConfig,
}

impl Hosted {
    pub(crate) fn new(backend: DynBackend, control: Control, options: Options) -> Self {
        let assigner = AssignerConfig { identity: "in-process".to_owned(), ..AssignerConfig::default() };
        Self { backend, control, options, entropy: Arc::new(Entropy::system()), assigner }
    }

    /// Starts the assigner; answers the client, and what the assigner sees.
    pub(crate) fn start(self) -> Result<(Bellows, watch::Receiver<Arc<DemandReport>>), ConnectError> {
        let Self { backend, control, options, entropy, assigner } = self;
        Namespace::new(&options.namespace)?; // before anything runs
        let space = Keyspace::new(&options.prefix);
        let assigner = Assigner::new(Arc::clone(&backend), space, assigner, Arc::clone(&entropy));
        let demand = assigner.demand();
        let running = control.spawn(assigner.run(CancellationToken::new()));
        let client = Bellows::assemble(backend, control, options, entropy, Some(running))?;
        Ok((client, demand))
    }
}

#[cfg(feature = "embedded")]
impl Bellows {
    /// A registry in one durable file, with its assigner: everything in this process, and
    /// there again when the file is opened the next time. The file is made if it does not
    /// exist; its folder must. See [`EmbeddedBackend`](crate::EmbeddedBackend) for what it
    /// promises.
    ///
    /// The registry's own loops have a thread to themselves, so that handlers that block
    /// cost no lease. The file is closed soon after the last clone of the client is gone,
    /// with the workers and handles made from it.
    ///
    /// ```no_run
    /// # use bellows_sdk::prelude::*;
    /// # async fn example() -> Result<(), bellows_sdk::ConnectError> {
    /// let bellows = Bellows::embedded("tasks.redb").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::File`], which names the file: another process has it open, it is
    /// damaged, it is of something else, or the system refuses.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the file locked for as long as reading it takes.
    pub async fn embedded(path: impl AsRef<std::path::Path>) -> Result<Self, ConnectError> {
        Self::embedded_with(path, Options::default()).await
    }

    /// As [`Bellows::embedded`], set up.
    ///
    /// # Errors
    /// As there, and [`ConnectError::Name`] for a namespace that is no DNS name.
    pub async fn embedded_with(
        path: impl AsRef<std::path::Path>,
        options: Options,
    ) -> Result<Self, ConnectError> {
        Namespace::new(&options.namespace)?; // before the file is made
        let backend = crate::EmbeddedBackend::open(path).await?;
        let control = Control::on_its_own_thread().map_err(ConnectError::Thread)?;
        Ok(Hosted::new(Arc::new(backend), control, options).start()?.0)
    }
}
