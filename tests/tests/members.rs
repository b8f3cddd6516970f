//! An etcd of three members on a real Kubernetes: one of them dies in the middle, and work
//! goes on. Needs a cluster with the images loaded: `make test-cluster` brings one up.

use std::time::Duration;

use anyhow::Result;
use bellows_registry::record::Ended;
use bellows_tests::cluster::Cluster;
use bellows_tests::names::{RELEASE, SYSTEM, WORK};
use bellows_tests::scene::root;
use bellows_tests::story::{install, quiet};
use bellows_tests::{pods, shell, verdict, wait};

#[tokio::test]
async fn work_goes_on_when_one_of_three_etcd_members_dies() {
    let cluster = match Cluster::from_env() {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = three_members(cluster).await {
        verdict::dump().await;
        panic!("{}", verdict::failure(&error, "three members"));
    }
}

async fn three_members(cluster: Cluster) -> Result<()> {
    std::env::set_current_dir(root())?;
    let scene = install::install_with(cluster, "--set etcd.replicas=3").await?;
    install::define(&scene).await?;
    scene.publish("third", &["--wait"]).await?;
    let assigned = |book: &bellows_tests::ledger::Book| (!book.standing.is_empty()).then_some(());
    scene.ledger.until("tasks run", Duration::from_secs(40), assigned).await?;
    pods::kill(&scene.client, SYSTEM, &format!("{RELEASE}-etcd-0")).await?;
    scene.publish("fourth", &["--wait"]).await?;
    let size = scene.volume.size("third")? + scene.volume.size("fourth")?;
    let all = |book: &bellows_tests::ledger::Book| (book.settled.len() == size).then_some(());
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
        let ready = "jsonpath={.status.readyReplicas}";
        let name = format!("{RELEASE}-etcd");
        let members =
            shell::quiet(["kubectl", "get", "statefulset", "-n", SYSTEM, &name, "-o", ready]).await?;
        anyhow::ensure!(members == "3", "{members} members are ready");
        Ok(Some(()))
    })
    .await?;
    quiet::back_to_zero(&scene).await
}
