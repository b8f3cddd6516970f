//! Three different options: the same task for ever, one active task of a key, and one
//! pending task of a key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellows_registry::backend::{Entry, Op, RangeRequest, Txn};
use bellows_registry::key::KeyRange;
use bellows_registry::testkit::{Fault, puts};
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, NewTask, OnConflict, Publication, PublishError, TaskStatus, WaitError};

use super::gate::Gate;
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    publishing_under_an_idempotency_key_is_the_same_task_from_anywhere,
    an_idempotency_key_counts_as_long_as_the_record_is_kept,
    a_unique_task_is_the_only_active_one_of_its_key,
    a_unique_key_is_free_again_when_its_task_has_ended,
    a_task_that_waits_for_its_next_attempt_keeps_its_unique_key,
    a_parked_task_keeps_its_unique_key,
    a_task_cancelled_by_its_handler_frees_its_unique_key,
    a_cancelled_task_frees_its_unique_key_waiting_or_running,
    a_cancelled_pending_task_frees_its_key_and_nobody_elses,
    a_conflict_can_be_an_error_that_names_the_holder,
    a_unique_publish_whose_answer_is_lost_is_no_conflict_with_itself,
    a_unique_key_is_made_of_the_chosen_fields,
    of_many_publishers_at_once_one_gets_the_unique_key,
    a_pending_task_is_replaced_and_keeps_its_id,
    a_task_that_has_begun_is_not_replaced_and_the_last_payload_runs_too,
    a_debounced_task_runs_once_after_the_last_publish,
    a_replacement_whose_answer_is_lost_is_made_once,
    keys_of_different_use_exclude_each_other_and_never_meet,
    a_key_over_the_limit_is_refused_before_it_is_sent,
    a_refused_publish_takes_no_unique_key,
}

const HOUR: Duration = Duration::from_secs(3600);

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(text.into())
}

/// The keys of one room of `Act`.
async fn there(world: &World, room: &str) -> Vec<Entry> {
    let range = KeyRange::prefix(format!("{}{room}", world.space().prefix()));
    world.store.range(RangeRequest::new(range)).await.unwrap().entries
}

fn said(task: &TaskHandle<Act>) -> Publication {
    task.publication().expect("it was published")
}

async fn publishing_under_an_idempotency_key_is_the_same_task_from_anywhere(world: World) {
    world.define(LONG).await;
    let first = world.bellows.publish::<Act>("first".into()).idempotency_key(("order", 17)).await.unwrap();
    let other = world.other_client();
    let second = other.publish::<Act>("second".into()).idempotency_key(("order", 17)).await.unwrap();
    assert_eq!((said(&first), said(&second)), (Publication::Created, Publication::Already));
    assert_eq!(first.to_ref(), second.to_ref());
    let _worker = world.worker(&world.bellows, 1, echo).await;
    assert_eq!(within(SOON, second).await.unwrap(), "first", "the first payload counts");
    let third = other.publish::<Act>("third".into()).idempotency_key(("order", 17)).await.unwrap();
    assert_eq!(within(SOON, third).await.unwrap(), "first", "a finished task is not run again");
    let different = other.publish::<Act>("x".into()).idempotency_key(("order", 18)).await.unwrap();
    assert_eq!(within(SOON, different).await.unwrap(), "x");
    world.assert_lawful().await;
}

async fn an_idempotency_key_counts_as_long_as_the_record_is_kept(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let publish = |text: &str| world.bellows.publish::<Act>(text.into()).idempotency_key("k");
    let first = publish("first").await.unwrap();
    assert_eq!(within(SOON, first).await.unwrap(), "first");
    let results = KeyRange::prefix(format!("{}r/", world.space().prefix()));
    world.store.txn(Txn { then: vec![Op::Delete(results)], ..Txn::default() }).await.unwrap();
    let second = publish("second").await.unwrap();
    assert_eq!(said(&second), Publication::Created);
    assert_eq!(within(SOON, second).await.unwrap(), "second");
}

async fn a_unique_task_is_the_only_active_one_of_its_key(world: World) {
    world.define(LONG).await;
    let publish = |key: &'static str| world.bellows.publish::<Act>(key.into()).unique(key);
    let first = publish("a").await.unwrap();
    let second = world.other_client().publish::<Act>("else".into()).unique("a").await.unwrap();
    assert_eq!((said(&first), said(&second)), (Publication::Created, Publication::Existing));
    assert_eq!(first.to_ref(), second.to_ref(), "it is the existing one's handle");
    assert_eq!(said(&publish("b").await.unwrap()), Publication::Created, "another key is free");
    assert_eq!(there(&world, "q/default/act/t/").await.len(), 2);
    world.assert_lawful().await;
}

async fn a_unique_key_is_free_again_when_its_task_has_ended(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let mut ids = Vec::new();
    for text in ["first", "second"] {
        let task = world.bellows.publish::<Act>(text.into()).unique("k").await.unwrap();
        assert_eq!(said(&task), Publication::Created);
        ids.push(task.id());
        assert_eq!(within(SOON, task).await.unwrap(), text);
    }
    assert_ne!(ids[0], ids[1], "a new task, not the old one again");
    assert_eq!(there(&world, "q/default/act/u/").await, []);
    world.assert_lawful().await;
}

async fn a_task_that_waits_for_its_next_attempt_keeps_its_unique_key(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let here = gate.clone();
    let act = move |_: TaskContext, _: String| {
        here.arrive();
        async { Err(TaskFailure::retry_after(HOUR, "not now")) }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap();
    gate.reached().await;
    let tally = KeyRange::prefix(format!("{}q/default/act/p/", world.space().prefix()));
    within(SOON, world.some(tally)).await; // it has failed, and that is recorded
    let again = world.bellows.publish::<Act>("y".into()).unique("k").await.unwrap();
    assert_eq!((said(&again), again.id()), (Publication::Existing, task.id()));
    world.assert_lawful().await;
}

async fn a_parked_task_keeps_its_unique_key(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async { Err(TaskFailure::park("hopeless")) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap();
    let ended = within(SOON, task.outcome()).await.unwrap().ended;
    let again = world.bellows.publish::<Act>("y".into()).unique("k").await.unwrap();
    assert_eq!((ended, said(&again), again.id()), (Ended::Parked, Publication::Existing, task.id()));
    world.assert_lawful().await;
}

async fn a_task_cancelled_by_its_handler_frees_its_unique_key(world: World) {
    world.define(LONG).await;
    let act = |_: TaskContext, _: String| async { Err(TaskFailure::cancel("nobody wants it")) };
    let _worker = world.worker(&world.bellows, 1, act).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Cancelled);
    let again = world.bellows.publish::<Act>("y".into()).unique("k").await.unwrap();
    assert_eq!(said(&again), Publication::Created);
    within(SOON, again.outcome()).await.unwrap();
    world.assert_lawful().await;
}

async fn a_cancelled_task_frees_its_unique_key_waiting_or_running(world: World) {
    world.define(LONG).await;
    let publish = || world.bellows.publish::<Act>("x".into()).unique("k");
    let waiting = publish().delay(HOUR).await.unwrap();
    within(SOON, waiting.cancel()).await.unwrap();
    let running = publish().await.unwrap();
    assert_eq!(said(&running), Publication::Created);
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, gate.until_told()).await;
    gate.reached().await;
    assert_eq!(said(&publish().await.unwrap()), Publication::Existing);
    within(SOON, running.cancel()).await.unwrap();
    within(SOON, running.outcome()).await.unwrap();
    let next = publish().delay(HOUR).await.unwrap();
    assert_eq!(said(&next), Publication::Created);
    world.assert_lawful().await;
}

async fn a_cancelled_pending_task_frees_its_key_and_nobody_elses(world: World) {
    world.define(LONG).await;
    let publish = || world.bellows.publish::<Act>("x".into()).replace_pending("k");
    let waiting = publish().delay(HOUR).await.unwrap();
    within(SOON, waiting.cancel()).await.unwrap();
    let running = publish().await.unwrap();
    assert_eq!(said(&running), Publication::Created);
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, gate.until_told()).await;
    gate.reached().await;
    let next = publish().delay(HOUR).await.unwrap();
    within(SOON, running.cancel()).await.unwrap();
    within(SOON, running.outcome()).await.unwrap();
    let last = publish().delay(HOUR).await.unwrap();
    assert_eq!((said(&last), last.id()), (Publication::Replaced, next.id()), "its key is still its own");
    world.assert_lawful().await;
}

async fn a_conflict_can_be_an_error_that_names_the_holder(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap();
    let rival = world.bellows.publish::<Act>("y".into()).unique("k").on_conflict(OnConflict::Fail);
    let PublishError::Conflict { holder } = rival.await.unwrap_err() else { panic!("it is held") };
    assert_eq!(TaskRef::<Act>::from_raw(holder), task.to_ref());
    assert_eq!(there(&world, "q/default/act/t/").await.len(), 1);
}

async fn a_unique_publish_whose_answer_is_lost_is_no_conflict_with_itself(world: World) {
    world.define(LONG).await;
    for (n, fault) in
        [Fault::LoseAnswer, Fault::Drop, Fault::ApplyLate(Duration::from_millis(300))].into_iter().enumerate()
    {
        let (client, link) = world.client_over_a_bad_link();
        link.next_txn(puts(format!("{}q/", world.space().prefix())), fault);
        let task = client.publish::<Act>("x".into()).unique(n).on_conflict(OnConflict::Fail).await.unwrap();
        assert_eq!(link.pending(), 0, "the fault met its request");
        assert_eq!(said(&task), Publication::Created);
    }
    world.assert_lawful().await;
}

#[derive(Serialize, Deserialize)]
struct Sync {
    user: u64,
    why: String,
}

struct SyncUser;

impl TaskDefinition for SyncUser {
    const NAME: &'static str = "sync-user";
    type Callback = ();
    type Trigger = PublishTrigger<Sync>;
}

async fn a_unique_key_is_made_of_the_chosen_fields(world: World) {
    world.bellows.define::<SyncUser>(bellows_sdk::Policy::default()).await.unwrap();
    let publish = |user, why: &str| {
        let payload = Sync { user, why: why.into() };
        world.bellows.publish::<SyncUser>(payload).unique_by(|sync| sync.user)
    };
    let first = publish(7, "login").await.unwrap();
    let same = publish(7, "nightly").await.unwrap();
    let other = publish(8, "login").await.unwrap();
    assert_eq!(same.id(), first.id());
    assert_ne!(other.id(), first.id());
}

async fn of_many_publishers_at_once_one_gets_the_unique_key(world: World) {
    world.define(LONG).await;
    let publish = |n: usize| {
        let client = world.other_client();
        async move { client.publish::<Act>(n.to_string()).unique("k").await.unwrap() }
    };
    let tasks = futures::future::join_all((0..20).map(publish)).await;
    let created = tasks.iter().filter(|task| said(task) == Publication::Created).count();
    assert_eq!(created, 1);
    assert!(tasks.iter().all(|task| task.to_ref() == tasks[0].to_ref()));
    assert_eq!(there(&world, "q/default/act/t/").await.len(), 1);
    world.assert_lawful().await;
}

async fn a_pending_task_is_replaced_and_keeps_its_id(world: World) {
    world.define(LONG).await;
    let publish = |text: &str| world.bellows.publish::<Act>(text.into()).replace_pending("k");
    let first = publish("first").delay(HOUR).await.unwrap();
    let other = world.other_client();
    let second = other.publish::<Act>("second".into()).replace_pending("k").delay(HOUR).await.unwrap();
    assert_eq!((said(&second), second.to_ref()), (Publication::Replaced, first.to_ref()));
    // The delay is replaced too.
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let last = publish("last").await.unwrap();
    assert_eq!(said(&last), Publication::Replaced);
    assert_eq!(within(SOON, first).await.unwrap(), "last", "whoever awaits the first gets the last");
    assert_eq!(there(&world, "r/").await.len(), 1, "it ran once");
    world.assert_lawful().await;
}

async fn a_task_that_has_begun_is_not_replaced_and_the_last_payload_runs_too(world: World) {
    world.define(LONG).await;
    let gate = Gate::default();
    let _worker = world.worker(&world.bellows, 1, gate.holding("first")).await;
    let publish = |text: &str| world.bellows.publish::<Act>(text.into()).replace_pending("k");
    let first = publish("first").await.unwrap();
    gate.reached().await;
    let second = publish("second").await.unwrap();
    assert_eq!(said(&second), Publication::Created);
    let third = publish("third").await.unwrap();
    assert_eq!((said(&third), third.id()), (Publication::Replaced, second.id()));
    world.assert_lawful().await;
    gate.open();
    assert_eq!(within(SOON, first).await.unwrap(), "first");
    assert_eq!(within(SOON, third).await.unwrap(), "third");
    world.assert_lawful().await;
}

async fn a_debounced_task_runs_once_after_the_last_publish(world: World) {
    world.define(LONG).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let act = move |_: TaskContext, text: String| {
        notes.lock().unwrap().push(text.clone());
        async move { Ok(text.into()) }
    };
    let _worker = world.worker(&world.bellows, 1, act).await;
    // Longer than a busy machine takes from one publish to the next.
    let wait = world.paused_or_real(Duration::from_millis(700), Duration::from_secs(4));
    let mut last = None;
    for text in ["a", "b", "c"] {
        last = Some(world.bellows.publish::<Act>(text.into()).debounce("k", wait).await.unwrap());
    }
    let published = tokio::time::Instant::now();
    assert_eq!(within(SOON, last.unwrap()).await.unwrap(), "c");
    assert!(published.elapsed() >= wait - Duration::from_millis(50), "after {:?}", published.elapsed());
    assert_eq!(*seen.lock().unwrap(), ["c"]);
}

async fn a_replacement_whose_answer_is_lost_is_made_once(world: World) {
    world.define(LONG).await;
    let first = world.bellows.publish::<Act>("first".into()).replace_pending("k").delay(HOUR).await.unwrap();
    let (client, link) = world.client_over_a_bad_link();
    // The publish is refused, since the key is held; the replacement is what puts.
    link.next_txn(puts(format!("{}q/default/act/u/", world.space().prefix())), Fault::LoseAnswer);
    let second = client.publish::<Act>("second".into()).replace_pending("k").delay(HOUR).await.unwrap();
    assert_eq!(link.pending(), 0, "the fault met its request");
    assert_eq!((said(&second), second.to_ref()), (Publication::Replaced, first.to_ref()));
    assert_eq!(there(&world, "q/default/act/t/").await.len(), 1);
    world.assert_lawful().await;
}

async fn keys_of_different_use_exclude_each_other_and_never_meet(world: World) {
    world.define(LONG).await;
    let publish = || world.bellows.publish::<Act>("x".into());
    for mixed in [
        publish().unique("k").idempotency_key("k"),
        publish().replace_pending("k").unique("k"),
        publish().idempotency_key("k").debounce("k", HOUR),
        publish().unique("k").unique("l"),
    ] {
        let refused = mixed.await.unwrap_err();
        assert!(refused.to_string().contains("exclude each other"), "{refused}");
    }
    // What an unanswered replacement names may be another's, with another payload.
    let named = world.bellows.publish::<Act>("named".into()).delay(HOUR).await.unwrap();
    let refused = publish().replace_pending("k").again(named.to_ref().raw()).await.unwrap_err();
    assert!(refused.to_string().contains("without again"), "{refused}");
    named.cancel().await.unwrap();
    assert_eq!(there(&world, "q/default/act/t/").await, [], "nothing was written");
    for alone in
        [publish().unique("k"), publish().replace_pending("k").delay(HOUR), publish().idempotency_key("k")]
    {
        assert_eq!(said(&alone.await.unwrap()), Publication::Created);
    }
    world.assert_lawful().await;
}

async fn a_key_over_the_limit_is_refused_before_it_is_sent(world: World) {
    let long = "x".repeat(2000);
    let publish = || NewTask::<Act>::new("x".into());
    for (task, what) in [
        (publish().unique(&long), "the unique key"),
        (publish().debounce(&long, HOUR), "the unique key"),
        (publish().idempotency_key(&long), "the idempotency key"),
    ] {
        let verdict = world.bellows.publish_many([task]).await.remove(0);
        assert_eq!(verdict.unwrap_err().to_string(), format!("{what} has 2002 bytes; the limit is 1024"));
    }
    let id = bellows_sdk::TaskId::from_bits(7);
    let refused = world.bellows.publish::<Act>("x".into()).idempotency_key("k").as_task(id).await;
    assert!(matches!(refused, Err(PublishError::Invalid(_))));
}

async fn a_refused_publish_takes_no_unique_key(world: World) {
    let refused = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap_err();
    assert!(matches!(refused, PublishError::NoSuchDefinition(_)), "{refused}");
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("k").await.unwrap();
    assert_eq!(said(&task), Publication::Created);
    assert!(!matches!(task.status().await.unwrap(), TaskStatus::NotFound));
    assert!(matches!(task.wait_timeout(Duration::from_millis(10)).await, Err(WaitError::TimedOut(_))));
}
