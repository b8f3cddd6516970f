//! `make demo`: the whole road once, on a real Kubernetes, every step checked.
//!
//! It tells the story inside a cluster that is up and has the images; `make demo` sees
//! to both. The last line is `demo: PASS …` or `demo: FAIL <check>: why`.
//! `demo prepare`, outside the cluster, fetches the photographs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bellows_registry::clock;
use bellows_tests::cluster::Cluster;
use bellows_tests::names::TARGET;
use bellows_tests::report::Report;
use bellows_tests::scene::{Scene, root};
use bellows_tests::story::{asking, faults, install, lifecycle, quiet, results, work};
use bellows_tests::{narrate, photos, verdict};

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("prepare") {
        return prepare();
    }
    let began = clock::instant();
    let mut told = Told { chapter: "start", chapters: Vec::new() };
    let ending = tell(&mut told).await;
    let wall = (clock::instant() - began).as_secs_f64();
    let ended = match ending {
        Ok(report) => finish(report, told.chapters, wall),
        Err(error) => {
            verdict::dump().await;
            Err((error, told.chapter))
        }
    };
    match ended {
        Ok(line) => {
            println!("\ndemo: PASS {line}");
            ExitCode::SUCCESS
        }
        Err((error, chapter)) => {
            println!("\ndemo: FAIL {}", verdict::failure(&error, chapter));
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> ExitCode {
    match photos::cache().and_then(|cache| photos::gather(&cache)) {
        Ok(folder) => {
            println!("photographs: {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: no photographs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the story is, and how long its chapters took.
struct Told {
    chapter: &'static str,
    chapters: Vec<(String, f64)>,
}

macro_rules! chapter {
    ($told:ident, $title:literal, $usually:literal, $does:expr) => {{
        $told.chapter = $title;
        let chapter = narrate::chapter($title, $usually);
        let done = $does.await?;
        $told.chapters.push(($title.to_owned(), chapter.end().as_secs_f64()));
        done
    }};
}

async fn tell(told: &mut Told) -> Result<Report> {
    std::env::set_current_dir(root()).context("going to the repository's root")?;
    let cluster = Cluster::from_env()?;
    let mut scene: Scene = chapter!(told, "Helm installs Bellows", "15 s", install::install(cluster));
    chapter!(told, "A TaskDefinition, and no pod yet", "2 s", install::define(&scene));
    chapter!(told, "Tasks are published, pods come up", "10 s", work::from_zero(&mut scene));
    chapter!(told, "The publisher is killed", "1 s", work::kill_publisher(&scene));
    chapter!(told, "A busy worker is killed", "12 s", faults::kill_worker(&mut scene));
    chapter!(told, "The operator's leader is deleted", "5 s", faults::delete_leader(&mut scene));
    chapter!(told, "All results are there", "20 s", results::collect(&mut scene));
    chapter!(told, "A running task is followed, and cancelled", "6 s", asking::follow_and_cancel(&scene));
    chapter!(told, "A task that gave up is replayed", "6 s", asking::mend_and_replay(&scene));
    chapter!(told, "Back to nothing", "10 s", quiet::back_to_zero(&scene));
    chapter!(told, "Idle costs nothing", "30 s", quiet::idle(&mut scene));
    chapter!(told, "Helm upgrades Bellows", "35 s", lifecycle::upgrade(&mut scene));
    chapter!(
        told,
        "Uninstalled while tasks wait, and installed again",
        "35 s",
        lifecycle::reinstall(&mut scene)
    );
    chapter!(told, "The balance", "1 s", async {
        install::weigh(&mut scene).await?;
        results::balance(&mut scene)
    });
    Ok(scene.report)
}

type Failure = (anyhow::Error, &'static str);

fn finish(mut report: Report, chapters: Vec<(String, f64)>, wall: f64) -> Result<String, Failure> {
    let up = std::env::var("BELLOWS_CLUSTER_UP_S").ok().and_then(|seconds| seconds.parse::<f64>().ok());
    report.testbed_up_s = up;
    report.wall_s = wall + up.unwrap_or_default();
    report.chapters_s = chapters;
    report.save(&root().join(TARGET).join("demo.json")).map_err(|error| (error, "the report"))?;
    Ok(format!(
        "{} tasks, {} succeeded, {} failed on purpose, {} cancelled, none lost; publish to replicas {:.0} ms, killed worker \
         recovered in {:.1} s, next leader in {:.1} s; {:.0} s in all",
        report.published,
        report.succeeded,
        report.failed,
        report.cancelled,
        report.publish_to_replicas_ms,
        report.kill_recovery_s,
        report.operator_failover_s,
        report.wall_s
    ))
}
