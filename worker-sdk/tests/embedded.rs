//! Everything in one process over one file, and what is there when it is opened again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::backend::{Backend, RangeRequest};
use bellows_registry::clock;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{PolicyRecord, Record};
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Backoff, Execution, Retry, Span};
use bellows_sdk::{
    ConnectError, DispatcherHandle, EmbeddedBackend, OpenError, Options, Policy, PublishError, TaskStatus,
    WaitError,
};
use tempfile::TempDir;
use tokio::sync::Notify;

struct Act;

impl TaskDefinition for Act {
    const NAME: &'static str = "act";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

const SOON: Duration = Duration::from_secs(20);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tasks.redb")
    }

    /// The file itself, once whoever had it open has let go of it.
    async fn backend(&self) -> EmbeddedBackend {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match EmbeddedBackend::open(self.file()).await {
                Ok(backend) => return backend,
                Err(error) => assert!(matches!(error, OpenError::InUse { .. }), "{error}"),
            }
        }
    }

    async fn open(&self) -> Bellows {
        Bellows::embedded_with(self.file(), impatient()).await.unwrap()
    }
}

fn impatient() -> Options {
    Options { lease_ttl: Duration::from_secs(2), ..Options::default() }
}

fn policy() -> Policy {
    let backoff = Backoff { initial: Span::millis(10), ..Backoff::default() };
    let retry = Retry { max_attempts: 3, backoff };
    Policy { execution: Execution { retry, ..Execution::default() }, ..Policy::default() }
}

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(format!("{text}!").into())
}

async fn worker<F, R>(bellows: &Bellows, act: F) -> DispatcherHandle
where
    F: Fn(TaskContext, String) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = TaskResult<String>> + Send + 'static,
{
    let tasks = Tasks::new().with_fn::<Act, _, _>(act).policy(policy());
    WorkerDispatcher::of(bellows, tasks).concurrency(2).launch().await.unwrap()
}

/// Drains the worker and lets go of everything that holds the file.
async fn close(bellows: Bellows, worker: DispatcherHandle) {
    worker.drain(Duration::from_millis(100)).await.unwrap();
    drop(bellows);
}

#[tokio::test]
async fn a_file_has_publisher_assigner_and_worker_in_one_process() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let _worker = worker(&bellows, echo).await;
    let task = bellows.publish::<Act>("hello".into()).await.unwrap();
    assert_eq!(task.wait_timeout(SOON).await.unwrap(), "hello!");
}

#[tokio::test]
async fn tasks_that_wait_are_run_after_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    bellows.define::<Act>(policy()).await.unwrap();
    let mut saved = Vec::new();
    for n in 0..20 {
        saved.push(bellows.publish::<Act>(n.to_string()).await.unwrap().to_ref());
    }
    drop(bellows);
    let bellows = folder.open().await;
    let _worker = worker(&bellows, echo).await;
    for (n, task) in saved.into_iter().enumerate() {
        assert_eq!(bellows.task(task).wait_timeout(SOON).await.unwrap(), format!("{n}!"));
    }
}

#[tokio::test]
async fn results_are_there_after_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let first = worker(&bellows, echo).await;
    let task = bellows.publish::<Act>("hello".into()).await.unwrap();
    let saved = task.to_ref();
    assert_eq!(task.await.unwrap(), "hello!");
    close(bellows, first).await;
    let bellows = folder.open().await;
    assert_eq!(bellows.task(saved).try_result().await.unwrap().as_deref(), Some("hello!"));
}

#[tokio::test]
async fn parked_tasks_and_their_errors_are_there_after_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let first =
        worker(&bellows, |_: TaskContext, _: String| async { Err(TaskFailure::park("hopeless")) }).await;
    let task = bellows.publish::<Act>("x".into()).await.unwrap();
    task.wait_timeout(SOON).await.unwrap_err();
    let saved = task.to_ref();
    drop(task);
    close(bellows, first).await;
    let bellows = folder.open().await;
    let Err(WaitError::Failed(failed)) = bellows.task(saved).wait_timeout(SOON).await else { panic!() };
    assert_eq!(failed.errors[0].message, "hopeless");
}

#[tokio::test]
async fn attempts_go_on_counting_after_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let failing = |context: TaskContext, _: String| async move {
        match context.attempt() {
            1 => Err(TaskFailure::retry_after(Duration::from_secs(1), "not yet")),
            n => Ok(n.to_string().into()),
        }
    };
    let first = worker(&bellows, failing).await;
    let task = bellows.publish::<Act>("x".into()).await.unwrap();
    // It may be further when a busy machine looks.
    let has_failed = |status: &TaskStatus| status.tally().is_some_and(|tally| tally.attempts >= 1);
    let until_it_failed = async {
        while !has_failed(&task.status().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, until_it_failed).await.unwrap();
    let saved = task.to_ref();
    drop(task);
    close(bellows, first).await;
    let bellows = folder.open().await;
    let _second = worker(&bellows, failing).await;
    let outcome = tokio::time::timeout(SOON, bellows.task(saved).outcome()).await.unwrap().unwrap();
    assert_eq!((outcome.attempt, outcome.tally.errors.len()), (2, 1));
    assert_eq!(outcome.tally.errors[0].message, "not yet");
}

#[tokio::test]
async fn a_delay_is_kept_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    bellows.define::<Act>(policy()).await.unwrap();
    let wait = Duration::from_millis(1200);
    let began = tokio::time::Instant::now();
    let saved = bellows.publish::<Act>("later".into()).delay(wait).await.unwrap().to_ref();
    drop(bellows);
    let bellows = folder.open().await;
    let _worker = worker(&bellows, echo).await;
    let result = bellows.task(saved).wait_timeout(SOON).await.unwrap();
    // Listed, it goes by the writer's wall clock, in whole milliseconds.
    assert!(began.elapsed() + Duration::from_millis(5) >= wait, "it ran after {:?}", began.elapsed());
    assert_eq!(result, "later!");
}

#[tokio::test]
async fn what_ran_when_the_file_was_let_go_runs_again_and_no_attempt_is_charged() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let began = Arc::new(Notify::new());
    let says = Arc::clone(&began);
    let stuck = move |_: TaskContext, _: String| {
        let says = Arc::clone(&says);
        async move {
            says.notify_one();
            std::future::pending::<()>().await;
            Ok(String::new().into())
        }
    };
    let first = worker(&bellows, stuck).await;
    let task = bellows.publish::<Act>("x".into()).await.unwrap();
    tokio::time::timeout(SOON, began.notified()).await.unwrap();
    let saved = task.to_ref();
    drop((task, first, bellows)); // a crash: no word to anybody
    let bellows = folder.open().await;
    let _second = worker(&bellows, echo).await;
    let outcome = tokio::time::timeout(SOON, bellows.task(saved).outcome()).await.unwrap().unwrap();
    // The dead worker's live key vanished at the opening: nobody waits for its lease.
    assert_eq!((outcome.attempt, outcome.tally.attempts, outcome.tally.losses), (1, 0, 1));
}

#[tokio::test]
async fn a_policy_is_there_after_the_file_is_opened_again() {
    let folder = Folder::new();
    let bellows = folder.open().await;
    let refuses = bellows.publish::<Act>("x".into()).await.unwrap_err();
    assert!(matches!(refuses, PublishError::NoSuchDefinition(_)), "{refuses}");
    bellows.define::<Act>(policy()).await.unwrap();
    drop(bellows);
    let bellows = folder.open().await;
    bellows.publish::<Act>("x".into()).await.unwrap();
}

#[tokio::test]
async fn a_finished_task_published_again_after_the_file_is_opened_again_is_the_same_task() {
    let folder = Folder::new();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let act = move |_: TaskContext, text: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(text.into()) }
    };
    let bellows = folder.open().await;
    let first = worker(&bellows, act.clone()).await;
    let task = bellows.publish::<Act>("once".into()).await.unwrap();
    let raw = task.to_ref().raw().clone();
    task.wait_timeout(SOON).await.unwrap();
    drop(task);
    close(bellows, first).await;
    let bellows = folder.open().await;
    let _second = worker(&bellows, act).await;
    let again = bellows.publish::<Act>("twice".into()).again(&raw).await.unwrap();
    assert_eq!(again.wait_timeout(SOON).await.unwrap(), "once");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_second_opening_is_refused_and_names_the_file() {
    let folder = Folder::new();
    let _first = folder.open().await;
    let refused = Bellows::embedded(folder.file()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::File(_)), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains(&folder.file().display().to_string()) && said.contains("is in use"), "{said}");
}

#[tokio::test]
async fn a_bad_namespace_is_refused_before_the_file_is_made() {
    let folder = Folder::new();
    let options = Options { namespace: "No Name".to_owned(), ..Options::default() };
    let refused = Bellows::embedded_with(folder.file(), options).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Name(_)), "{refused:?}");
    assert!(!folder.file().exists());
}

#[tokio::test(start_paused = true)]
async fn results_past_their_retention_are_removed_from_the_file_too() {
    let folder = Folder::new();
    let _wall = clock::wall_follows_instant();
    let backend = Arc::new(EmbeddedBackend::open(folder.file()).await.unwrap());
    let bellows = Bellows::hosted(backend.clone(), impatient()).unwrap();
    let first = worker(&bellows, echo).await;
    assert_eq!(bellows.publish::<Act>("x".into()).await.unwrap().await.unwrap(), "x!");
    let results = || RangeRequest::new(Keyspace::default().all_outcomes_range());
    assert_eq!(backend.range(results()).await.unwrap().entries.len(), 1);
    tokio::time::sleep(Duration::from_secs(700)).await; // ten minutes, and a pass of the upkeep
    assert_eq!(backend.range(results()).await.unwrap().entries, []);
    close(bellows, first).await;
    drop(backend);
    let backend = folder.backend().await;
    assert_eq!(backend.range(results()).await.unwrap().entries, []);
}

/// A handler that blocks the only thread of the user's runtime for longer than its lease
/// lives without a renewal.
#[test]
fn a_handler_that_blocks_every_thread_costs_no_lease_over_a_file_either() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ttl = Duration::from_secs(4); // a busy machine costs no lease either
    let outcome = runtime.block_on(async {
        let options = Options { lease_ttl: ttl, ..impatient() };
        let bellows = Bellows::embedded_with(folder.file(), options).await.unwrap();
        let block = move |_: TaskContext, text: String| async move {
            let (_kept, never) = std::sync::mpsc::channel::<()>();
            let _ = never.recv_timeout(ttl + Duration::from_secs(1));
            Ok(text.into())
        };
        let _worker = worker(&bellows, block).await;
        let task = bellows.publish::<Act>("x".into()).await.unwrap();
        tokio::time::timeout(SOON, task.outcome()).await.unwrap().unwrap()
    });
    assert_eq!((outcome.attempt, outcome.tally.losses), (1, 0));
}

#[tokio::test]
async fn a_whole_policy_of_the_program_replaces_the_one_in_the_file() {
    let folder = Folder::new();
    let key = Keyspace::default().path(&Key::Policy(DefinitionId::new("default", "act").unwrap()));
    for timeout in [Span::secs(60), Span::secs(300)] {
        let bellows = folder.open().await;
        let execution = Execution { timeout, ..Execution::default() };
        let policy = Policy { execution, ..Policy::default() };
        let tasks = Tasks::new().with_fn::<Act, _, _>(echo).policy(policy);
        let worker = WorkerDispatcher::of(&bellows, tasks).launch().await.unwrap();
        close(bellows, worker).await;
        let file = folder.backend().await;
        let found = file.range(RangeRequest::new(KeyRange::one(key.clone()))).await.unwrap();
        let record = PolicyRecord::decode(&found.entries[0].value).unwrap();
        assert_eq!(record.policy.execution.timeout, timeout);
    }
}

/// Two slots, and a runtime that has one thread for both. What waits for it until its time
/// is over must not begin then: it may run elsewhere already.
#[test]
fn what_got_no_thread_in_time_is_never_begun() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap();
    let (began, (opens, gate)) = (Arc::new(Mutex::new(Vec::new())), std::sync::mpsc::channel::<()>());
    let (notes, gate) = (Arc::clone(&began), Arc::new(Mutex::new(gate)));
    let act = move |_: TaskContext, text: String| {
        notes.lock().unwrap().push(text.clone());
        if text == "first" {
            let _ = gate.lock().unwrap().recv_timeout(SOON);
        }
        Ok(text.into())
    };
    let retry = Retry { max_attempts: 1, ..Retry::default() };
    let execution = Execution { timeout: Span::secs(1), retry, ..Execution::default() };
    runtime.block_on(async {
        let bellows = Bellows::in_memory();
        let tasks =
            Tasks::new().with_blocking_fn::<Act, _>(act).policy(Policy { execution, ..Policy::default() });
        let _worker = WorkerDispatcher::of(&bellows, tasks).concurrency(2).launch().await.unwrap();
        let first = bellows.publish::<Act>("first".into()).await.unwrap();
        let has_begun = async {
            while began.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, has_begun).await.unwrap();
        let second = bellows.publish::<Act>("second".into()).await.unwrap();
        for task in [first, second] {
            tokio::time::timeout(SOON, task.outcome()).await.unwrap().unwrap();
        }
        opens.send(()).unwrap();
        let last = bellows.publish::<Act>("last".into()).await.unwrap();
        assert_eq!(last.wait_timeout(SOON).await.unwrap(), "last");
    });
    assert_eq!(*began.lock().unwrap(), ["first", "last"]);
}
