//! The short story on a real Kubernetes with real pods: install, define, 0 → N, results,
//! a pod killed in the middle, back to 0; a busy pod deleted. Needs a cluster with the images loaded:
//! `make test` brings one up; without it this fails by name.

use std::time::Duration;

use anyhow::Result;
use bellows_registry::record::Ended;
use bellows_tests::cluster::Cluster;
use bellows_tests::names::WORK;
use bellows_tests::scene::{Scene, root};
use bellows_tests::story::{drain, faults, install, quiet, work};
use bellows_tests::{pods, verdict};

#[tokio::test]
async fn work_goes_from_nothing_to_results_and_back_on_real_pods() {
    let cluster = match Cluster::from_env() {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = short_story(cluster).await {
        verdict::dump().await;
        panic!("{}", verdict::failure(&error, "the short story"));
    }
}

async fn short_story(cluster: Cluster) -> Result<()> {
    std::env::set_current_dir(root())?;
    let mut scene = install::install(cluster).await?;
    install::define(&scene).await?;
    work::from_zero(&mut scene).await?;
    faults::kill_worker(&mut scene).await?;
    scene.all_settled(Duration::from_secs(120)).await?;
    assert_balance(&scene)?;
    let publisher = pods::ended(&scene.client, WORK, "publish-first", Duration::from_secs(20)).await?;
    assert!(publisher.log.contains("cut off"), "the failure's text reaches the publisher: {}", publisher.log);
    quiet::back_to_zero(&scene).await?;
    drain::delete_busy_pod(&mut scene).await?;
    quiet::back_to_zero(&scene).await
}

fn assert_balance(scene: &Scene) -> Result<()> {
    let size = scene.volume.size("first")?;
    scene.ledger.read(|book| {
        assert_eq!(book.published.len(), size);
        assert_eq!(book.ended(Ended::Succeeded), size - 1, "all but the broken photograph");
        assert_eq!(book.ended(Ended::Parked), 1, "the broken photograph");
        assert_eq!((book.lost(), book.settled_twice()), (0, 0));
        assert_eq!(book.charged_to_infrastructure(), 0, "the killed worker costs no attempt");
    })
}
