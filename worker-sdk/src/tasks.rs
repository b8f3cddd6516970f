//! The kinds of work a process can do, with their types erased once.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bellows_registry::id::WorkerId;
use bellows_registry::spec::{Policy, Trigger};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::definition::{ActivationStrategy, PayloadOf, TaskDefinition};
use crate::follow_up::Asked;
use crate::outcome::{TaskError, TaskResult};
use crate::worker::{TaskContext, Worker, WorkerFactory};

/// The kinds of work a process can do.
///
/// ```
/// # use bellows_sdk::prelude::*;
/// # struct Double;
/// # impl TaskDefinition for Double {
/// #     const NAME: &'static str = "double";
/// #     type Callback = u64;
/// #     type Trigger = PublishTrigger<u64>;
/// # }
/// let tasks = Tasks::new().with_fn::<Double, _, _>(|_context, n| async move { Ok((n * 2).into()) });
/// ```
#[derive(Clone, Default)]
pub struct Tasks {
    pub(crate) kinds: Vec<Kind>,
}

/// One kind of work.
#[derive(Clone)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) trigger: Trigger,
    pub(crate) concurrency: Option<u32>,
    pub(crate) policy: Policy,
    pub(crate) runner: Arc<dyn Runner>,
}

/// What running a handler came to, its result encoded.
#[derive(Debug)]
pub(crate) enum Ran {
    Succeeded { result: Bytes, again: Option<std::time::Duration>, follow_ups: Vec<Asked> },
    Failed(TaskError),
    Undecodable(serde_json::Error),
    Unencodable(serde_json::Error),
}

impl Ran {
    /// Whether the handler came to an end of its own choice. A failure that merely asks
    /// for another try may come from having been told to stop.
    pub(crate) fn is_meant(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::Unencodable(_) => true,
            Self::Failed(error) => error.verdict.is_meant(),
            Self::Undecodable(_) => false,
        }
    }
}

/// Runs one attempt, whatever its types.
pub(crate) trait Runner: Send + Sync {
    fn run(&self, context: TaskContext, payload: Bytes) -> BoxFuture<'static, Ran>;
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds.iter().map(|kind| kind.name)).finish()
    }
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of work by its factory. A later one of the same name replaces it.
    pub fn with<F: WorkerFactory>(self, factory: F) -> Self {
        self.add::<<F::Worker as Worker>::Task>(Arc::new(Erased(factory)))
    }

    /// Adds a kind of work by an async function or closure.
    pub fn with_fn<T, F, R>(self, function: F) -> Self
    where
        T: TaskDefinition,
        F: Fn(TaskContext, PayloadOf<T>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = TaskResult<T::Callback>> + Send + 'static,
    {
        self.with(move |_: &WorkerId| Function { function: function.clone(), kind: PhantomData::<fn() -> T> })
    }

    /// How many tasks of the kind added last run at once in this process. The
    /// environment's `BELLOWS_CONCURRENCY` wins. Default 8.
    pub fn concurrency(mut self, slots: u32) -> Self {
        if let Some(kind) = self.kinds.last_mut() {
            kind.concurrency = Some(slots.max(1));
        }
        self
    }

    /// The policy of the kind added last, in a registry that this process hosts. On a
    /// cluster the `TaskDefinition` has it.
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(kind) = self.kinds.last_mut() {
            kind.policy = Policy { trigger: kind.trigger, ..policy };
        }
        self
    }

    /// The names.
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name).collect()
    }

    fn add<T: TaskDefinition>(mut self, runner: Arc<dyn Runner>) -> Self {
        let trigger = T::Trigger::TRIGGER;
        let policy = Policy { trigger, ..Policy::default() };
        self.kinds.retain(|kind| kind.name != T::NAME);
        self.kinds.push(Kind { name: T::NAME, trigger, concurrency: None, policy, runner });
        self
    }
}

struct Erased<F>(F);

impl<F: WorkerFactory> Runner for Erased<F> {
    fn run(&self, context: TaskContext, payload: Bytes) -> BoxFuture<'static, Ran> {
        let worker = self.0.build(context.worker_id());
        run_typed(worker, context, payload).boxed()
    }
}

async fn run_typed<W: Worker>(worker: W, context: TaskContext, payload: Bytes) -> Ran {
    // A singleton's task has no payload at all.
    let bytes = if payload.is_empty() { b"null" } else { &payload[..] };
    let payload = match serde_json::from_slice(bytes) {
        Ok(payload) => payload,
        Err(error) => return Ran::Undecodable(error),
    };
    match worker.process(context, payload).await {
        Ok(success) => match serde_json::to_vec(&success.callback) {
            Ok(result) => {
                Ran::Succeeded { result: result.into(), again: success.again, follow_ups: success.follow_ups }
            }
            Err(error) => Ran::Unencodable(error),
        },
        Err(error) => Ran::Failed(error),
    }
}

/// A function as a worker.
struct Function<T, F> {
    function: F,
    kind: PhantomData<fn() -> T>,
}

impl<T, F, R> Worker for Function<T, F>
where
    T: TaskDefinition,
    F: Fn(TaskContext, PayloadOf<T>) -> R + Send + 'static,
    R: Future<Output = TaskResult<T::Callback>> + Send + 'static,
{
    type Task = T;

    fn process(
        self,
        context: TaskContext,
        payload: PayloadOf<T>,
    ) -> impl Future<Output = TaskResult<T::Callback>> + Send {
        (self.function)(context, payload)
    }
}
