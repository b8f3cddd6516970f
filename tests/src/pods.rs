//! Looking at pods and ending them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, Client};

use crate::names::{DEFINITION, WORK};
use crate::wait;

/// The worker pods of the story's definition that are not being deleted.
pub async fn workers(client: &Client) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), WORK);
    let of_ours = ListParams::default().labels(&format!("bellows.dev/definition={DEFINITION}"));
    let pods = api.list(&of_ours).await?.items;
    Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// One pod.
pub async fn get(client: &Client, namespace: &str, name: &str) -> Result<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.get(name).await.with_context(|| format!("reading pod {namespace}/{name}"))
}

/// One pod, if it is there.
pub async fn find(client: &Client, namespace: &str, name: &str) -> Result<Option<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?)
}

/// Deletes a pod at once, without a chance to say goodbye.
pub async fn kill(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.delete(name, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

/// Waits until a pod that runs once has ended, and answers what it printed.
pub async fn ended(client: &Client, namespace: &str, name: &str, bound: Duration) -> Result<Ended> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let what = format!("pod {name} ends");
    let phase = wait::until(&what, bound, || async {
        let phase = get(client, namespace, name).await?.status.and_then(|s| s.phase).unwrap_or_default();
        match phase.as_str() {
            "Succeeded" | "Failed" => Ok(Some(phase)),
            _ => bail!("it is {phase}"),
        }
    });
    let phase = phase.await?;
    Ok(Ended { succeeded: phase == "Succeeded", log: api.logs(name, &LogParams::default()).await? })
}

/// How a pod that runs once ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended with 0.
    pub succeeded: bool,
    /// What it printed.
    pub log: String,
}
