//! What concerns a whole process: threads that are blocked, an etcd that is not there,
//! signals, its environment.

mod process {
    pub(crate) mod child;
}

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bellows_registry::backend::{Backend, RangeRequest};
use bellows_registry::clock;
use bellows_registry::key::Keyspace;
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Execution, Span};
use bellows_sdk::{Config, EtcdBackend, EtcdConfig, Options, Policy, PublishError};
use bellows_testbed::EtcdServer;
use process::child::{Order, Serve, WorkerProcess};

struct Act;

impl TaskDefinition for Act {
    const NAME: &'static str = "act";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

fn config(url: &str, lease_ttl: Duration) -> Config {
    Config {
        etcd_endpoints: vec![url.to_owned()],
        options: Options { lease_ttl, ..Options::default() },
        definition: None,
        pod: "pod".to_owned(),
        version: None,
        concurrency: None,
        drain_timeout: Duration::from_secs(5),
        http_addr: ([127, 0, 0, 1], 0).into(),
    }
}

/// A handler that blocks the only thread of the user's runtime for longer than its lease
/// lives without a renewal.
#[test]
fn a_handler_that_blocks_every_thread_does_not_cost_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = EtcdServer::start(dir.path()).expect("a real etcd, built from tools/etcd");
    let url = etcd.client_url().to_string();
    let assigner_url = url.clone();
    // The assigner lives in a process of its own, as far as the worker can tell.
    let (stop, stopped) = mpsc::channel::<()>();
    let (defines, defined) = mpsc::channel::<()>();
    let assigner = thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let host = runtime.block_on(async {
            let backend = EtcdBackend::new(EtcdConfig::new([assigner_url])).unwrap();
            let host = Bellows::hosted(std::sync::Arc::new(backend), Options::default()).unwrap();
            let execution = Execution { timeout: Span::secs(60), ..Execution::default() };
            host.define::<Act>(Policy { execution, ..Policy::default() }).await.unwrap();
            host
        });
        defines.send(()).unwrap();
        let _ = stopped.recv();
        drop((host, runtime));
    });
    defined.recv_timeout(Duration::from_secs(20)).unwrap();
    let ttl = Duration::from_secs(5); // a busy machine costs no lease either
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let bellows = Bellows::connect(&config(&url, ttl)).unwrap();
        let block = move |_: TaskContext, text: String| async move {
            let (_kept, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(ttl + Duration::from_secs(1));
            Ok(text.into())
        };
        let tasks = Tasks::new().with_fn::<Act, _, _>(block);
        let worker = WorkerDispatcher::of(&bellows, tasks).launch().await.unwrap();
        let task = bellows.publish::<Act>("held".into()).await.unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(20), task.outcome()).await.unwrap().unwrap();
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

/// Time-outs cannot end a handler that blocks its thread: its slot stays taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_ignores_its_time_out_keeps_its_slot_and_a_metric_says_so() {
    let execution = Execution { timeout: Span::secs(1), ..Execution::default() };
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let act = move |_: TaskContext, text: String| {
        let wait = std::sync::Arc::clone(&wait);
        async move {
            if text == "block" {
                let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
            }
            Ok(text.into())
        }
    };
    let policy = Policy { execution, ..Policy::default() };
    let tasks = Tasks::new().with_fn::<Act, _, _>(act).policy(policy);
    let bellows = Bellows::in_memory();
    let mut worker = WorkerDispatcher::of(&bellows, tasks).concurrency(1).launch().await.unwrap();
    worker.ready().await;
    let stuck = bellows.publish::<Act>("block".into()).await.unwrap();
    let line = "bellows_worker_stuck{definition=\"act\"} 1\n";
    eventually("the metric says it", || worker.metrics_text().contains(line)).await;
    let next = bellows.publish::<Act>("next".into()).await.unwrap();
    assert!(next.wait_timeout(Duration::from_millis(500)).await.is_err(), "there is no slot");
    go.send(()).unwrap(); // for the attempt that blocks
    assert_eq!(next.wait_timeout(Duration::from_secs(10)).await.unwrap(), "next");
    go.send(()).unwrap(); // for the next attempt at the same
    let outcome = tokio::time::timeout(Duration::from_secs(20), stuck.outcome()).await.unwrap().unwrap();
    assert_eq!(outcome.tally.errors[0].message, "timed out after 1s");
    eventually("the slot is free", || worker.metrics_text().contains(&line.replace(" 1", " 0"))).await;
    worker.drain(Duration::from_secs(1)).await.unwrap();
}

/// Waits for a condition, within bounds.
async fn eventually(what: &str, is: impl Fn() -> bool) {
    let deadline = clock::instant() + Duration::from_secs(20);
    while !is() {
        assert!(clock::instant() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A real etcd, and a client that hosts its assigner.
struct Hosted {
    url: String,
    bellows: Bellows,
    _etcd: EtcdServer,
    _dir: tempfile::TempDir,
}

fn hosted() -> Hosted {
    let dir = tempfile::tempdir().unwrap();
    let etcd = EtcdServer::start(dir.path()).expect("a real etcd, built from tools/etcd");
    let url = etcd.client_url().to_string();
    let backend = std::sync::Arc::new(EtcdBackend::new(EtcdConfig::new([url.clone()])).unwrap());
    let bellows = Bellows::hosted(backend, Options::default()).unwrap();
    Hosted { url, bellows, _etcd: etcd, _dir: dir }
}

/// A worker process from its start to SIGTERM, on a real etcd, as on a cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_process_serves_says_how_it_is_and_ends_well() {
    let Hosted { url, bellows, .. } = &hosted();
    bellows.define::<Serve>(Policy::default()).await.unwrap();
    let worker = WorkerProcess::spawn(&[("BELLOWS_ETCD_ENDPOINTS", url)]);
    eventually("it is ready", || worker.get("/readyz").starts_with("HTTP/1.1 200")).await;

    let echo = bellows.publish::<Serve>(Order::Echo("hello".to_owned())).await.unwrap();
    assert_eq!(echo.wait_timeout(Duration::from_secs(10)).await.unwrap(), "hello");
    let secret = bellows.publish::<process::child::Wrong>("hush-hush".to_owned()).await.unwrap();

    // Its only user thread is blocked for longer than its lease lives without renewal.
    let blocking = bellows.publish::<Serve>(Order::Block { seconds: 6 }).await.unwrap();
    let running = "bellows_worker_running{definition=\"serve\"} 1\n";
    eventually("it runs", || worker.get("/metrics").contains(running)).await;
    assert!(worker.get("/healthz").starts_with("HTTP/1.1 200"), "it lives, though it is blocked");
    assert!(worker.get("/readyz").starts_with("HTTP/1.1 200"), "and has its lease");
    let blocked = tokio::time::timeout(Duration::from_secs(20), blocking.outcome()).await.unwrap();
    assert_eq!(blocked.unwrap().tally.losses, 0);

    let waiting = bellows.publish::<Serve>(Order::WaitToBeStopped).await.unwrap();
    eventually("it runs", || worker.get("/metrics").contains(running)).await;
    worker.terminate();
    eventually("it says that it drains", || worker.get("/readyz").ends_with("draining\n")).await;
    let (code, log) = worker.end().await;
    assert_eq!(code, Some(0), "{log}");
    let status = waiting.status().await.unwrap();
    let bellows_sdk::TaskStatus::Waiting { tally } = status else { panic!("{status:?}") };
    assert_eq!((tally.hand_backs, tally.attempts, tally.losses), (1, 0, 0), "{log}");
    let bellows_sdk::TaskStatus::Waiting { tally } = secret.status().await.unwrap() else { panic!() };
    assert!(tally.errors[0].message.contains("hush-hush"), "what the registry may say");
    assert!(!log.contains("hush-hush"), "no log may:\n{log}");
    for line in
        ["\"attempt began\"", "\"outcome\":\"succeeded\"", "\"outcome\":\"handed_back\"", "\"drained\""]
    {
        assert!(log.contains(line), "{line} is missing in:\n{log}");
    }
}

/// A handler that nobody can end, on the only thread, in the only slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_process_whose_slots_are_all_stuck_is_not_alive_and_ends() {
    let Hosted { url, bellows, .. } = &hosted();
    let execution = Execution { timeout: Span::secs(1), ..Execution::default() };
    bellows.define::<Serve>(Policy { execution, ..Policy::default() }).await.unwrap();
    let worker = WorkerProcess::spawn(&[("BELLOWS_ETCD_ENDPOINTS", url), ("BELLOWS_CONCURRENCY", "1")]);
    eventually("it is ready", || worker.get("/readyz").starts_with("HTTP/1.1 200")).await;
    let drift = "drift: worker.concurrency of default/serve is 8 in the code and 1 in the TaskDefinition";
    eventually("it says what counts", || worker.get("/readyz").contains(drift)).await;

    let stuck = bellows.publish::<Serve>(Order::Block { seconds: 120 }).await.unwrap();
    eventually("it says why it is not alive", || {
        let said = worker.get("/healthz");
        said.starts_with("HTTP/1.1 503") && said.contains("every slot is held by a handler")
    })
    .await;
    eventually("its service ends", || worker.get("/healthz").is_empty()).await;
    let (code, log) = worker.end().await;
    assert_eq!(code, Some(1), "though its runtime would wait for the handler: {log}");
    assert!(log.contains("every slot of serve is held by a handler"), "{log}");
    let status = stuck.status().await.unwrap();
    let tally = status.tally().unwrap();
    assert_eq!((tally.attempts, tally.losses), (1, 0), "it timed out, and nobody was lost: {log}");
}

/// A handler that nobody can end, on the only thread, in one of eight slots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_process_that_was_drained_ends_though_a_handler_does_not_stop() {
    let Hosted { url, bellows, .. } = &hosted();
    bellows.define::<Serve>(Policy::default()).await.unwrap();
    let worker = WorkerProcess::spawn(&[("BELLOWS_ETCD_ENDPOINTS", url)]);
    eventually("it is ready", || worker.get("/readyz").starts_with("HTTP/1.1 200")).await;
    let stuck = bellows.publish::<Serve>(Order::Block { seconds: 120 }).await.unwrap();
    let running = "bellows_worker_running{definition=\"serve\"} 1\n";
    eventually("it runs", || worker.get("/metrics").contains(running)).await;
    worker.terminate();
    let (code, log) = worker.end().await;
    assert_eq!(code, Some(0), "its handler would take two minutes more: {log}");
    let status = stuck.status().await.unwrap();
    let tally = status.tally().unwrap();
    assert_eq!((tally.hand_backs, tally.attempts, tally.losses), (1, 0, 0), "{log}");
}

#[tokio::test]
async fn a_worker_process_says_which_variable_is_wrong_and_what_to_set() {
    for (variable, said) in [
        (
            ("BELLOWS_ETCD_ENDPOINTS", ""),
            "Error: BELLOWS_ETCD_ENDPOINTS is not set: set it to the registry's",
        ),
        (("BELLOWS_ETCD_ENDPOINTS", "https://etcd:2379"), "TLS to etcd is not supported yet: use http://"),
        (("BELLOWS_LOG_FORMAT", "xml"), "Error: BELLOWS_LOG_FORMAT=\"xml\" is neither text nor json"),
        (
            ("BELLOWS_DEFINITION", "other"),
            "Error: BELLOWS_DEFINITION=\"other\" is not what this program does: serve",
        ),
    ] {
        let worker = WorkerProcess::spawn(&[("BELLOWS_ETCD_ENDPOINTS", "http://127.0.0.1:9"), variable]);
        let (code, log) = worker.end().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(said), "{log}");
    }
}

/// Not a test: the process of the tests above, which begin this program anew.
#[test]
#[ignore = "is the worker process of other tests"]
fn worker_process() {
    process::child::main();
}

/// The quickstart example is the README's first command: it must do what it says.
#[test]
fn the_quickstart_says_what_a_newcomer_should_see() {
    // Cargo builds examples beside the tests, and a folder above this program's.
    let built = std::env::current_exe().unwrap();
    let example = built.ancestors().nth(2).unwrap().join("examples/quickstart");
    let folder = tempfile::tempdir().unwrap();
    let run =
        Command::new(&example).arg(folder.path().join("quickstart.redb")).output().unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo test` without `--test` builds it", example.display())
        });
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    for line in [
        "published greet(\"Ada\")",
        "Hello, Ada!",
        "Hello, Grace!",
        "was parked after 1 attempts: nobody to greet",
    ] {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
}
