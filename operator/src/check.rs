//! `bellows-operator check`: can this installation work? For `helm test` and for people.

use anyhow::{Context as _, bail};
use bellows_registry::key::Keyspace;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::config::Config;
use crate::crd::TaskDefinition;
use crate::kubernetes::Clients;
use crate::operator::backend;
use crate::registry::Registry;

/// Asks the registry and the Kubernetes API, and prints what it found.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let registry = Registry::new(backend(config)?, Keyspace::new(&config.prefix));
    registry.ping().await.with_context(|| format!("the registry at {}", config.endpoints().join(", ")))?;
    let client = Clients::from_env().await.context("no way to reach the Kubernetes API")?.calls;
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await;
    let system = system.context("reading the namespace kube-system, whose UID names this cluster")?;
    registry.belongs_to(&system.uid().unwrap_or_default()).await?;
    println!("registry: answers, and is no other cluster's");
    let all = config.namespaces().is_empty();
    let definitions: Api<TaskDefinition> = match config.namespaces().first() {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let found = definitions
        .list(&ListParams::default().limit(100))
        .await
        .context("listing TaskDefinitions (is the CRD installed?)")?;
    println!(
        "Kubernetes API: answers, {} TaskDefinitions{}",
        found.items.len(),
        if all { "" } else { " in the first watched namespace" }
    );
    let ready = |definition: &TaskDefinition| {
        let conditions = definition.status.iter().flat_map(|status| &status.conditions);
        conditions.clone().count() == 0
            || conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let broken = found.items.iter().filter(|definition| !ready(definition)).count();
    if broken > 0 {
        bail!("{broken} TaskDefinitions are not ready: kubectl get td -A");
    }
    Ok(())
}
