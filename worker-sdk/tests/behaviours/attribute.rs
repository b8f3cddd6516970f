//! Tasks made by `#[task]`: what the function, its state and its options come to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{PolicyRecord, Record};
use bellows_sdk::prelude::*;
use bellows_sdk::spec::{Policy, Span};
use bellows_sdk::{DispatcherError, DispatcherHandle, Ended, ErrorKind, Tasks, WaitError};

use super::world::{SOON, World, within};

behaviours! {
    a_function_by_attribute_is_published_by_its_own_name,
    an_error_by_question_mark_is_tried_again,
    a_verdict_survives_the_question_mark,
    state_is_found_by_its_type_whenever_it_was_given,
    missing_state_keeps_a_worker_from_starting,
    a_handler_may_fail_with_any_error_of_its_own,
    several_tasks_of_a_program_share_its_state,
    a_singleton_by_attribute_runs_by_itself,
    the_attributes_time_out_and_attempts_hold,
    the_attribute_is_the_definition_where_the_process_hosts_the_registry,
    a_newer_attribute_is_written_over_an_older_definition,
    a_tasks_name_and_not_its_function_finds_the_work,
    what_code_and_definition_say_differently_is_told_and_is_no_error,
    a_worker_of_a_definition_that_is_not_there_says_so,
    a_blocking_task_by_attribute_has_a_thread_of_its_own,
    upgrades_by_attribute_bring_an_older_payload_up,
    a_task_published_under_an_alias_is_done,
}

/// What the handlers of these tests share: it counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU32);

impl Counter {
    fn up(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Another state, of another type.
pub(crate) struct Greeting(&'static str);

#[task(
    name = "greet",
    timeout = "10s",
    max_attempts = 3,
    concurrency = 4,
    backoff(initial = "50ms", factor = 2, max = "1s", jitter = "0%"),
    retention(succeeded = "5m")
)]
async fn greet(
    context: TaskContext,
    words: State<Greeting>,
    name: String,
    count: State<Counter>,
) -> Result<String, TaskError> {
    let nth = count.up();
    match name.as_str() {
        "busy" if context.attempt() == 1 => Err(anyhow::anyhow!("the line is busy"))?,
        "nobody" => Err(TaskError::park("nobody to greet"))?,
        _ => {}
    }
    Ok(format!("{} {name} ({nth}, attempt {})", words.0, context.attempt()))
}

async fn launch(world: &World, tasks: Tasks) -> DispatcherHandle {
    let mut worker = WorkerDispatcher::of(&world.bellows, tasks).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    worker
}

fn greeters() -> Tasks {
    tasks![greet].with_state(Greeting("Hello")).with_state(Counter::default())
}

async fn policy_of(world: &World, name: &str) -> Policy {
    let def = bellows_registry::id::DefinitionId::new("default", name).unwrap();
    let key = KeyRange::one(world.space().path(&Key::Policy(def)));
    PolicyRecord::decode(&world.some(key).await[0].value).unwrap().policy
}

pub(crate) async fn a_function_by_attribute_is_published_by_its_own_name(world: World) {
    let _worker = launch(&world, greeters()).await;
    let task = world.bellows.publish::<greet>("Ada".to_owned()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Hello Ada (1, attempt 1)");
    let task =
        greet::publish(&world.bellows, "Grace".to_owned()).delay(Duration::from_millis(20)).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Hello Grace (2, attempt 1)");
    world.assert_lawful().await;
}

pub(crate) async fn an_error_by_question_mark_is_tried_again(world: World) {
    let _worker = launch(&world, greeters()).await;
    let task = world.bellows.publish::<greet>("busy".to_owned()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Hello busy (2, attempt 2)");
}

pub(crate) async fn a_verdict_survives_the_question_mark(world: World) {
    let _worker = launch(&world, greeters()).await;
    let task = world.bellows.publish::<greet>("nobody".to_owned()).await.unwrap();
    let Err(WaitError::Failed(failed)) = within(SOON, task).await else { panic!("it must fail") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
    assert_eq!(failed.errors[0].message, "nobody to greet");
}

pub(crate) async fn state_is_found_by_its_type_whenever_it_was_given(world: World) {
    // Before the task, after it, and the later of two of one type.
    let tasks = Tasks::new().with_state(Counter::default()).with_task::<greet>();
    let tasks = tasks.with_state(Greeting("Hi")).with_state(Greeting("Good day"));
    let _worker = launch(&world, tasks).await;
    let task = world.bellows.publish::<greet>("Ada".to_owned()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Good day Ada (1, attempt 1)");
}

pub(crate) async fn missing_state_keeps_a_worker_from_starting(world: World) {
    let tasks = tasks![greet].with_state(Counter::default());
    let Err(DispatcherError::State(missing)) = WorkerDispatcher::of(&world.bellows, tasks).launch().await
    else {
        panic!("it must not start");
    };
    assert_eq!(missing.task, "greet");
    assert!(missing.type_name.ends_with("Greeting"), "{missing}");
    let said = missing.to_string();
    assert!(said.starts_with("task greet needs State<") && said.contains(".with_state("), "{said}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    total: u32,
}

#[derive(Debug)]
struct Odd(u32);

impl std::fmt::Display for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is odd", self.0)
    }
}

impl std::error::Error for Odd {}

/// Fails with an error of its own; its success is a verdict.
#[task(name = "add", max_attempts = 1)]
async fn add(numbers: Vec<u32>, count: State<Counter>) -> Result<TaskSuccess<Sum>, Odd> {
    count.up();
    match numbers.iter().find(|number| *number % 2 == 1) {
        Some(odd) => Err(Odd(*odd)),
        None => Ok(TaskSuccess::done(Sum { total: numbers.iter().sum() })),
    }
}

pub(crate) async fn a_handler_may_fail_with_any_error_of_its_own(world: World) {
    let _worker = launch(&world, tasks![add].with_state(Counter::default())).await;
    let even = world.bellows.publish::<add>(vec![2, 4]).await.unwrap();
    let odd = world.bellows.publish::<add>(vec![2, 5]).await.unwrap();
    assert_eq!(within(SOON, even).await.unwrap(), Sum { total: 6 });
    let Err(WaitError::Failed(failed)) = within(SOON, odd).await else { panic!("it must fail") };
    assert_eq!((failed.ended, failed.errors[0].message.as_str()), (Ended::Parked, "5 is odd"));
}

pub(crate) async fn several_tasks_of_a_program_share_its_state(world: World) {
    let tasks = tasks![greet, add].with_state(Greeting("Hello")).with_state(Counter::default());
    assert_eq!(tasks.names(), ["greet", "add"]);
    let _worker = launch(&world, tasks).await;
    let sum = world.bellows.publish::<add>(vec![2]).await.unwrap();
    assert_eq!(within(SOON, sum).await.unwrap().total, 2);
    let greeting = world.bellows.publish::<greet>("Ada".to_owned()).await.unwrap();
    assert_eq!(within(SOON, greeting).await.unwrap(), "Hello Ada (2, attempt 1)", "add counted before");
}

/// Runs by itself; the second time it says when again.
#[task(singleton, name = "tick")]
async fn tick(count: State<Arc<Counter>>) -> Result<TaskSuccess<()>, TaskError> {
    let again = if count.up() == 1 { Duration::from_secs(1) } else { Duration::from_secs(3600) };
    Ok(TaskSuccess::run_again_after((), again))
}

pub(crate) async fn a_singleton_by_attribute_runs_by_itself(world: World) {
    let count = Arc::new(Counter::default());
    let _worker = launch(&world, tasks![tick].with_state(Arc::clone(&count))).await;
    within(SOON, async {
        while count.0.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(policy_of(&world, "tick").await.trigger, bellows_sdk::spec::Trigger::Singleton);
}

#[task(name = "slow", timeout = "1s", max_attempts = 1)]
async fn slow(_: ()) -> Result<(), TaskError> {
    std::future::pending().await
}

pub(crate) async fn the_attributes_time_out_and_attempts_hold(world: World) {
    let _worker = launch(&world, tasks![slow]).await;
    let task = world.bellows.publish::<slow>(()).await.unwrap();
    let Err(WaitError::Failed(failed)) = within(SOON, task).await else { panic!("it must fail") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
    assert_eq!(failed.errors[0].kind, ErrorKind::TimedOut);
}

pub(crate) async fn the_attribute_is_the_definition_where_the_process_hosts_the_registry(world: World) {
    let _worker = launch(&world, greeters()).await;
    let policy = policy_of(&world, "greet").await;
    let (execution, retry) = (&policy.execution, &policy.execution.retry);
    assert_eq!((execution.timeout, retry.max_attempts), (Span::secs(10), 3));
    assert_eq!((retry.backoff.initial, retry.backoff.max), (Span::millis(50), Span::secs(1)));
    assert_eq!(policy.retention.succeeded, Span::secs(300));
    assert_eq!(policy.retention.failed, Policy::default().retention.failed, "not stated: the default");
}

pub(crate) async fn a_newer_attribute_is_written_over_an_older_definition(world: World) {
    let mut older = Policy::default();
    older.execution.timeout = Span::secs(77);
    older.execution.max_disruptions = 9;
    world.bellows.define::<greet>(older).await.unwrap();
    let _worker = launch(&world, greeters()).await;
    let policy = policy_of(&world, "greet").await;
    assert_eq!(policy.execution.timeout, Span::secs(10), "stated by the attribute");
    assert_eq!(policy.execution.max_disruptions, 9, "not stated: stays");
}

mod renamed {
    use bellows_sdk::prelude::*;

    /// The same work under another function's name, written by hand.
    pub(super) struct Salute;

    impl TaskDefinition for Salute {
        const NAME: &'static str = "greet";
        type Callback = String;
        type Trigger = PublishTrigger<String>;
    }
}

pub(crate) async fn a_tasks_name_and_not_its_function_finds_the_work(world: World) {
    let _worker = launch(&world, greeters()).await;
    let task = world.bellows.publish::<renamed::Salute>("Ada".to_owned()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Hello Ada (1, attempt 1)");
}

/// What a worker whose registry is elsewhere says of its definitions, once it says so much.
async fn drift(worker: &DispatcherHandle, lines: usize) -> Vec<String> {
    within(SOON, async {
        while worker.drift().len() != lines {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    worker.drift().iter().map(ToString::to_string).collect()
}

pub(crate) async fn what_code_and_definition_say_differently_is_told_and_is_no_error(world: World) {
    let mut policy = Policy::default();
    policy.execution.timeout = Span::secs(45);
    world.bellows.define::<greet>(policy.clone()).await.unwrap();
    let elsewhere = world.other_client();
    let mut worker = WorkerDispatcher::of(&elsewhere, greeters()).launch().await.unwrap();
    within(SOON, worker.ready()).await;
    // The time-out, the attempts, three of the back-off, the retention.
    let said = drift(&worker, 6).await;
    let line =
        "execution.timeout of default/greet is 10s in the code and 45s in the TaskDefinition, which counts";
    assert!(said.iter().any(|said| said == line), "{said:#?}");
    let task = elsewhere.publish::<greet>("Ada".to_owned()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "Hello Ada (1, attempt 1)", "it works all the same");
    // A change of the definition is seen without a restart.
    policy.execution.timeout = Span::secs(10);
    world.bellows.define::<greet>(policy).await.unwrap();
    let said = drift(&worker, 5).await;
    assert!(said.iter().all(|said| !said.starts_with("execution.timeout")), "{said:#?}");
}

pub(crate) async fn a_worker_of_a_definition_that_is_not_there_says_so(world: World) {
    let elsewhere = world.other_client();
    let worker = WorkerDispatcher::of(&elsewhere, greeters()).launch().await.unwrap();
    let said = drift(&worker, 1).await;
    assert_eq!(said, ["there is no TaskDefinition default/greet: apply what --print-manifest prints"]);
}

/// Which threads: the handler's, before it awaits and after.
#[task(name = "thread", blocking = true)]
async fn thread(_: (), caller: State<std::thread::ThreadId>) -> Result<bool, TaskError> {
    let first = std::thread::current().id();
    tokio::task::yield_now().await;
    Ok(first == std::thread::current().id() && first != *caller)
}

pub(crate) async fn a_blocking_task_by_attribute_has_a_thread_of_its_own(world: World) {
    let _worker = launch(&world, tasks![thread].with_state(std::thread::current().id())).await;
    let task = world.bellows.publish::<thread>(()).await.unwrap();
    assert!(within(SOON, task).await.unwrap(), "one thread throughout, and not the runtime's");
}

mod photo {
    use bellows_sdk::prelude::*;

    #[derive(Serialize, Deserialize)]
    pub(super) struct V1 {
        pub(super) path: String,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct V2 {
        path: String,
        size: (u32, u32),
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Photo {
        path: String,
        width: u32,
    }

    fn from_v1(old: V1) -> V2 {
        V2 { path: old.path, size: (320, 240) }
    }

    #[task(name = "shrink", version = 3, upgrade(from_v1, from_v2))]
    pub(super) async fn shrink(photo: Photo) -> Result<String, TaskError> {
        Ok(format!("{}@{}", photo.path, photo.width))
    }

    fn from_v2(old: V2) -> Photo {
        Photo { path: old.path, width: old.size.0 }
    }

    /// As it was, under its first version.
    #[task(name = "shrink")]
    pub(super) async fn older(photo: V1) -> Result<String, TaskError> {
        Ok(photo.path)
    }

    /// As it is called now.
    #[task(name = "resize", alias = "shrink", version = 3, upgrade(from_v1, from_v2))]
    pub(super) async fn resize(photo: Photo) -> Result<String, TaskError> {
        Ok(format!("{} resized to {}", photo.path, photo.width))
    }
}

pub(crate) async fn upgrades_by_attribute_bring_an_older_payload_up(world: World) {
    let _worker = launch(&world, tasks![photo::shrink]).await;
    let old = photo::V1 { path: "a.png".to_owned() };
    let task = world.bellows.publish::<photo::older>(old).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "a.png@320");
}

pub(crate) async fn a_task_published_under_an_alias_is_done(world: World) {
    world.bellows.define::<photo::older>(Policy::default()).await.unwrap();
    let old = photo::V1 { path: "a.png".to_owned() };
    let task = world.bellows.publish::<photo::older>(old).await.unwrap();
    let _worker = launch(&world, tasks![photo::resize]).await;
    assert_eq!(within(SOON, task).await.unwrap(), "a.png resized to 320");
}
