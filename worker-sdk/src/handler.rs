//! A kind of work and its handler in one type: what `#[task]` writes, and what can be
//! written without it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::definition::{PayloadOf, TaskDefinition};
use crate::outcome::{TaskError, TaskResult, TaskSuccess};
use crate::settings::TaskSettings;
use crate::state::States;
use crate::worker::TaskContext;

/// A kind of work that knows its handler: what [`tasks!`](crate::tasks) takes.
///
/// `#[task]` writes it. By hand it is:
///
/// ```
/// use bellows_sdk::prelude::*;
/// use bellows_sdk::spec::Span;
/// use bellows_sdk::{States, TaskHandler, TaskSettings};
///
/// struct Db;
/// struct CountRows;
///
/// impl TaskDefinition for CountRows {
///     const NAME: &'static str = "count-rows";
///     type Callback = u64;
///     type Trigger = PublishTrigger<String>;
/// }
///
/// impl TaskHandler for CountRows {
///     fn settings() -> TaskSettings {
///         TaskSettings::new().timeout(Span::secs(10)).needs::<State<Db>>()
///     }
///
///     async fn handle(context: TaskContext, table: String, states: States) -> TaskResult<u64> {
///         let _db = State::<Db>::take(&context, &states)?;
///         Ok(TaskSuccess::done(table.len() as u64))
///     }
/// }
///
/// let tasks = tasks![CountRows].with_state(Db);
/// assert_eq!(tasks.names(), ["count-rows"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task with a handler",
    label = "expected a function with `#[task(…)]`, or a type with `TaskHandler`",
    note = "a definition whose handler is a closure or a `Worker` is added by `Tasks::with_fn` or `Tasks::with`"
)]
pub trait TaskHandler: TaskDefinition {
    /// What the code says of how it is run, and what it needs.
    fn settings() -> TaskSettings {
        TaskSettings::new()
    }

    /// One attempt. Guarantees and cancel safety are those of
    /// [`Worker::process`](crate::Worker::process).
    fn handle(
        context: TaskContext,
        payload: PayloadOf<Self>,
        states: States,
    ) -> impl Future<Output = TaskResult<Self::Callback>> + Send;
}

/// What the function under `#[task]` may return: `Result<C, E>`, where `C` is the result or
/// a [`TaskSuccess`] of it, and `E` a [`TaskError`] or any error, which means *retry*.
#[diagnostic::on_unimplemented(
    message = "a task's handler cannot return `{Self}`",
    label = "expected `Result<C, E>`",
    note = "`C` is what a publisher awaits (`Serialize + DeserializeOwned + Send`), or `TaskSuccess<C>`; \
            `E` is `TaskError`, or any error that is `Send + Sync + 'static`"
)]
pub trait HandlerOutput {
    /// What a publisher awaits.
    type Callback: Serialize + DeserializeOwned + Send + 'static;

    /// As the SDK takes it.
    fn into_result(self) -> TaskResult<Self::Callback>;
}

#[diagnostic::do_not_recommend]
impl<S: HandlerSuccess, E> HandlerOutput for Result<S, E>
where
    TaskError: From<E>,
{
    type Callback = S::Callback;

    fn into_result(self) -> TaskResult<S::Callback> {
        self.map(HandlerSuccess::into_success).map_err(TaskError::from)
    }
}

/// What stands in the `Ok` of a handler: a result, or a [`TaskSuccess`] of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task",
    label = "a publisher could not await this",
    note = "derive `Serialize` and `Deserialize` for it: `#[derive(Serialize, Deserialize)]`"
)]
pub trait HandlerSuccess {
    /// What a publisher awaits.
    type Callback: Serialize + DeserializeOwned + Send + 'static;

    /// As the SDK takes it.
    fn into_success(self) -> TaskSuccess<Self::Callback>;
}

#[diagnostic::do_not_recommend]
impl<C: Serialize + DeserializeOwned + Send + 'static> HandlerSuccess for C {
    type Callback = C;

    fn into_success(self) -> TaskSuccess<C> {
        TaskSuccess::done(self)
    }
}

impl<C: Serialize + DeserializeOwned + Send + 'static> HandlerSuccess for TaskSuccess<C> {
    type Callback = C;

    fn into_success(self) -> Self {
        self
    }
}
