//! `bellows-operator check`: can this installation work? For `helm test` and for people.

use anyhow::{Context as _, bail};
use bellows_registry::key::Keyspace;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::config::Config;
use crate::crd::TaskDefinition;
use crate::operator::backend;
use crate::registry::Registry;

/// Asks the registry and the Kubernetes API, and prints what it found.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let registry = Registry::new(backend(config)?, Keyspace::new(&config.prefix));
    registry.ping().await.with_context(|| format!("the registry at {}", config.endpoints().join(", ")))?;
    println!("registry: answers");
    let client = Client::try_default().await.context("no way to reach the Kubernetes API")?;
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
