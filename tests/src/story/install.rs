//! Helm installs Bellows; a TaskDefinition makes a Deployment of 0.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::names::{CHART, DEFINITION, MANIFEST, RELEASE, SYSTEM, WORK};
use crate::narrate::{check, say};
use crate::replicas::Replicas;
use crate::report::Report;
use crate::scene::{Scene, root};
use crate::volume::Volume;
use crate::{manifests, photos, shell, wait};

/// `helm install` with no values, and the registry's witness.
pub async fn install(cluster: Cluster) -> Result<Scene> {
    install_with(cluster, "").await
}

/// `helm install` with values, as flags.
pub async fn install_with(cluster: Cluster, values: &str) -> Result<Scene> {
    let client = Client::try_default().await.context("the Kubernetes API")?;
    is_alone().await?;
    leave_no_trace().await;
    let inputs = photos::gather(&photos::cache()?).context(
        "the photographs are fetched outside the cluster, whose network has no way out: `demo prepare`",
    )?;
    let (here, on_nodes) = cluster.volume(&root());
    let volume = Volume::lay_out(&here, &inputs)?;
    // The namespace is there first: an installation for some namespaces has rights in them.
    shell::apply(&manifests::volume(&on_nodes)).await?;
    helm_install_with(values).await?;
    shell::typed(&format!("helm test {RELEASE} --namespace {SYSTEM} --timeout 60s")).await?;
    let ledger = Ledger::open(cluster.registry(&client).await?)?;
    let replicas = Replicas::follow(client.clone(), WORK, DEFINITION);
    let mut report = Report { install: cluster.install().to_owned(), ..Report::default() };
    describe(&client, &mut report).await?;
    Ok(Scene { cluster, client, ledger, replicas, volume, report })
}

/// The command a user types, and the wait for what it starts.
pub async fn helm_install() -> Result<()> {
    helm_install_with("").await
}

async fn helm_install_with(values: &str) -> Result<()> {
    shell::typed(&format!(
        "helm install {RELEASE} {CHART} --namespace {SYSTEM} --create-namespace --wait --timeout 120s {values}"
    ))
    .await?;
    Ok(())
}

/// `kubectl apply` of the TaskDefinition, then: a Deployment, of 0.
pub async fn define(scene: &Scene) -> Result<()> {
    shell::typed(&format!("kubectl apply -n {WORK} -f {MANIFEST}")).await?;
    let (_, replicas) =
        scene.replicas.until("the Deployment appears", Duration::from_secs(30), 0, |_| true).await?;
    check("the Deployment begins at 0", replicas == 0, format!("it has {replicas} replicas"))?;
    wait::until("the TaskDefinition is Ready", Duration::from_secs(30), || async {
        let status = scene.status().await?;
        let ready = condition(&status, "Ready").context("it has no condition Ready")?;
        anyhow::ensure!(ready["status"] == "True", "{}: {}", ready["reason"], ready["message"]);
        Ok(Some(()))
    })
    .await?;
    say(shell::typed(&format!("kubectl get td -n {WORK}")).await?.trim_end().replace('\n', "\n    "));
    Ok(())
}

fn condition<'a>(status: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

/// Two installations that watch the same namespaces fight over the Deployments there.
async fn is_alone() -> Result<()> {
    let releases = shell::quiet(["helm", "list", "--all-namespaces", "--output", "json"]).await?;
    let releases: Vec<serde_json::Value> = serde_json::from_str(&releases).context("what helm lists")?;
    let word = |release: &serde_json::Value, key: &str| release[key].as_str().unwrap_or_default().to_owned();
    for release in releases.iter().filter(|release| word(release, "chart").starts_with("bellows-")) {
        let (name, namespace) = (word(release, "name"), word(release, "namespace"));
        anyhow::ensure!(
            name == RELEASE && namespace == SYSTEM,
            "this cluster has a Bellows already, release {name} in namespace {namespace}: \
             `helm uninstall {name} -n {namespace}`, or take the cluster away with `make cluster-down`"
        );
    }
    Ok(())
}

/// What an earlier, broken-off story left in a cluster that is used again.
async fn leave_no_trace() {
    let delete = ["--ignore-not-found", "--wait=true", "--timeout=60s"];
    let definitions = ["-n", WORK, "taskdefinition"];
    let _ = shell::quiet([&["kubectl", "delete", "--all", "--wait=false"], &definitions[..]].concat()).await;
    // No operator takes the finalizers off, where the story broke off while none was installed.
    let unfinished = [&["kubectl", "get", "--output=name"], &definitions[..]].concat();
    for definition in shell::quiet(unfinished).await.unwrap_or_default().lines() {
        let none = r#"{"metadata":{"finalizers":null}}"#;
        let _ = shell::quiet(["kubectl", "patch", "-n", WORK, definition, "--type=merge", "-p", none]).await;
    }
    for what in [["namespace", WORK], ["persistentvolume", "photos"]] {
        let _ = shell::quiet([&["kubectl", "delete"][..], &what, &delete].concat()).await;
    }
    let _ = shell::quiet(["helm", "uninstall", RELEASE, "-n", SYSTEM, "--wait"]).await;
    let _ = shell::quiet([&["kubectl", "delete", "namespace", SYSTEM][..], &delete].concat()).await;
}

async fn describe(client: &Client, report: &mut Report) -> Result<()> {
    report.kubernetes_version = client.apiserver_version().await?.git_version;
    report.nodes = nodes(client).await?.len();
    let crd = root().join("crds/bellows.dev_taskdefinitions.yaml");
    report.crd_bytes = std::fs::metadata(&crd).with_context(|| format!("reading {}", crd.display()))?.len();
    Ok(())
}

/// The sizes of the images, once the nodes tell them: a kubelet looks every few minutes, and
/// when its list of images has changed.
pub async fn weigh(scene: &mut Scene) -> Result<()> {
    let client = scene.client.clone();
    let sizes = wait::until("the nodes tell the images' sizes", Duration::from_secs(60), || async {
        let sizes = sizes(nodes(&client).await?);
        anyhow::ensure!(sizes.len() >= 3, "they tell {sizes:?}");
        Ok(Some(sizes))
    });
    scene.report.image_mb = sizes.await?;
    for (image, megabytes) in &scene.report.image_mb {
        check(&format!("{image} is below 40 MB"), *megabytes < 40.0, format!("it has {megabytes:.1} MB"))?;
    }
    Ok(())
}

/// What the names of the charts' images begin with.
const OURS: [&str; 2] = ["ghcr.io/bellows-dev/", "quay.io/coreos/etcd:"];

fn sizes(nodes: Vec<Node>) -> BTreeMap<String, f64> {
    let images = nodes.into_iter().filter_map(|node| node.status).flat_map(|s| s.images.unwrap_or_default());
    let ours = images.filter_map(|image| {
        let name = image
            .names?
            .into_iter()
            // Not the etcd that a cluster may have for itself.
            .find(|name| OURS.iter().any(|ours| name.starts_with(ours)) && !name.contains('@'))?;
        Some((name, image.size_bytes? as f64 / 1e6))
    });
    ours.collect()
}

async fn nodes(client: &Client) -> Result<Vec<Node>> {
    Ok(Api::<Node>::all(client.clone()).list(&kube::api::ListParams::default()).await?.items)
}
