//! Waiting for many tasks: few watches, however many tasks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bellows_registry::id::{DefinitionId, ResultSlot};
use bellows_registry::key::{Key, KeyRange, Keyspace};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream};
use tokio::sync::Semaphore;

use crate::client::Bellows;
use crate::definition::TaskDefinition;
use crate::error::WaitError;
use crate::refs::{RawTaskRef, TaskRef};
use crate::results::Follow;

/// Tasks that are looked at, at a time.
const LOOKS: usize = 32;
/// A definition whose tasks would need more watches than this is followed whole.
const MOST_WATCHES: usize = 16;

/// What to follow for each task: the slot of this process, which is followed anyway; a
/// slot of others that several of the tasks share; the one key; or all results of the
/// definition, if that were too many.
pub(crate) fn following(space: &Keyspace, own: ResultSlot, tasks: &[RawTaskRef]) -> Vec<(KeyRange, Follow)> {
    let mut of_slot: HashMap<(&DefinitionId, ResultSlot), usize> = HashMap::new();
    for task in tasks {
        *of_slot.entry((&task.definition, task.slot)).or_default() += 1;
    }
    let mut foreign: HashMap<&DefinitionId, HashSet<ResultSlot>> = HashMap::new();
    for (definition, slot) in of_slot.keys().filter(|(_, slot)| *slot != own) {
        foreign.entry(definition).or_default().insert(*slot);
    }
    let whole = |def: &DefinitionId| foreign.get(def).is_some_and(|slots| slots.len() > MOST_WATCHES);
    let one = |task: &RawTaskRef| {
        let (definition, slot) = (&task.definition, task.slot);
        if slot == own {
            return (space.slot_range(definition, slot), Follow::Always);
        }
        let range = if whole(definition) {
            space.outcomes_range(definition)
        } else if of_slot[&(definition, slot)] > 1 {
            space.slot_range(definition, slot)
        } else {
            KeyRange::one(space.path(&Key::Outcome(definition.clone(), slot, task.id)))
        };
        (range, Follow::WhileWaiting)
    };
    tasks.iter().map(one).collect()
}

impl Bellows {
    /// Waits for many tasks: a stream of results as they come, each with the place of its
    /// task in the list. It ends when all have ended.
    ///
    /// The tasks that this client has published are followed by one watch, those of
    /// another process by one for each of its slots, and never by more than 16 for one
    /// definition; at most 32 tasks are looked at at a time.
    ///
    /// ```
    /// # use bellows_sdk::prelude::*;
    /// # struct Double;
    /// # impl TaskDefinition for Double {
    /// #     const NAME: &'static str = "double";
    /// #     type Callback = u64;
    /// #     type Trigger = PublishTrigger<u64>;
    /// # }
    /// # async fn example(bellows: Bellows, saved: Vec<TaskRef<Double>>) {
    /// use futures::StreamExt;
    ///
    /// let mut results = bellows.wait_many(saved);
    /// while let Some((place, result)) = results.next().await {
    ///     println!("task {place}: {result:?}");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each task has its own: see [`WaitError`].
    ///
    /// # Cancel safety
    /// The stream may be dropped, and the tasks awaited again.
    pub fn wait_many<T, I>(
        &self,
        tasks: I,
    ) -> impl Stream<Item = (usize, Result<T::Callback, WaitError>)> + Send + Unpin + use<T, I>
    where
        T: TaskDefinition,
        I: IntoIterator<Item = TaskRef<T>>,
    {
        let raw: Vec<RawTaskRef> = tasks.into_iter().map(|task| task.raw().clone()).collect();
        let following = following(&self.shared.space, self.shared.slot, &raw);
        let looks = Arc::new(Semaphore::new(LOOKS));
        let all = FuturesUnordered::new();
        for (place, (task, following)) in raw.into_iter().zip(following).enumerate() {
            let (task, looks) = (self.task::<T>(TaskRef::from_raw(task)), Arc::clone(&looks));
            let waiting = async move {
                let result = match task.outcome_by(following, &looks).await {
                    Ok(record) => task.conclude(record).await,
                    Err(error) => Err(error),
                };
                (place, result)
            };
            all.push(waiting.boxed());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::id::TaskId;

    use super::*;

    fn task(name: &str, slot: u16, id: u128) -> RawTaskRef {
        let definition = DefinitionId::new("media", name).unwrap();
        RawTaskRef { definition, id: TaskId::from_bits(id), slot: ResultSlot::from_bits(slot) }
    }

    fn watches(tasks: &[RawTaskRef]) -> usize {
        let all = following(&Keyspace::default(), ResultSlot::from_bits(1), tasks);
        for (task, (range, _)) in tasks.iter().zip(&all) {
            let key = Key::Outcome(task.definition.clone(), task.slot, task.id);
            assert!(range.contains(&Keyspace::default().path(&key)), "{task}");
        }
        all.iter().map(|(range, _)| range).collect::<HashSet<_>>().len()
    }

    #[test]
    fn many_tasks_need_few_watches() {
        let own: Vec<_> = (1..100).map(|n| task("a", 1, n)).collect();
        assert_eq!(watches(&own), 1, "one's own");
        let others: Vec<_> = (1..100).map(|n| task("a", 2 + (n % 2) as u16, n)).collect();
        assert_eq!(watches(&others), 2, "those of two other processes");
        let spread: Vec<_> = (1..100).map(|n| task("a", 2 + n as u16, n)).collect();
        assert_eq!(watches(&spread), 1, "those of very many");
        assert_eq!(watches(&spread[..3]), 3, "those of a few");
        let mixed = [own, others, spread, vec![task("b", 7, 1)]].concat();
        assert_eq!(watches(&mixed), 3);
    }

    #[test]
    fn a_lone_task_of_another_process_is_followed_by_its_key() {
        let one = following(&Keyspace::default(), ResultSlot::from_bits(1), &[task("a", 2, 7)]);
        assert!(one[0].0.end.is_empty());
        assert_eq!(one[0].1, Follow::WhileWaiting);
    }
}
