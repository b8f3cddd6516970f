//! Handlers that block their thread, on threads of their own.

use std::marker::PhantomData;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::definition::{PayloadOf, TaskDefinition};
use crate::outcome::TaskResult;
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
            let running = tokio::task::spawn_blocking(move || {
                // Until the code returns, whoever waits for it.
                let Call { context, payload, slot: _slot } = call;
                match read::<T>(&context.envelope, &payload) {
                    Ok(payload) => ran(function(context, payload)),
                    Err(error) => Ran::Undecodable(error),
                }
            });
            match running.await {
                Ok(ran) => ran,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Never begun: the runtime is shutting down under us.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}
