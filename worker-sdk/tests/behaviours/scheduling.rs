//! Whose turn it is: priority, fairness keys and weight.

use std::time::Duration;

use bellows_registry::key::Key;
use bellows_registry::record::{FairnessKey, Priority, Record, TaskRecord, Weight};
use bellows_sdk::{ChoiceError, NewTask, PublishError, TaskHandle};
use tokio::sync::watch;

use super::running::{A_WHILE, Log, QUICK, all_end, define, publish, sorted};
use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    the_more_urgent_task_is_given_out_first,
    tasks_of_one_priority_go_in_the_order_in_which_they_became_due,
    priority_orders_the_tasks_of_a_key_and_not_the_keys,
    a_priority_out_of_range_is_refused_before_anything_is_sent,
    a_fairness_key_that_is_empty_or_too_long_is_refused_before_anything_is_sent,
    a_weight_out_of_range_is_refused_before_anything_is_sent,
    what_is_chosen_for_one_of_many_tasks_is_kept_with_it,
    fairness_keys_take_turns,
    tasks_without_a_fairness_key_are_one_key_together,
    a_fairness_key_with_a_larger_share_has_more_in_its_turn,
    a_heavy_task_takes_its_slots_of_one_worker,
    lighter_tasks_do_not_starve_a_heavy_one,
    a_task_heavier_than_any_worker_waits_for_a_larger_one_and_holds_up_nobody,
}

behaviours! {
    paused_only: who_waits_long_enough_goes_before_the_more_urgent,
}

async fn urgent(world: &World, name: &str, level: u8) -> TaskHandle<Act> {
    world.bellows.publish::<Act>(name.to_owned()).priority(level).await.unwrap()
}

async fn the_more_urgent_task_is_given_out_first(world: World) {
    world.define(LONG).await;
    let mut tasks = Vec::new();
    for (name, level) in [("e", 5), ("i", 1), ("a", 9), ("f", 5), ("b", 8)] {
        tasks.push(urgent(&world, name, level).await);
    }
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a", "b", "e", "f", "i"]);
}

async fn tasks_of_one_priority_go_in_the_order_in_which_they_became_due(world: World) {
    world.define(LONG).await;
    let none = Duration::ZERO;
    // Longer than a busy machine takes to publish the two that come next.
    let late = world.paused_or_real(Duration::from_secs(1), Duration::from_secs(4));
    let later = late + Duration::from_millis(400);
    let mut tasks = Vec::new();
    for (name, delay) in [("one", none), ("late", late), ("two", none), ("three", none), ("four", later)] {
        let task = world.bellows.publish::<Act>(name.to_owned()).delay(delay);
        tasks.push(task.await.unwrap());
    }
    tokio::time::sleep(later + Duration::from_millis(300)).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["one", "two", "three", "late", "four"]);
}

async fn priority_orders_the_tasks_of_a_key_and_not_the_keys(world: World) {
    world.define(LONG).await;
    let mut tasks = publish(&world, &["a1", "a2"]).await;
    for name in ["b1", "b2"] {
        let task = world.bellows.publish::<Act>(name.to_owned()).key("b").priority(9);
        tasks.push(task.await.unwrap());
    }
    let first = world.bellows.publish::<Act>("a0".to_owned()).key("a").priority(6);
    tasks.push(first.await.unwrap());
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a0", "b1", "a1", "b2", "a2"]);
}

/// The publish fails with this text, and nothing is there.
async fn assert_refused(world: &World, task: Result<TaskHandle<Act>, PublishError>, says: &str) {
    let error = task.unwrap_err();
    assert!(matches!(error, PublishError::Choice(ChoiceError::Range { .. } | ChoiceError::Length { .. })));
    assert_eq!(error.to_string(), says);
    let tasks = format!("{}q/default/act/t/", world.space().prefix());
    let range = bellows_registry::key::KeyRange::prefix(tasks);
    let request = bellows_registry::backend::RangeRequest::new(range);
    assert_eq!(world.store.range(request).await.unwrap().entries, []);
}

async fn a_priority_out_of_range_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (level, says) in
        [(0, "priority must be from 1 to 9, not 0"), (10, "priority must be from 1 to 9, not 10")]
    {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).priority(level).await, says).await;
    }
}

async fn a_fairness_key_that_is_empty_or_too_long_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (key, says) in [
        (String::new(), "key has 0 bytes; it must have 1 to 128"),
        ("k".repeat(129), "key has 129 bytes; it must have 1 to 128"),
    ] {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).key(key).await, says).await;
    }
}

async fn a_weight_out_of_range_is_refused_before_anything_is_sent(world: World) {
    world.define(LONG).await;
    for (weight, says) in
        [(0, "weight must be from 1 to 1000, not 0"), (1001, "weight must be from 1 to 1000, not 1001")]
    {
        assert_refused(&world, world.bellows.publish::<Act>("x".into()).weight(weight).await, says).await;
    }
}

async fn what_is_chosen_for_one_of_many_tasks_is_kept_with_it(world: World) {
    world.define(LONG).await;
    let chosen = NewTask::<Act>::new("chosen".into()).priority(7).key("tenant").weight(3);
    let verdicts = within(SOON, world.bellows.publish_many([chosen, NewTask::new("plain".into())])).await;
    let mut options = Vec::new();
    for verdict in verdicts {
        let task = verdict.unwrap().to_ref().raw().clone();
        let key = world.space().path(&Key::Task(task.definition, task.id));
        let entries = world.some(bellows_registry::key::KeyRange::one(key)).await;
        options.push(TaskRecord::decode(&entries[0].value).unwrap().options);
    }
    assert_eq!(options[0].priority, Priority::new(7).unwrap());
    assert_eq!(options[0].key, Some(FairnessKey::new("tenant").unwrap()));
    assert_eq!(options[0].weight, Weight::new(3).unwrap());
    assert!(options[1].is_default(), "what is not chosen is not stored");
}

async fn fairness_keys_take_turns(world: World) {
    world.define(LONG).await;
    let tasks = publish(&world, &["a1", "a2", "a3", "a4", "b1", "b2", "c1"]).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

async fn tasks_without_a_fairness_key_are_one_key_together(world: World) {
    world.define(LONG).await;
    let mut tasks = Vec::new();
    for name in ["1", "2", "3"] {
        tasks.push(world.bellows.publish::<Act>(name.to_owned()).await.unwrap());
    }
    tasks.extend(publish(&world, &["a1", "a2"]).await);
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["1", "a1", "2", "a2", "3"]);
}

async fn a_fairness_key_with_a_larger_share_has_more_in_its_turn(world: World) {
    define(&world, |execution| execution.key_shares = [("b".to_owned(), 2)].into()).await;
    let tasks = publish(&world, &["a1", "a2", "a3", "b1", "b2", "b3", "b4"]).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["a1", "b1", "b2", "a2", "b3", "b4", "a3"]);
}

async fn weighing(world: &World, name: &str, slots: u32) -> TaskHandle<Act> {
    world.bellows.publish::<Act>(name.to_owned()).weight(slots).await.unwrap()
}

async fn a_heavy_task_takes_its_slots_of_one_worker(world: World) {
    world.define(LONG).await;
    let (go, log) = (watch::Sender::new(false), Log::default());
    let mut tasks = Vec::new();
    for (name, slots) in [("h", 3), ("l", 1), ("m", 1)] {
        tasks.push(weighing(&world, name, slots).await);
    }
    let _worker = world.worker(&world.bellows, 4, log.held(&go)).await;
    log.until_began(2).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(sorted(log.names()), ["h", "l"], "three slots and one are four");
    go.send_replace(true);
    all_end(tasks).await;
}

async fn lighter_tasks_do_not_starve_a_heavy_one(world: World) {
    world.define(LONG).await;
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 2, log.taking(Duration::from_millis(20))).await;
    let mut tasks = Vec::new();
    for n in 0..4 {
        tasks.push(weighing(&world, &format!("l{n}"), 1).await);
    }
    tasks.push(weighing(&world, "heavy", 2).await);
    for n in 4..12 {
        tasks.push(weighing(&world, &format!("l{n}"), 1).await);
    }
    all_end(tasks).await;
    let at = log.names().iter().position(|name| name == "heavy").unwrap();
    assert!(at <= 6, "it began as number {at}: {:?}", log.names());
}

async fn a_task_heavier_than_any_worker_waits_for_a_larger_one_and_holds_up_nobody(world: World) {
    world.define(LONG).await;
    let log = Log::default();
    let heavy = weighing(&world, "heavy", 5).await;
    let light = weighing(&world, "light", 1).await;
    let _small = world.worker(&world.bellows, 2, log.taking(QUICK)).await;
    within(SOON, light).await.unwrap();
    assert_eq!(log.names(), ["light"]);
    let _large = world.worker(&world.bellows, 5, log.taking(QUICK)).await;
    within(SOON, heavy).await.unwrap();
}

async fn who_waits_long_enough_goes_before_the_more_urgent(world: World) {
    world.define(LONG).await;
    let mut tasks = vec![urgent(&world, "patient", 1).await];
    tokio::time::sleep(Priority::AGEING * 8 + Duration::from_secs(1)).await;
    tasks.push(urgent(&world, "urgent", 9).await);
    let log = Log::default();
    let _worker = world.worker(&world.bellows, 1, log.taking(QUICK)).await;
    all_end(tasks).await;
    assert_eq!(log.names(), ["patient", "urgent"]);
}
