//! One attempt run, whatever the types of its task.

use std::marker::PhantomData;
use std::sync::Arc;

use bellows_registry::record::{Applied, Envelope};
use bellows_registry::spec::Trigger;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::definition::{ActivationStrategy, PayloadOf, TaskDefinition};
use crate::dispatcher::slots::Occupied;
use crate::envelope::undecodable::Undecodable;
use crate::envelope::{content, version};
use crate::follow_up::Asked;
use crate::handler::TaskHandler;
use crate::outcome::{TaskError, TaskResult, Verdict};
use crate::state::States;
use crate::worker::{TaskContext, Worker, WorkerFactory};

/// What running a handler came to, its result encoded.
#[derive(Debug)]
pub(crate) enum Ran {
    Succeeded {
        result: Bytes,
        codecs: Vec<Applied>,
        again: Option<std::time::Duration>,
        follow_ups: Vec<Asked>,
    },
    Failed(TaskError),
    Undecodable(Undecodable),
    Unencodable(String),
    Panicked(String),
}

impl Ran {
    /// Whether the handler came to an end of its own choice. A failure that merely asks
    /// for another try may come from having been told to stop.
    pub(crate) fn is_meant(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::Unencodable(_) => true,
            Self::Failed(error) => error.verdict.is_meant(),
            Self::Undecodable(_) | Self::Panicked(_) => false,
        }
    }

    /// Whether the task ends with it, by the handler's own choice.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::Unencodable(_) => true,
            Self::Failed(error) => matches!(error.verdict, Verdict::Park | Verdict::Cancel),
            Self::Undecodable(_) | Self::Panicked(_) => false,
        }
    }
}

/// One attempt on its way to its handler.
pub(crate) struct Call {
    pub(crate) context: TaskContext,
    pub(crate) payload: Bytes,
    /// The slot it takes. To be held by whatever runs the handler's code.
    pub(crate) slot: Arc<Occupied>,
}

/// Runs one attempt, whatever its types.
pub(crate) trait Runner: Send + Sync {
    fn run(&self, call: Call) -> BoxFuture<'static, Ran>;

    /// The same with this state, if the runner gives any to its handler.
    fn with_states(&self, _: &States) -> Option<Arc<dyn Runner>> {
        None
    }
}

pub(super) struct Erased<F>(pub(super) F);

impl<F: WorkerFactory> Runner for Erased<F> {
    fn run(&self, call: Call) -> BoxFuture<'static, Ran> {
        let worker = self.0.build(call.context.worker_id());
        run_typed(worker, call).boxed()
    }
}

/// A handler with the state it is given; as a worker, one attempt of it.
pub(super) struct Handled<T> {
    states: States,
    kind: PhantomData<fn() -> T>,
}

impl<T> Handled<T> {
    pub(super) fn given(states: &States) -> Self {
        Self { states: states.clone(), kind: PhantomData }
    }
}

impl<T: TaskHandler> Runner for Handled<T> {
    fn run(&self, call: Call) -> BoxFuture<'static, Ran> {
        run_typed(Self::given(&self.states), call).boxed()
    }

    fn with_states(&self, states: &States) -> Option<Arc<dyn Runner>> {
        Some(Arc::new(Self::given(states)))
    }
}

impl<T: TaskHandler> Worker for Handled<T> {
    type Task = T;

    fn process(
        self,
        context: TaskContext,
        payload: PayloadOf<T>,
    ) -> impl Future<Output = TaskResult<T::Callback>> + Send {
        T::handle(context, payload, self.states)
    }
}

async fn run_typed<W: Worker>(worker: W, call: Call) -> Ran {
    let Call { context, payload, slot: _slot } = call;
    match read::<W::Task>(&context.envelope, &payload) {
        Ok(payload) => ran(worker.process(context, payload).await),
        Err(error) => Ran::Undecodable(error),
    }
}

/// What a handler returned, encoded.
pub(crate) fn ran<C: Serialize>(result: TaskResult<C>) -> Ran {
    match result {
        Ok(success) => match serde_json::to_vec(&success.callback) {
            Ok(result) => Ran::Succeeded {
                result: result.into(),
                codecs: Vec::new(),
                again: success.again,
                follow_ups: success.follow_ups,
            },
            Err(error) => Ran::Unencodable(format!("the result cannot be encoded: {error}")),
        },
        Err(error) => Ran::Failed(error),
    }
}

/// The payload as the handler takes it.
pub(crate) fn read<T: TaskDefinition>(
    envelope: &Envelope,
    bytes: &[u8],
) -> Result<PayloadOf<T>, Undecodable> {
    if !content::is_json(envelope.content_type()) {
        return Err(Undecodable::ContentType(envelope.content_type().to_owned()));
    }
    // A singleton's task has no payload at all.
    match T::Trigger::TRIGGER {
        Trigger::Singleton => serde_json::from_slice(b"null").map_err(Undecodable::Json),
        Trigger::Publish => version::read::<T>(envelope.version, bytes),
    }
}

/// A function as a worker.
pub(super) struct Function<T, F> {
    pub(super) function: F,
    pub(super) kind: PhantomData<fn() -> T>,
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
