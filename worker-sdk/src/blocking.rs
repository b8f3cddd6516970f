//! Handlers that block their thread, on threads of their own.

use std::marker::PhantomData;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use crate::definition::{PayloadOf, TaskDefinition};
use crate::envelope::trace;
use crate::handler::TaskHandler;
use crate::outcome::{TaskFailure, TaskResult};
use crate::state::States;
use crate::tasks::{Call, Ran, Runner, ran, read};
use crate::worker::TaskContext;

/// A function that blocks, as a runner.
pub(crate) struct Blocking<T, F> {
    function: F,
    kind: PhantomData<fn() -> T>,
}

impl<T, F> Blocking<T, F> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, kind: PhantomData }
    }
}

impl<T, F> Runner for Blocking<T, F>
where
    T: TaskDefinition,
    F: Fn(TaskContext, PayloadOf<T>) -> TaskResult<T::Callback> + Clone + Send + Sync + 'static,
{
    fn run(&self, call: Call) -> BoxFuture<'static, Ran> {
        let function = self.function.clone();
        async move {
            // The runtime has threads for this, which end when they are idle. It is the
            // slots that bound how many are ours.
            let (span, attempt) = (Span::current(), trace::current());
            let running = tokio::task::spawn_blocking(move || {
                // Until the code returns, whoever waits for it.
                let Call { context, payload, slot: _slot } = call;
                if !context.is_held() {
                    // No thread was free until it was over: begun now, it would run beside the next.
                    let failure = TaskFailure::retry("told to stop before it began");
                    return ran::<T::Callback>(Err(failure));
                }
                trace::within_thread(attempt, || {
                    span.in_scope(|| match read::<T>(&context.envelope, &payload) {
                        Ok(payload) => ran(function(context, payload)),
                        Err(error) => Ran::Undecodable(error),
                    })
                })
            });
            // Whoever drops this before a thread was free begins nothing.
            match AbortOnDropHandle::new(running).await {
                Ok(ran) => ran,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Never begun: the runtime is shutting down under us.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// A handler that blocks, with the state it is given.
pub(crate) struct BlockingHandler<T> {
    states: States,
    kind: PhantomData<fn() -> T>,
}

impl<T> BlockingHandler<T> {
    pub(crate) fn given(states: &States) -> Self {
        Self { states: states.clone(), kind: PhantomData }
    }
}

impl<T: TaskHandler> Runner for BlockingHandler<T> {
    fn run(&self, call: Call) -> BoxFuture<'static, Ran> {
        let states = self.states.clone();
        // Where it awaits, its own thread waits.
        let handle = move |context: TaskContext, payload: PayloadOf<T>| {
            Handle::current().block_on(T::handle(context, payload, states.clone()))
        };
        Blocking::<T, _>::new(handle).run(call)
    }

    fn with_states(&self, states: &States) -> Option<Arc<dyn Runner>> {
        Some(Arc::new(Self::given(states)))
    }
}
