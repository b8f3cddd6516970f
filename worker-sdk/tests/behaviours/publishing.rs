//! Publishing, and awaiting what became of it.

use std::time::Duration;

use bellows_registry::backend::{Op, RangeRequest, Txn};
use bellows_registry::key::KeyRange;
use bellows_registry::testkit::{Fault, Rates, puts};
use bellows_sdk::prelude::*;
use bellows_sdk::spec::Mode;
use bellows_sdk::{Ended, Policy, PublishError, TaskStatus, WaitError};

use tokio::time::sleep;

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_published_task_gives_its_typed_result,
    a_saved_ref_is_awaited_by_another_client,
    a_publisher_awaits_all_its_tasks_by_one_watch,
    a_delayed_task_is_not_run_before_its_time,
    headers_and_a_large_payload_arrive,
    publishing_again_under_the_same_id_is_the_same_task,
    a_publish_whose_answer_is_lost_is_one_task,
    an_unknown_definition_is_refused_and_nothing_is_written,
    a_registry_that_does_not_say_why_it_refuses_is_no_unknown_definition,
    a_payload_over_the_limit_is_refused_before_it_is_sent,
    a_task_that_never_existed_is_not_found,
    a_definition_on_hold_and_drain_takes_no_tasks,
    an_unknown_outcome_is_settled_by_publishing_again_from_elsewhere,
    a_parked_task_is_known_for_longer_than_its_record,
    a_result_is_not_there_before_the_task_has_ended,
}

behaviours! {
    paused_only: a_result_whose_signal_was_lost_is_found_by_the_slow_look,
}

async fn echo(_: TaskContext, text: String) -> TaskResult<String> {
    Ok(format!("{text}!").into())
}

async fn a_published_task_gives_its_typed_result(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 4, echo).await;
    let task = world.bellows.publish::<Act>("hello".into()).await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "hello!");
    world.assert_lawful().await;
}

async fn a_saved_ref_is_awaited_by_another_client(world: World) {
    world.define(LONG).await;
    let task = world.other_client().publish_awaitable::<Act>("later".into()).await.unwrap();
    let saved = serde_json::to_string(&task.to_ref()).unwrap();
    drop(task);
    let other = world.other_client();
    let task: AwaitableTask<Act> = other.task(serde_json::from_str(&saved).unwrap());
    let waiting = within(SOON, task);
    let (result, _worker) = tokio::join!(waiting, world.worker(&world.bellows, 1, echo));
    assert_eq!(result.unwrap(), "later!");
    // And once more, long after it ended.
    let task = world.other_client().task::<Act>(serde_json::from_str(&saved).unwrap());
    assert_eq!(within(SOON, task).await.unwrap(), "later!");
}

async fn a_publisher_awaits_all_its_tasks_by_one_watch(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let _worker = world.worker(&world.bellows, 1, echo).await;
    for _ in 0..5 {
        let task = client.publish::<Act>("x".into()).await.unwrap();
        assert_eq!(within(SOON, task).await.unwrap(), "x!");
    }
    assert_eq!(link.inner().result_watches(), 1);
}

async fn a_delayed_task_is_not_run_before_its_time(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let wait = Duration::from_millis(1500);
    let began = tokio::time::Instant::now();
    let task = world.bellows.publish::<Act>("x".into()).delay(wait).await.unwrap();
    within(SOON, task).await.unwrap();
    assert!(began.elapsed() >= wait, "it ran after {:?}", began.elapsed());
}

async fn headers_and_a_large_payload_arrive(world: World) {
    world.define(LONG).await;
    let measure = |context: TaskContext, text: String| async move {
        Ok(format!("{} {}", text.len(), context.headers()["trace"]).into())
    };
    let _worker = world.worker(&world.bellows, 1, measure).await;
    let large = "x".repeat(20_000); // travels in the task, not in the assignment
    let task = world.bellows.publish::<Act>(large).header("trace", "t-1").await.unwrap();
    assert_eq!(within(SOON, task).await.unwrap(), "20000 t-1");
}

async fn publishing_again_under_the_same_id_is_the_same_task(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let id = bellows_sdk::TaskId::from_bits(77);
    for text in ["first", "second", "third"] {
        let task = world.bellows.publish::<Act>(text.into()).as_task(id).await.unwrap();
        assert_eq!(within(SOON, task).await.unwrap(), "first!", "a finished task is not run again");
    }
}

async fn a_publish_whose_answer_is_lost_is_one_task(world: World) {
    world.define(LONG).await;
    let _worker = world.worker(&world.bellows, 1, echo).await;
    for fault in [Fault::LoseAnswer, Fault::Drop, Fault::ApplyLate(Duration::from_millis(300))] {
        let (client, link) = world.client_over_a_bad_link();
        link.next_txn(puts(format!("{}q/", world.space().prefix())), fault);
        let task = client.publish::<Act>("once".into()).await.unwrap();
        assert_eq!(link.pending(), 0, "the fault met its request");
        assert_eq!(within(SOON, task).await.unwrap(), "once!");
        world.assert_lawful().await;
    }
}

async fn an_unknown_definition_is_refused_and_nothing_is_written(world: World) {
    let refused = world.bellows.publish::<Act>("x".into()).await.unwrap_err();
    assert!(matches!(refused, PublishError::NoSuchDefinition(_)), "{refused}");
    assert!(refused.to_string().contains("apply its TaskDefinition first"), "{refused}");
    let space = world.space();
    let def = bellows_registry::id::DefinitionId::new("default", "act").unwrap();
    let found = world.store.range(RangeRequest::new(space.definition_range(&def))).await.unwrap();
    assert_eq!(found.entries, []);
}

async fn a_registry_that_does_not_say_why_it_refuses_is_no_unknown_definition(world: World) {
    let (client, link) = world.client_over_a_bad_link();
    link.set_rates(Rates { fail_read: 1000, ..Rates::default() }); // transactions are answered
    let refused = client.publish::<Act>("x".into()).await.unwrap_err();
    assert!(matches!(refused, PublishError::Unavailable { .. }), "{refused}");
    link.set_rates(Rates::default());
    let refused = client.publish::<Act>("x".into()).await.unwrap_err();
    assert!(matches!(refused, PublishError::NoSuchDefinition(_)), "{refused}");
}

async fn a_payload_over_the_limit_is_refused_before_it_is_sent(world: World) {
    let refused = world.bellows.publish::<Act>("x".repeat(70_000)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the payload has 70002 bytes; the limit is 65536");
    let many = (0..40).fold(world.bellows.publish::<Act>("x".into()), |p, n| p.header(n.to_string(), "v"));
    assert!(matches!(many.await.unwrap_err(), PublishError::Invalid(_)));
}

async fn a_task_that_never_existed_is_not_found(world: World) {
    world.define(LONG).await;
    let saved =
        r#"{"namespace":"default","name":"act","task":"00000000000000000000000000000009","slot":"0001"}"#;
    let task = world.bellows.task::<Act>(serde_json::from_str(saved).unwrap());
    assert_eq!(task.status().await.unwrap(), TaskStatus::NotFound);
    assert!(matches!(within(SOON, task).await.unwrap_err(), WaitError::NotFound(_)));
}

async fn a_result_is_not_there_before_the_task_has_ended(world: World) {
    world.define(LONG).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    assert_eq!(task.try_result().await.unwrap(), None);
    let short = Duration::from_millis(100);
    assert!(matches!(task.wait_timeout(short).await.unwrap_err(), WaitError::TimedOut(_)));
    let _worker = world.worker(&world.bellows, 1, echo).await;
    assert_eq!(task.wait_timeout(SOON).await.unwrap(), "x!");
    assert_eq!(task.try_result().await.unwrap().as_deref(), Some("x!"));
}

async fn a_definition_on_hold_and_drain_takes_no_tasks(world: World) {
    let policy = Policy { mode: Mode::HoldAndDrain, ..Policy::default() };
    world.bellows.define::<Act>(policy).await.unwrap();
    let refused = world.bellows.publish::<Act>("x".into()).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotAccepting(_)), "{refused}");
    world.define(LONG).await;
    world.bellows.publish::<Act>("x".into()).await.unwrap();
}

async fn an_unknown_outcome_is_settled_by_publishing_again_from_elsewhere(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    link.set_rates(Rates { lose_answer: 1000, ..Rates::default() });
    let unknown = client.publish::<Act>("once".into()).await.unwrap_err();
    let PublishError::Unknown { task, .. } = unknown else { panic!("{unknown}") };
    // It was published, as it happens: the reference in the error is as good as any.
    let _worker = world.worker(&world.bellows, 1, echo).await;
    let other = world.other_client();
    let found = other.task(TaskRef::<Act>::from_raw(task.clone()));
    assert_eq!(within(SOON, found).await.unwrap(), "once!");
    // Whoever cannot tell publishes it again, from any process, and changes nothing.
    let again = other.publish::<Act>("twice".into()).again(&task).await.unwrap();
    assert_eq!(again.to_ref(), TaskRef::from_raw(task));
    assert_eq!(within(SOON, again).await.unwrap(), "once!");
    // Not merely the old result: no second life was begun.
    let there = |range: String| world.store.range(RangeRequest::new(KeyRange::prefix(range)));
    let prefix = world.space().prefix().to_owned();
    assert_eq!(there(format!("{prefix}q/default/act/t/")).await.unwrap().entries, []);
    assert_eq!(there(format!("{prefix}r/")).await.unwrap().entries.len(), 1);
}

async fn a_parked_task_is_known_for_longer_than_its_record(world: World) {
    world.define(LONG).await;
    let park = |_: TaskContext, _: String| async { Err(TaskFailure::park("hopeless")) };
    let _worker = world.worker(&world.bellows, 1, park).await;
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, task.outcome()).await.unwrap();
    let results = KeyRange::prefix(format!("{}r/", world.space().prefix()));
    let forget = Txn { then: vec![Op::Delete(results)], ..Txn::default() };
    world.store.txn(forget).await.unwrap();
    let Err(WaitError::Failed(failed)) = within(SOON, task).await else { panic!("it is parked") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
    assert_eq!(failed.errors[0].message, "hopeless");
}

async fn a_result_whose_signal_was_lost_is_found_by_the_slow_look(world: World) {
    world.define(LONG).await;
    let (client, link) = world.client_over_a_bad_link();
    let task = client.publish::<Act>("x".into()).await.unwrap();
    link.hide_next_change(format!("{}r/", world.space().prefix()));
    let waiting = task.wait_timeout(Duration::from_secs(400));
    let later = async {
        sleep(Duration::from_secs(5)).await; // by then the watch is open
        world.worker(&world.bellows, 1, echo).await
    };
    let (result, _worker) = tokio::join!(waiting, later);
    assert_eq!(link.injected()["hide_change"], 1);
    assert_eq!(result.unwrap(), "x!");
}
