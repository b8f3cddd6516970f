//! What surrounds an attempt: a stack of [`tower`] layers.
//!
//! From the outside inwards, an attempt passes
//!
//! 1. the **deadline**, and the other reasons to stop: kept by the dispatcher, outside of
//!    the handler's task, so that they hold for code that blocks its thread too;
//! 2. the **trace**: the attempt's span, child of its publisher's;
//! 3. the **metrics**: attempts counted, timed and logged by how they ended;
//! 4. **your layers** ([`Tasks::layer`](crate::Tasks::layer)), the first one added outermost;
//! 5. **catch panic**: a panic of the handler is an end of the attempt, which your layers see;
//! 6. the handler: its worker is built, the payload is decoded, and it runs.
//!
//! Your layers run on your runtime, in the handler's task: they count as its time, and stop
//! with it. Whatever happens in them ends one attempt and harms no other: an error of a layer
//! means *retry*, and so does a panic.
//!
//! A layer from elsewhere fits if its service takes an [`AttemptRequest`] and answers an
//! [`AttemptEnd`], as those of `tower::limit` or `tower::timeout` do. One of your own is
//! easiest made of a function, by [`from_fn`].

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::outcome::TaskError;
use crate::tasks::{Call, Ran, Runner};
use crate::worker::TaskContext;

/// The service that a layer wraps: the rest of the way to the handler.
pub type AttemptService = BoxCloneSyncService<AttemptRequest, AttemptEnd, BoxError>;

/// One attempt on its way to its handler.
pub struct AttemptRequest {
    call: Call,
    definition: &'static str,
}

impl fmt::Debug for AttemptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptRequest")
            .field("definition", &self.definition)
            .field("task", &self.call.context.task_id())
            .finish_non_exhaustive()
    }
}

impl AttemptRequest {
    /// What the handler will know of the attempt.
    pub fn context(&self) -> &TaskContext {
        &self.call.context
    }

    /// The name of the kind of work.
    pub fn definition(&self) -> &'static str {
        self.definition
    }

    /// The payload as it was published, not decoded.
    pub fn payload(&self) -> &[u8] {
        &self.call.payload
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub struct AttemptEnd {
    ran: Ran,
}

impl AttemptEnd {
    /// An end without the handler, or in place of what it said.
    pub fn failed(error: impl Into<TaskError>) -> Self {
        Self { ran: Ran::Failed(error.into()) }
    }

    /// Whether the handler succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self.ran, Ran::Succeeded { .. })
    }

    /// What went wrong, or was asked for, if it did not. May quote the payload.
    pub fn error(&self) -> Option<String> {
        match &self.ran {
            Ran::Succeeded { .. } => None,
            Ran::Failed(error) => Some(error.text().to_owned()),
            Ran::Panicked(text) | Ran::Unencodable(text) => Some(text.clone()),
            Ran::Undecodable(error) => Some(error.kept()),
        }
    }
}

/// A layer with its type forgotten.
pub(crate) type ErasedLayer = Arc<dyn Fn(AttemptService) -> AttemptService + Send + Sync>;

/// Forgets a layer's type.
pub(crate) fn erased<L>(layer: L) -> ErasedLayer
where
    L: Layer<AttemptService> + Send + Sync + 'static,
    L::Service: Service<AttemptRequest, Response = AttemptEnd> + Clone + Send + Sync + 'static,
    <L::Service as Service<AttemptRequest>>::Error: Into<BoxError>,
    <L::Service as Service<AttemptRequest>>::Future: Send + 'static,
{
    Arc::new(move |inner| BoxCloneSyncService::new(layer.layer(inner).map_err(Into::into)))
}

/// The stack of one kind of work.
#[derive(Clone)]
pub(crate) struct Stack {
    service: AttemptService,
    definition: &'static str,
}

impl Stack {
    pub(crate) fn of(runner: Arc<dyn Runner>, definition: &'static str, layers: &[ErasedLayer]) -> Self {
        let handler = BoxCloneSyncService::new(CatchPanic { runner });
        // The first one added is the outermost.
        let service = layers.iter().rev().fold(handler, |inner, layer| layer(inner));
        Self { service, definition }
    }

    /// Runs one attempt through all of it.
    pub(crate) async fn run(self, call: Call) -> Ran {
        let request = AttemptRequest { call, definition: self.definition };
        match self.service.oneshot(request).await {
            Ok(end) => end.ran,
            Err(error) => Ran::Failed(TaskError::retry(error)),
        }
    }
}

/// The innermost layer and the handler within.
#[derive(Clone)]
struct CatchPanic {
    runner: Arc<dyn Runner>,
}

impl Service<AttemptRequest> for CatchPanic {
    type Response = AttemptEnd;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<AttemptEnd, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: AttemptRequest) -> Self::Future {
        let runner = Arc::clone(&self.runner);
        async move {
            // `run` builds the worker, which is the user's code too: its panic is caught as
            // well. Nothing of either is looked at after one.
            let running = AssertUnwindSafe(async move { runner.run(request.call).await });
            let ran = running.catch_unwind().await.unwrap_or_else(|panic| Ran::Panicked(said(&*panic)));
            Ok(AttemptEnd { ran })
        }
        .boxed()
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

/// A layer made of an async function that is given the attempt and the rest of its way.
///
/// ```
/// use bellows_sdk::middleware::{self, AttemptEnd};
/// use bellows_sdk::prelude::*;
///
/// let slow_ones = middleware::from_fn(|request, next| async move {
///     let (task, began) = (request.context().task_id(), tokio::time::Instant::now());
///     let end: AttemptEnd = next.run(request).await;
///     if began.elapsed().as_secs() > 10 {
///         println!("{task} was slow, and {}", if end.is_success() { "succeeded" } else { "failed" });
///     }
///     end
/// });
/// let tasks = Tasks::new().layer(slow_ones);
/// ```
pub fn from_fn<F, R>(function: F) -> FromFn<F>
where
    F: Fn(AttemptRequest, Next) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = AttemptEnd> + Send + 'static,
{
    FromFn { function }
}

/// See [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F> {
    function: F,
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

/// The rest of an attempt's way to its handler.
#[derive(Debug)]
pub struct Next {
    inner: AttemptService,
}

impl Next {
    /// Goes it, to the end.
    pub async fn run(self, request: AttemptRequest) -> AttemptEnd {
        let end = self.inner.oneshot(request).await;
        end.unwrap_or_else(|error| AttemptEnd::failed(TaskError::retry(error)))
    }
}

/// See [`from_fn`].
#[derive(Debug, Clone)]
pub struct FromFnService<F> {
    function: F,
    inner: AttemptService,
}

impl<F: Clone> Layer<AttemptService> for FromFn<F> {
    type Service = FromFnService<F>;

    fn layer(&self, inner: AttemptService) -> FromFnService<F> {
        FromFnService { function: self.function.clone(), inner }
    }
}

impl<F, R> Service<AttemptRequest> for FromFnService<F>
where
    F: Fn(AttemptRequest, Next) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = AttemptEnd> + Send + 'static,
{
    type Response = AttemptEnd;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<AttemptEnd, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // the rest is asked when it is called
    }

    fn call(&mut self, request: AttemptRequest) -> Self::Future {
        let next = Next { inner: self.inner.clone() };
        (self.function)(request, next).map(Ok).boxed()
    }
}
