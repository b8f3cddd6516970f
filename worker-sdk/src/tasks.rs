//! The kinds of work a process can do, with their types erased once.

mod run;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bellows_registry::id::WorkerId;
use bellows_registry::record::limits;
use bellows_registry::spec::{Policy, Trigger};
use tower::{BoxError, Layer, Service};

use crate::blocking::{Blocking, BlockingHandler};
use crate::definition::{ActivationStrategy, PayloadOf, TaskDefinition};
use crate::envelope::codecs::Codecs;
use crate::handler::TaskHandler;
use crate::middleware::{self, AttemptEnd, AttemptRequest, AttemptService, ErasedLayer};
use crate::outcome::TaskResult;
use crate::settings::Stated;
use crate::state::{Need, States};
use crate::worker::{TaskContext, Worker, WorkerFactory};

pub(crate) use run::{Call, Ran, Runner, ran, read};
use run::{Erased, Function, Handled};

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
    states: States,
    pub(crate) layers: Vec<ErasedLayer>,
    pub(crate) codecs: Option<Codecs>,
    pub(crate) max_body: Option<usize>,
}

/// One kind of work.
#[derive(Clone)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The names it had before.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) trigger: Trigger,
    pub(crate) concurrency: Option<u32>,
    pub(crate) policy: Policy,
    /// What the code says of the policy, if it says anything.
    pub(crate) stated: Stated,
    /// Whether `policy` is all that counts, as [`Tasks::policy`] says.
    pub(crate) is_whole: bool,
    needs: Vec<Need>,
    pub(crate) runner: Arc<dyn Runner>,
}

/// A handler asks for state that the program does not give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} needs State<{type_name}>, which is not given: add .with_state(…) to the tasks")]
pub struct MissingState {
    /// The name of the kind of work.
    pub task: &'static str,
    /// The type of the state.
    pub type_name: &'static str,
}

impl Kind {
    /// The same work, under one of the names it had before.
    pub(crate) fn under(&self, name: &'static str) -> Self {
        Self { name, aliases: &[], ..self.clone() }
    }
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

    /// Adds a kind of work with its handler, as [`tasks!`](crate::tasks) does.
    pub fn with_task<T: TaskHandler>(self) -> Self {
        let settings = T::settings();
        let none = States::default();
        let runner: Arc<dyn Runner> = if settings.blocks {
            Arc::new(BlockingHandler::<T>::given(&none))
        } else {
            Arc::new(Handled::<T>::given(&none))
        };
        let mut tasks = self.add::<T>(runner);
        if let Some(kind) = tasks.kinds.last_mut() {
            kind.concurrency = settings.stated.concurrency();
            kind.policy = settings.stated.over(&kind.policy, kind.trigger);
            kind.stated = settings.stated;
            kind.needs = settings.needs;
        }
        tasks.bind()
    }

    /// Gives state to all handlers that ask for it by a [`State`](crate::State) of its
    /// type, whether they are added already or not. A second one of the same type replaces
    /// the first.
    pub fn with_state<S: Send + Sync + 'static>(mut self, state: S) -> Self {
        self.states.add(state);
        self.bind()
    }

    /// Whether every handler gets what it asks for. [`serve`](crate::serve()) and
    /// [`WorkerDispatcher::launch`](crate::WorkerDispatcher::launch) ask this first.
    pub fn check(&self) -> Result<(), MissingState> {
        for kind in &self.kinds {
            if let Some(need) = kind.needs.iter().find(|need| !self.states.has(need)) {
                return Err(MissingState { task: kind.name, type_name: need.type_name });
            }
        }
        Ok(())
    }

    /// Surrounds every attempt, of kinds added before and after, with a layer. The first
    /// one added is the outermost. The whole order is in [`middleware`](crate::middleware).
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<AttemptService> + Send + Sync + 'static,
        L::Service: Service<AttemptRequest, Response = AttemptEnd> + Clone + Send + Sync + 'static,
        <L::Service as Service<AttemptRequest>>::Error: Into<BoxError>,
        <L::Service as Service<AttemptRequest>>::Future: Send + 'static,
    {
        self.layers.push(middleware::erased(layer));
        self
    }

    /// Adds a kind of work by a function that blocks its thread: one that computes for
    /// long, or that calls a library which waits without `async`.
    ///
    /// Each attempt runs on a thread of its own, beside the threads that run async code:
    /// it costs neither the worker's lease nor other handlers their turn. There are at
    /// most as many such threads as the kind has slots ([`Tasks::concurrency`]).
    ///
    /// # Guarantees
    /// As for [`Worker::process`]. But nobody can end a thread from outside: a function
    /// that does not look at [`TaskContext::is_held`] now and then runs on after its
    /// time-out, its slot is stuck until it returns, and what it returns then is not
    /// recorded. Once all slots are stuck, the worker says that it is not alive.
    ///
    /// ```
    /// # use bellows_sdk::prelude::*;
    /// # struct Sum;
    /// # impl TaskDefinition for Sum {
    /// #     const NAME: &'static str = "sum";
    /// #     type Callback = u64;
    /// #     type Trigger = PublishTrigger<u64>;
    /// # }
    /// let tasks = Tasks::new().with_blocking_fn::<Sum, _>(|context, n| {
    ///     let mut sum = 0;
    ///     for i in 0..n {
    ///         if i % 1_000_000 == 0 && !context.is_held() {
    ///             return Err("told to stop".into());
    ///         }
    ///         sum += i;
    ///     }
    ///     Ok(sum.into())
    /// });
    /// ```
    pub fn with_blocking_fn<T, F>(self, function: F) -> Self
    where
        T: TaskDefinition,
        F: Fn(TaskContext, PayloadOf<T>) -> TaskResult<T::Callback> + Clone + Send + Sync + 'static,
    {
        self.add::<T>(Arc::new(Blocking::<T, F>::new(function)))
    }

    /// How many tasks of the kind added last run at once in this process. The
    /// environment's `BELLOWS_CONCURRENCY` wins. Default 8.
    pub fn concurrency(mut self, slots: u32) -> Self {
        if let Some(kind) = self.kinds.last_mut() {
            kind.concurrency = Some(slots.max(1));
        }
        self
    }

    /// The whole policy of the kind added last, in a registry that this process hosts: it
    /// replaces what its attribute says, and what an earlier version of the program has
    /// written. On a cluster the `TaskDefinition` has it.
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(kind) = self.kinds.last_mut() {
            kind.policy = Policy { trigger: kind.trigger, ..policy };
            kind.is_whole = true;
        }
        self
    }

    /// What is done to payloads and results, for a worker whose client is made by
    /// [`serve`](crate::serve()); wins over the client's
    /// [`Options::codecs`](crate::Options::codecs).
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = Some(codecs);
        self
    }

    /// The largest result, and the largest payload of a follow-up task, as they are written, in
    /// bytes, for a worker whose client is made by [`serve`](crate::serve()); wins over the
    /// client's [`Options::max_body`](crate::Options::max_body), and is at most 1 MiB, as that.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes.min(limits::BODY_HARD));
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
        let (name, aliases) = (T::NAME, T::ALIASES);
        self.kinds.push(Kind {
            name,
            aliases,
            trigger,
            concurrency: None,
            policy,
            stated: Stated::default(),
            is_whole: false,
            needs: Vec::new(),
            runner,
        });
        self
    }

    /// Every handler sees the state there is now.
    fn bind(mut self) -> Self {
        for kind in &mut self.kinds {
            if let Some(bound) = kind.runner.with_states(&self.states) {
                kind.runner = bound;
            }
        }
        self
    }
}

/// The kinds of work of a program, by the functions under [`macro@task`](crate::task) (or other
/// types with a [`TaskHandler`](crate::TaskHandler)): `tasks![resize_image, sweep]` is
/// `Tasks::new().with_task::<resize_image>().with_task::<sweep>()`.
#[macro_export]
macro_rules! tasks {
    ($($task:ty),* $(,)?) => {
        $crate::Tasks::new()$(.with_task::<$task>())*
    };
}
