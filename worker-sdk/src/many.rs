//! Publishing many tasks: as many requests as they need, no more memory than a stated
//! amount, a verdict for each.
//!
//! Every task is a publish of its own; the client's writer packs those that wait into one
//! request, by etcd's limits. Here is only the back-pressure.

use std::pin::Pin;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesOrdered};
use futures::{FutureExt, Stream, StreamExt};

use crate::client::Bellows;
use crate::definition::{PublishStrategy, TaskDefinition};
use crate::draft::NewTask;
use crate::error::PublishError;
use crate::handle::TaskHandle;
use crate::publish::publish;

/// Tasks that may be unanswered at a time.
const IN_FLIGHT: usize = 512;
/// Bytes of payload that may be unanswered at a time, unless one task alone has more.
const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;

type Verdict<T> = Result<TaskHandle<T>, PublishError>;

/// Tasks on their way, in the order in which they came.
struct Many<S, T: TaskDefinition> {
    client: Bellows,
    /// `None` when it has ended.
    tasks: Option<Pin<Box<S>>>,
    unanswered: FuturesOrdered<BoxFuture<'static, (usize, Verdict<T>)>>,
    bytes: usize,
}

impl<S, T> Many<S, T>
where
    S: Stream<Item = NewTask<T>>,
    T: TaskDefinition<Trigger: PublishStrategy>,
{
    fn has_room(&self) -> bool {
        self.unanswered.len() < IN_FLIGHT && (self.bytes < IN_FLIGHT_BYTES || self.unanswered.is_empty())
    }

    async fn next(mut self) -> Option<(Verdict<T>, Self)> {
        loop {
            let room = self.has_room();
            tokio::select! {
                biased; // as many as there is room for before the answers: they fill the requests
                task = next_of(&mut self.tasks), if room && self.tasks.is_some() => match task {
                    Some(task) => self.send(task),
                    None => self.tasks = None,
                },
                Some((bytes, verdict)) = self.unanswered.next() => {
                    self.bytes -= bytes;
                    return Some((verdict, self));
                }
                else => return None,
            }
        }
    }

    fn send(&mut self, task: NewTask<T>) {
        let encoded = task.draft.encode();
        let bytes = encoded.as_ref().map_or(0, |task| Bytes::len(&task.payload));
        self.bytes += bytes;
        let client = self.client.clone();
        let sending = async move {
            let verdict = match encoded {
                Ok(task) => publish(&client, task).await,
                Err(error) => Err(error),
            };
            (bytes, verdict)
        };
        self.unanswered.push_back(sending.boxed());
    }
}

async fn next_of<S: Stream>(tasks: &mut Option<Pin<Box<S>>>) -> Option<S::Item> {
    tasks.as_mut()?.next().await
}

impl Bellows {
    /// Publishes thousands of tasks: packed into few requests, with a verdict for each, in
    /// their order. One that is refused does not disturb the others.
    ///
    /// At most 512 tasks and 8 MiB of payload are on their way at a time; the iterator is
    /// asked for more as answers come.
    ///
    /// ```
    /// # use bellows_sdk::prelude::*;
    /// # use bellows_sdk::NewTask;
    /// # struct Double;
    /// # impl TaskDefinition for Double {
    /// #     const NAME: &'static str = "double";
    /// #     type Callback = u64;
    /// #     type Trigger = PublishTrigger<u64>;
    /// # }
    /// # async fn example(bellows: Bellows) -> anyhow::Result<()> {
    /// for verdict in bellows.publish_many((0..5000).map(NewTask::<Double>::new)).await {
    ///     let task: TaskHandle<Double> = verdict?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome of those on their way open; the others are
    /// published or not asked for yet. With an
    /// [idempotency key](NewTask::idempotency_key) each, all may be published again.
    pub async fn publish_many<T, I>(&self, tasks: I) -> Vec<Result<TaskHandle<T>, PublishError>>
    where
        T: TaskDefinition<Trigger: PublishStrategy>,
        I: IntoIterator<Item = NewTask<T>, IntoIter: Send>,
    {
        self.publish_stream(stream::iter(tasks)).collect().await
    }

    /// Publishes what a stream gives, for as long as it gives anything: a stream of
    /// verdicts, in the order of the tasks.
    ///
    /// # Back-pressure
    /// At most 512 tasks and 8 MiB of payload are on their way at a time: beyond that the
    /// source is not asked. It is not asked either while nobody asks for verdicts.
    ///
    /// # Cancel safety
    /// As [`Bellows::publish_many`].
    pub fn publish_stream<T, S>(
        &self,
        tasks: S,
    ) -> impl Stream<Item = Result<TaskHandle<T>, PublishError>> + Send + use<T, S>
    where
        T: TaskDefinition<Trigger: PublishStrategy>,
        S: Stream<Item = NewTask<T>> + Send,
    {
        let client = self.clone();
        let many = Many { client, tasks: Some(Box::pin(tasks)), unanswered: FuturesOrdered::new(), bytes: 0 };
        stream::unfold(many, Many::next)
    }
}
