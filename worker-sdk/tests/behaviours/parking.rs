//! Parked tasks: listed, replayed, purged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellows_registry::backend::RangeRequest;
use bellows_registry::clock::WallMillis;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::Key;
use bellows_registry::record::{OutcomeRecord, ParkedRecord, Record};
use bellows_sdk::prelude::*;
use bellows_sdk::spec::Retention;
use bellows_sdk::{
    Cancelled, DispatcherHandle, Ended, Publication, Purged, RawTaskRef, Replayed, TaskId, TaskStatus,
    WaitError,
};

use super::world::{Act, LONG, SOON, World, within};

behaviours! {
    a_parked_task_is_listed_with_its_payload_errors_and_reason,
    parked_tasks_are_listed_page_by_page,
    a_replayed_task_runs_again_under_its_id_with_fresh_attempts,
    a_task_that_parks_again_can_be_replayed_again,
    whoever_waits_for_a_replayed_task_gets_the_outcome_of_its_next_life,
    two_who_replay_a_task_begin_one_life,
    replaying_what_is_not_parked_does_nothing,
    a_replayed_task_keeps_its_unique_key,
    all_parked_tasks_of_a_kind_are_replayed,
    a_purged_task_is_gone_and_its_unique_key_is_free,
    purging_what_is_not_parked_does_nothing,
    all_parked_tasks_of_a_kind_are_purged,
    cancelling_a_parked_task_is_too_late,
    a_parked_task_past_its_retention_goes_with_its_record,
}

/// A worker whose handler parks every task until it is mended.
struct Broken {
    mended: Arc<AtomicBool>,
    _worker: DispatcherHandle,
}

impl Broken {
    async fn worker(world: &World) -> Self {
        world.define(LONG).await;
        let mended = Arc::new(AtomicBool::new(false));
        let works = Arc::clone(&mended);
        let act = move |context: TaskContext, text: String| {
            let works = works.load(Ordering::SeqCst);
            async move {
                if works {
                    return Ok(format!("{text} at attempt {}", context.attempt()).into());
                }
                Err(TaskFailure::park(format!("cannot {text}")))
            }
        };
        let worker = world.worker(&world.bellows, 4, act).await;
        Self { mended, _worker: worker }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }
}

async fn parked(world: &World, payload: &str) -> TaskHandle<Act> {
    let task = world.bellows.publish::<Act>(payload.to_owned()).await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Parked);
    task
}

async fn a_parked_task_is_listed_with_its_payload_errors_and_reason(world: World) {
    let _broken = Broken::worker(&world).await;
    let task = parked(&world, "fly").await;
    let page = within(SOON, world.bellows.parked::<Act>().next_page()).await.unwrap();
    let [found] = &page[..] else { panic!("{page:?}") };
    assert_eq!((found.id(), found.to_ref()), (task.id(), task.to_ref()));
    assert_eq!(found.payload().await.unwrap(), "fly");
    assert_eq!((found.tally().attempts, found.errors().len()), (1, 1));
    assert_eq!(found.reason().unwrap().message, "cannot fly");
    assert!(found.expires() > found.parked_at());
}

async fn parked_tasks_are_listed_page_by_page(world: World) {
    let _broken = Broken::worker(&world).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(parked(&world, "x").await.id());
    }
    ids.sort_unstable();
    let (mut found, mut pages) = (Vec::new(), Vec::new());
    let mut parked = world.bellows.parked::<Act>().page_size(2);
    loop {
        let page = within(SOON, parked.next_page()).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.len());
        found.extend(page.iter().map(bellows_sdk::ParkedTask::id));
    }
    assert_eq!((found, pages), (ids, vec![2, 2, 1]));
    assert!(within(SOON, parked.next_page()).await.unwrap().is_empty(), "the end stays the end");
}

async fn a_replayed_task_runs_again_under_its_id_with_fresh_attempts(world: World) {
    let broken = Broken::worker(&world).await;
    let task = parked(&world, "fly").await;
    broken.mend();
    let elsewhere: RawTaskRef = task.to_ref().raw().clone();
    let replayed = within(SOON, world.other_client().replay(&elsewhere)).await.unwrap();
    assert_eq!(replayed, Replayed::Again { life: 1 });
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!((outcome.ended, outcome.attempt, outcome.tally.life), (Ended::Succeeded, 1, 1));
    assert_eq!((outcome.tally.attempts, outcome.tally.errors.len()), (0, 1), "what went wrong stays");
    assert_eq!(within(SOON, task).await.unwrap(), "fly at attempt 1");
    assert!(within(SOON, world.bellows.parked::<Act>().next_page()).await.unwrap().is_empty());
    world.assert_lawful().await;
}

async fn a_task_that_parks_again_can_be_replayed_again(world: World) {
    let _broken = Broken::worker(&world).await;
    let task = parked(&world, "x").await;
    for life in 1..=2 {
        assert_eq!(within(SOON, task.replay()).await.unwrap(), Replayed::Again { life });
        let again = within(SOON, task.outcome()).await.unwrap();
        assert_eq!((again.ended, again.tally.life, again.tally.attempts), (Ended::Parked, life, 1));
    }
    world.assert_lawful().await;
}

async fn whoever_waits_for_a_replayed_task_gets_the_outcome_of_its_next_life(world: World) {
    let broken = Broken::worker(&world).await;
    let task = parked(&world, "fly").await;
    let told = world.other_client().task(task.to_ref());
    let Err(WaitError::Failed(failed)) = within(SOON, told).await else { panic!("it is parked") };
    assert_eq!(failed.ended, Ended::Parked);
    broken.mend();
    within(SOON, task.replay()).await.unwrap();
    let waits_anew = world.other_client().task(task.to_ref());
    assert_eq!(within(SOON, waits_anew).await.unwrap(), "fly at attempt 1");
}

async fn two_who_replay_a_task_begin_one_life(world: World) {
    let broken = Broken::worker(&world).await;
    let task = parked(&world, "x").await;
    broken.mend();
    let other = world.other_client().task(task.to_ref());
    let (one, two) = tokio::join!(within(SOON, task.replay()), within(SOON, other.replay()));
    let both = [one.unwrap(), two.unwrap()];
    assert!(both.contains(&Replayed::Again { life: 1 }), "{both:?}");
    let one_life =
        |replayed: &Replayed| matches!(replayed, Replayed::Again { life: 1 } | Replayed::NotParked);
    assert!(both.iter().all(one_life), "{both:?}");
    assert_eq!(within(SOON, task.outcome()).await.unwrap().tally.life, 1);
    world.assert_lawful().await;
}

async fn replaying_what_is_not_parked_does_nothing(world: World) {
    let broken = Broken::worker(&world).await;
    broken.mend();
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    let outcome = within(SOON, task.outcome()).await.unwrap();
    assert_eq!(within(SOON, task.replay()).await.unwrap(), Replayed::NotParked);
    assert_eq!(task.outcome().await.unwrap(), outcome);
    let waiting = world.bellows.publish::<Act>("x".into()).delay(LONG).await.unwrap();
    assert_eq!(within(SOON, waiting.replay()).await.unwrap(), Replayed::NotParked);
    let unknown = RawTaskRef { id: TaskId::from_bits(42), ..task.to_ref().raw().clone() };
    assert_eq!(within(SOON, world.bellows.replay(&unknown)).await.unwrap(), Replayed::NotFound);
    world.assert_lawful().await;
}

async fn a_replayed_task_keeps_its_unique_key(world: World) {
    let broken = Broken::worker(&world).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("one").await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Parked);
    let second = world.bellows.publish::<Act>("y".into()).unique("one").await.unwrap();
    assert_eq!((second.publication(), second.id()), (Some(Publication::Existing), task.id()));
    broken.mend();
    within(SOON, task.replay()).await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Succeeded);
    let free = world.bellows.publish::<Act>("z".into()).unique("one").await.unwrap();
    assert_ne!(free.id(), task.id(), "once it has ended, the key is free");
    world.assert_lawful().await;
}

async fn all_parked_tasks_of_a_kind_are_replayed(world: World) {
    let broken = Broken::worker(&world).await;
    let mut tasks = Vec::new();
    for _ in 0..7 {
        tasks.push(parked(&world, "x").await);
    }
    broken.mend();
    let replayed = within(LONG, world.bellows.parked::<Act>().page_size(3).replay_all()).await.unwrap();
    assert_eq!(replayed, 7);
    for task in tasks {
        assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Succeeded);
    }
    world.assert_lawful().await;
}

async fn a_purged_task_is_gone_and_its_unique_key_is_free(world: World) {
    let _broken = Broken::worker(&world).await;
    let task = world.bellows.publish::<Act>("x".into()).unique("one").await.unwrap();
    assert_eq!(within(SOON, task.outcome()).await.unwrap().ended, Ended::Parked);
    assert_eq!(within(SOON, task.purge()).await.unwrap(), Purged::Removed);
    assert_eq!(task.status().await.unwrap(), TaskStatus::NotFound);
    assert_eq!(within(SOON, task.purge()).await.unwrap(), Purged::NotFound, "once");
    let next = world.bellows.publish::<Act>("y".into()).unique("one").await.unwrap();
    assert_eq!(next.publication(), Some(Publication::Created));
    world.assert_lawful().await;
}

async fn purging_what_is_not_parked_does_nothing(world: World) {
    let broken = Broken::worker(&world).await;
    broken.mend();
    let task = world.bellows.publish::<Act>("x".into()).await.unwrap();
    within(SOON, task.outcome()).await.unwrap();
    assert_eq!(within(SOON, task.purge()).await.unwrap(), Purged::NotParked);
    let waiting = world.bellows.publish::<Act>("x".into()).delay(LONG).await.unwrap();
    assert_eq!(within(SOON, waiting.purge()).await.unwrap(), Purged::NotParked);
    assert_eq!(within(SOON, task).await.unwrap(), "x at attempt 1");
    assert!(matches!(waiting.status().await.unwrap(), TaskStatus::Waiting { .. }));
}

async fn all_parked_tasks_of_a_kind_are_purged(world: World) {
    let _broken = Broken::worker(&world).await;
    for _ in 0..5 {
        parked(&world, "x").await;
    }
    let purged = within(LONG, world.bellows.parked::<Act>().page_size(2).purge_all()).await.unwrap();
    assert_eq!(purged, 5);
    assert!(within(SOON, world.bellows.parked::<Act>().next_page()).await.unwrap().is_empty());
    world.assert_lawful().await;
}

async fn cancelling_a_parked_task_is_too_late(world: World) {
    let _broken = Broken::worker(&world).await;
    let task = parked(&world, "x").await;
    let Cancelled::TooLate(outcome) = within(SOON, task.cancel()).await.unwrap() else { panic!("it ended") };
    assert_eq!(outcome.ended, Ended::Parked);
    assert_eq!(within(SOON, world.bellows.parked::<Act>().next_page()).await.unwrap().len(), 1);
}

async fn a_parked_task_past_its_retention_goes_with_its_record(world: World) {
    let _broken = Broken::worker(&world).await;
    let task = parked(&world, "x").await;
    let kept = parked(&world, "y").await;
    let act = DefinitionId::new("default", Act::NAME).unwrap();
    // Both records as they would be a week later: their time is over.
    let slot = task.to_ref().raw().slot;
    let outcome = Key::Outcome(act.clone(), slot, task.id());
    let parked = Key::Parked(act.clone(), task.id());
    let read = async |key: &Key| {
        let range = bellows_registry::key::KeyRange::one(world.space().path(key));
        world.store.range(RangeRequest::new(range)).await.unwrap().entries.pop().unwrap()
    };
    let record = OutcomeRecord::decode(&read(&outcome).await.value).unwrap();
    let expired = OutcomeRecord { expires: WallMillis(1), ..record };
    world.put(world.space().path(&outcome), expired.encode()).await;
    let record = ParkedRecord::decode(&read(&parked).await.value).unwrap();
    let expired = ParkedRecord { expires: Some(WallMillis(1)), ..record };
    world.put(world.space().path(&parked), expired.encode()).await;
    // The clock that wrote this may be wrong: it is kept for the least time all the same.
    let floor = Retention::FLOOR;
    tokio::time::sleep(world.paused_or_real(floor * 9 / 10, Duration::from_secs(2))).await;
    assert_eq!(task.outcome().await.unwrap().ended, Ended::Parked);
    if world.has_paused_time() {
        let gone = async {
            while task.status().await.unwrap() != TaskStatus::NotFound {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        within(floor, gone).await;
    }
    assert_eq!(kept.outcome().await.unwrap().ended, Ended::Parked, "the other one stays");
    world.assert_lawful().await;
}
