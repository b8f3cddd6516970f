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

/// Makes the registry this cluster's own, then waits for the caches: only then is the
/// operator ready. The other parts run beside it, and write nothing to a registry that was
/// not claimed.
async fn begin(
    client: &Client,
    registry: &Registry,
    scopes: &[Scope],
    ready: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    claim(client, registry).await?;
    for scope in scopes {
        scope.filled().await;
    }
    ready.send_replace(true);
    tracing::info!("ready");
    Ok(())
}

/// Waits for both sides to answer; a registry of another cluster is an error that ends the
/// operator, since it must not touch it.
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
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the registry was not claimed yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the registry was claimed; `false` if it is `stop` that came.
async fn once_claimed(registry: &Registry, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = registry.claimed() => true,
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
            client: self.clients.calls.clone(),
            scopes: scopes.clone(),
            demand: assigner.demand(),
            changed: has_changed,
            lease,
            registry: self.registry.clone(),
            events,
            metrics: self.metrics,
        };
        let (client, registry) = (self.clients.calls, self.registry);
        let [a, b, c, d, e] = [(); 5].map(|()| stop.clone());
        parts.spawn(async move {
            writer.run(e).await;
            Ok(())
        });
        let claimed = registry.clone();
        parts.spawn(async move {
            // Who cannot reach the registry can report and let deletions go, and no more.
            keeper.run(|| claimed.claimed(), a).await;
            Ok(())
        });
        let claimed = registry.clone();
        parts.spawn(async move {
            // To assign is to write.
            if once_claimed(&claimed, &b).await {
                assigner.run(b).await;
            }
            Ok(())
        });
        parts.spawn(async move {
            scaler.run(c).await;
            Ok(())
        });
        parts.spawn(async move {
            tokio::select! {
                () = d.cancelled() => return Ok(()),
                begun = begin(&client, &registry, &scopes, &ready) => begun?,
            }
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use bellows_registry::backend::memory::MemoryBackend;
    use clap::Parser;
    use futures::FutureExt;

    use super::*;

    /// A Kubernetes whose every answer is a namespace with this UID, in `served`.
    async fn kubernetes(uid: &'static str, served: &mut JoinSet<std::io::Result<()>>) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let namespace = serde_json::json!({ "metadata": { "name": "kube-system", "uid": uid } });
        let answer = move || std::future::ready(namespace.to_string());
        served.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Client::try_from(kube::Config::new(url)).unwrap()
    }

    #[tokio::test]
    async fn a_foreign_registry_ends_the_operator_before_it_was_ready_or_assigned() {
        let backend = Arc::new(MemoryBackend::new());
        let registry = || Registry::new(backend.clone(), Keyspace::default());
        let mut served = JoinSet::new();
        let (ready, stop) = (watch::channel(false).0, CancellationToken::new());
        let ours = registry();
        assert!(once_claimed(&ours, &stop).now_or_never().is_none(), "nobody assigns yet");
        let client = kubernetes("cluster-a", &mut served).await;
        begin(&client, &ours, &[], &ready).await.unwrap();
        assert!(ready.send_replace(false), "ready");
        assert!(once_claimed(&ours, &stop).await);

        let foreign = registry();
        let client = kubernetes("cluster-b", &mut served).await;
        let refusal = begin(&client, &foreign, &[], &ready).await.unwrap_err();
        assert!(refusal.to_string().contains("belongs to another Kubernetes cluster"), "{refusal}");
        assert!(!*ready.borrow());
        assert!(once_claimed(&foreign, &stop).now_or_never().is_none());
        stop.cancel();
        assert!(!once_claimed(&foreign, &stop).await, "and ends when it is told to");
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_work_ends_the_operator_with_a_sentence() {
        for (endpoint, says) in [
            ("https://etcd:2379", "TLS to etcd is not supported yet: use http://"),
            ("etcd:2379", "is not a URL such as http://"),
        ] {
            let who = ["bellows-operator", "--pod-name=a", "--pod-namespace=b", "--etcd-endpoints", endpoint];
            let cli = crate::config::Cli::parse_from(who);
            let refusal = run(cli.config, CancellationToken::new()).await.unwrap_err().to_string();
            assert!(refusal.contains(endpoint) && refusal.contains(says), "{refusal}");
        }
    }
}
