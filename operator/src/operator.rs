//! The operator as a whole: what runs, in which order it starts, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bellows_registry::assigner::{Assigner, AssignerConfig};
use bellows_registry::backend::DynBackend;
use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::entropy::Entropy;
use bellows_registry::key::Keyspace;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events;
use crate::http::{self, Served};
use crate::kubernetes::Clients;
use crate::lease::Keeper;
use crate::metrics::Metrics;
use crate::reconcile::Context;
use crate::reconcile::build::Installation;
use crate::reconcile::run::{Scope, run as reconcile_scope};
use crate::registry::{Registry, RegistryError};
use crate::scale::run::Scaler;

/// The time-to-live of a worker's lease: how soon a dead worker's tasks run elsewhere.
const WORKER_LEASE: Duration = Duration::from_secs(10);
/// How long the parts may take to end.
const FAREWELL: Duration = Duration::from_secs(8);

/// Runs until `stop`, then gives up both leaderships and ends.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let backend = backend(&config)?;
    let space = Keyspace::new(&config.prefix);
    let registry = Registry::new(Arc::clone(&backend), space.clone());
    let metrics = Metrics::default();
    let (ready, is_ready) = watch::channel(false);
    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let served = Served { ready: is_ready, metrics: metrics.clone() };
    let (addr, end) = (config.http_addr, stop.clone());
    parts.spawn(async move { http::serve(addr, served, end).await.context("serving health and metrics") });

    let clients = Clients::from_env().await.context("no way to reach the Kubernetes API")?;
    let claimed = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        claimed = claim(&clients.calls, &registry) => claimed,
    };
    claimed?;
    let wired = Wired { config: &config, clients, registry, metrics, backend, space };
    wired.spawn(&mut parts, ready, &stop);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(part) = parts.join_next() => part.context("a part of the operator panicked")?,
    };
    stop.cancel();
    let farewell = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    ended
}

/// The registry's backend. Connects when first used.
pub(crate) fn backend(config: &Config) -> anyhow::Result<DynBackend> {
    Ok(Arc::new(EtcdBackend::new(EtcdConfig::new(config.endpoints()))?))
}

/// Makes the registry this cluster's own. Waits for both sides to answer; a registry of
/// another cluster is an error that ends the operator, since it must not touch it.
async fn claim(client: &Client, registry: &Registry) -> anyhow::Result<()> {
    loop {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let outcome = match namespaces.get("kube-system").await {
            Ok(system) => {
                registry.claim(&system.uid().unwrap_or_default()).await.map_err(anyhow::Error::from)
            }
            Err(error) => Err(anyhow::Error::from(error).context("reading the namespace kube-system")),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.downcast_ref(), Some(RegistryError::Owner { .. })) => {
                return Err(error);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "not started yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Everything that the parts share.
struct Wired<'a> {
    config: &'a Config,
    clients: Clients,
    registry: Registry,
    metrics: Metrics,
    backend: DynBackend,
    space: Keyspace,
}

impl Wired<'_> {
    fn spawn(
        self,
        parts: &mut JoinSet<anyhow::Result<()>>,
        ready: watch::Sender<bool>,
        stop: &CancellationToken,
    ) {
        let config = self.config;
        let leases = Api::namespaced(self.clients.calls.clone(), &config.pod_namespace);
        let keeper = Keeper::new(leases, &config.lease_name, &config.pod_name);
        let lease = keeper.held();
        let (events, writer) = events::channel(self.clients.calls.clone(), &config.pod_name);
        let assigner = self.assigner(lease.clone());
        let (changed, has_changed) = watch::channel(0);
        let context = Arc::new(Context::new(
            self.clients.clone(),
            self.registry.clone(),
            assigner.demand(),
            self.installation(),
            lease.clone(),
            events.clone(),
            self.metrics.clone(),
        ));
        let mut scopes = Vec::new();
        for (scope, feeds) in self.scopes() {
            scopes.push(scope.clone());
            let (context, changed, end) = (Arc::clone(&context), changed.clone(), stop.clone());
            parts.spawn(async move {
                reconcile_scope(scope, feeds, context, changed, end).await;
                Ok(())
            });
        }
        let scaler = Scaler {
            client: self.clients.calls,
            scopes: scopes.clone(),
            demand: assigner.demand(),
            changed: has_changed,
            lease,
            registry: self.registry,
            events,
            metrics: self.metrics,
        };
        let [a, b, c, d, e] = [(); 5].map(|()| stop.clone());
        parts.spawn(async move {
            writer.run(e).await;
            Ok(())
        });
        parts.spawn(async move {
            keeper.run(a).await;
            Ok(())
        });
        parts.spawn(async move {
            assigner.run(b).await;
            Ok(())
        });
        parts.spawn(async move {
            scaler.run(c).await;
            Ok(())
        });
        parts.spawn(async move {
            let filled = async {
                for scope in &scopes {
                    scope.filled().await;
                }
                ready.send_replace(true);
                tracing::info!("ready");
            };
            tokio::select! { () = d.cancelled() => return Ok(()), () = filled => {} }
            d.cancelled().await;
            ready.send_replace(false);
            Ok(())
        });
    }

    fn assigner(&self, lease: watch::Receiver<bool>) -> Assigner {
        let config = AssignerConfig {
            identity: self.config.pod_name.clone(),
            preferred: Some(lease),
            ..AssignerConfig::default()
        };
        Assigner::new(Arc::clone(&self.backend), self.space.clone(), config, Arc::new(Entropy::system()))
    }

    fn installation(&self) -> Installation {
        Installation {
            etcd_endpoints: self.config.worker_endpoints(),
            prefix: self.space.prefix().to_owned(),
            lease_ttl: WORKER_LEASE,
        }
    }

    fn scopes(&self) -> Vec<(Scope, crate::reconcile::run::Feeds)> {
        let namespaces = self.config.namespaces();
        if namespaces.is_empty() {
            return vec![Scope::new(None)];
        }
        namespaces.into_iter().map(|namespace| Scope::new(Some(namespace.to_owned()))).collect()
    }
}
