//! What concerns a whole process on a cluster: its own thread for the lease, an etcd that
//! is not there, its environment.

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use bellows_registry::backend::{Backend, RangeRequest};
use bellows_registry::clock;
use bellows_registry::key::Keyspace;
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Execution, Span};
use bellows_sdk::{Config, EtcdBackend, EtcdConfig, Options, Policy, PublishError};
use bellows_testbed::EtcdServer;

struct Act;

impl TaskDefinition for Act {
    const NAME: &'static str = "act";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

fn config(url: &str, lease_ttl: Duration) -> Config {
    Config {
        etcd_endpoints: vec![url.to_owned()],
        prefix: "/bellows/".to_owned(),
        namespace: "default".parse().unwrap(),
        definition: None,
        pod: "pod".to_owned(),
        concurrency: None,
        lease_ttl,
        drain_timeout: Duration::from_secs(5),
        http_addr: ([127, 0, 0, 1], 0).into(),
    }
}

/// A handler that blocks the only thread of the user's runtime for three times the TTL.
#[test]
fn a_handler_that_blocks_every_thread_does_not_cost_the_lease() {
    let dir = std::env::temp_dir().join(format!("bellows-sdk-process-{}", std::process::id()));
    let etcd = EtcdServer::start(&dir).expect("a real etcd, built from tools/etcd");
    let url = etcd.client_url().to_string();
    let assigner_url = url.clone();
    // The assigner lives in a process of its own, as far as the worker can tell.
    let (stop, stopped) = mpsc::channel::<()>();
    let assigner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let host = runtime.block_on(async {
            let backend = EtcdBackend::new(EtcdConfig::new([assigner_url])).unwrap();
            let host = Bellows::hosted(std::sync::Arc::new(backend), Options::default()).unwrap();
            let execution = Execution { timeout: Span::secs(60), ..Execution::default() };
            host.define::<Act>(Policy { execution, ..Policy::default() }).await.unwrap();
            host
        });
        let _ = stopped.recv();
        drop((host, runtime));
    });
    let ttl = Duration::from_secs(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let bellows = Bellows::connect(&config(&url, ttl)).unwrap();
        let block = move |_: TaskContext, text: String| async move {
            let (_kept, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(3 * ttl);
            Ok(text.into())
        };
        let tasks = Tasks::new().with_fn::<Act, _, _>(block);
        let worker = WorkerDispatcher::of(&bellows, tasks).launch().await.unwrap();
        let task = loop {
            match bellows.publish::<Act>("held".into()).await {
                Ok(task) => break task,
                Err(PublishError::NoSuchDefinition(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let outcome = task.outcome().await.unwrap();
        worker.drain(Duration::from_secs(1)).await.unwrap();
        outcome
    });
    assert_eq!((outcome.tally.losses, outcome.attempt, &outcome.result[..]), (0, 1, b"\"held\"".as_slice()));
    drop(stop);
    assigner.join().unwrap();
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_an_error_within_the_time_given() {
    let nobody = EtcdBackend::new(EtcdConfig::new(["http://127.0.0.1:9"])).unwrap();
    let space = Keyspace::default();
    assert!(nobody.range(RangeRequest::new(space.everything())).await.is_err());
    let options = Options { publish_timeout: Duration::from_secs(2), ..Options::default() };
    let bellows = Bellows::with_backend(std::sync::Arc::new(nobody), options).unwrap();
    let began = clock::instant();
    let error = bellows.publish::<Act>("x".into()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(matches!(error, PublishError::Unavailable { .. } | PublishError::Unknown { .. }), "{error}");
}

/// The quickstart example is the README's first command: it must do what it says.
#[test]
fn the_quickstart_says_what_a_newcomer_should_see() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let run = Command::new(cargo)
        .args(["run", "--quiet", "--example", "quickstart", "-p", "bellows-sdk"])
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    for line in [
        "Hello, Ada! (attempt 1)",
        "Hello, Grace! (attempt 2)",
        "was parked after 1 attempts: nobody to greet",
    ] {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
}
