//! An installation with other values, on a real Kubernetes: three etcd members, one of which
//! dies in the middle; rights in one namespace only; a registry that is emptied; and a second installation that finds
//! another cluster's registry. Needs a cluster with the images loaded: `make test-cluster`
//! brings one up.

use std::time::Duration;

use anyhow::{Context, Result};
use bellows_registry::backend::{Op, PutLease, RangeRequest, Txn};
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{Ended, FORMAT, MetaRecord, Record};
use bellows_tests::cluster::Cluster;
use bellows_tests::ledger::Book;
use bellows_tests::names::{CHART, DEFINITION, RELEASE, SYSTEM, WORK};
use bellows_tests::scene::{Scene, root};
use bellows_tests::story::{install, quiet};
use bellows_tests::{pods, shell, verdict, wait};

#[tokio::test]
async fn a_member_of_three_dies_and_work_goes_on_and_a_foreign_registry_is_refused() {
    let cluster = match Cluster::from_env() {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = story(cluster).await {
        verdict::dump().await;
        panic!("{}", verdict::failure(&error, "other values"));
    }
}

async fn story(cluster: Cluster) -> Result<()> {
    std::env::set_current_dir(root())?;
    let values = format!("--set etcd.replicas=3 --set watchNamespaces={{{WORK}}}");
    let scene = install::install_with(cluster, &values).await?;
    install::define(&scene).await?;
    a_member_dies(&scene).await?;
    an_emptied_registry_is_filled_again(&scene).await?;
    a_foreign_registry_is_refused(&scene).await
}

async fn a_member_dies(scene: &Scene) -> Result<()> {
    scene.publish("third", &["--wait"]).await?;
    let assigned = |book: &Book| (!book.standing.is_empty()).then_some(());
    scene.ledger.until("tasks run", Duration::from_secs(40), assigned).await?;
    pods::kill(&scene.client, SYSTEM, &format!("{RELEASE}-etcd-0")).await?;
    scene.publish("fourth", &["--wait"]).await?;
    let size = scene.volume.size("third")? + scene.volume.size("fourth")?;
    let all = |book: &Book| (book.settled.len() == size).then_some(());
    scene.ledger.until("every task has ended", Duration::from_secs(60), all).await?;
    for wave in ["third", "fourth"] {
        let name = format!("publish-{wave}");
        let publisher = pods::ended(&scene.client, WORK, &name, Duration::from_secs(30)).await?;
        assert!(publisher.succeeded, "{wave}: {}", publisher.log);
    }
    scene.ledger.read(|book| {
        assert_eq!(book.ended(Ended::Succeeded), size);
        assert_eq!((book.lost(), book.settled_twice()), (0, 0));
    })?;
    wait::until("the member is back", Duration::from_secs(60), || async {
        let (name, ready) = (format!("{RELEASE}-etcd"), "jsonpath={.status.readyReplicas}");
        let members =
            shell::quiet(["kubectl", "get", "statefulset", "-n", SYSTEM, &name, "-o", ready]).await?;
        anyhow::ensure!(members == "3", "{members} members are ready");
        Ok(Some(()))
    })
    .await
}

/// Somebody removes every key: the operator notices by itself, not by its slow resync.
async fn an_emptied_registry_is_filled_again(scene: &Scene) -> Result<()> {
    quiet::back_to_zero(scene).await?;
    let (registry, space) = (scene.ledger.registry(), Keyspace::default());
    let everything = Op::Delete(space.everything());
    registry.txn(Txn { then: vec![everything], ..Txn::default() }).await?;
    let policy = space.path(&Key::Policy(DefinitionId::new(WORK, DEFINITION)?));
    wait::until("an emptied registry has its definition again", Duration::from_secs(30), || async {
        let found = registry.range(RangeRequest::new(KeyRange::one(policy.clone()))).await?;
        Ok((!found.entries.is_empty()).then_some(()))
    })
    .await
}

/// A second release on a prefix whose owner is another cluster: it touches nothing and
/// says why.
async fn a_foreign_registry_is_refused(scene: &Scene) -> Result<()> {
    let meta = MetaRecord { format: FORMAT, owner: "another-cluster".to_owned(), generation: 0 };
    let key = Keyspace::new("/foreign/").path(&Key::Meta);
    let put = Op::Put { key, value: meta.encode(), lease: PutLease::None };
    scene.ledger.registry().txn(Txn { then: vec![put], ..Txn::default() }).await?;
    shell::typed(&format!(
        "helm install second {CHART} --namespace {SYSTEM} --set crds.install=false --set prefix=/foreign/ \
         --set operator.replicas=1 --set etcd.external.endpoints={{http://{RELEASE}-etcd.{SYSTEM}.svc:2379}}"
    ))
    .await?;
    let logs = ["kubectl", "logs", "-n", SYSTEM, "-l", "app.kubernetes.io/instance=second", "--tail=20"];
    let refusal = wait::until("the second operator says why it ends", Duration::from_secs(40), || async {
        let log = shell::quiet(logs).await?;
        let line = log.lines().find(|line| line.contains("belongs to another Kubernetes cluster"));
        Ok(Some(line.with_context(|| format!("its log: {log}"))?.to_owned()))
    });
    let refusal = refusal.await?;
    assert!(refusal.contains("/foreign/") && refusal.contains("another-cluster"), "{refusal}");
    shell::typed(&format!("helm uninstall second --namespace {SYSTEM} --wait")).await.map(drop)
}
