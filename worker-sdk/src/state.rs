//! What a handler is given beside its input: the program's state by type, and the context.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::outcome::TaskError;
use crate::worker::TaskContext;

/// State of the program, shared by all attempts: a pool of connections, a client, a
/// configuration. Given once by [`Tasks::with_state`](crate::Tasks::with_state), found by
/// its type.
///
/// Cloning it is cheap. A handler asks for it by an argument:
///
/// ```
/// # use bellows_sdk::prelude::*;
/// # struct Db;
/// #[task(name = "count-rows")]
/// async fn count_rows(table: String, db: State<Db>) -> Result<u64, TaskError> {
///     // `db` is used as a `&Db`.
/// #   let _: &Db = &db; drop(table); Ok(0)
/// }
///
/// let tasks = tasks![count_rows].with_state(Db);
/// ```
pub struct State<T: ?Sized>(Arc<T>);

impl<T: ?Sized> State<T> {
    /// As an [`Arc`], to be kept.
    pub fn into_inner(self) -> Arc<T> {
        self.0
    }
}

impl<T: ?Sized> From<Arc<T>> for State<T> {
    fn from(state: Arc<T>) -> Self {
        Self(state)
    }
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A state and the name of its type.
type Held = (&'static str, Arc<dyn Any + Send + Sync>);

/// The state that a program gives to its tasks: at most one of each type.
#[derive(Clone, Default)]
pub struct States {
    by_type: Arc<HashMap<TypeId, Held>>,
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.values().map(|(name, _)| name)).finish()
    }
}

impl States {
    /// The state of a type, if the program gave one.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<State<T>> {
        let (_, state) = self.by_type.get(&TypeId::of::<T>())?;
        Arc::clone(state).downcast().ok().map(State)
    }

    pub(crate) fn add<T: Send + Sync + 'static>(&mut self, state: T) {
        let by_type = Arc::make_mut(&mut self.by_type);
        by_type.insert(TypeId::of::<T>(), (type_name::<T>(), Arc::new(state)));
    }

    pub(crate) fn has(&self, need: &Need) -> bool {
        self.by_type.contains_key(&need.id)
    }
}

/// A type of state that a handler cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    id: TypeId,
    /// The type's name, for people.
    pub type_name: &'static str,
}

impl Need {
    /// That of a type.
    pub fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), type_name: type_name::<T>() }
    }
}

/// What a handler can be given beside its input. Implement it for types of your own, that
/// are made of the context and the state.
#[diagnostic::on_unimplemented(
    message = "a task's handler cannot be given `{Self}`",
    label = "neither the input, nor `bellows_sdk::TaskContext`, nor `bellows_sdk::State<T>`",
    note = "`State<T>` needs a `T` that is `Send + Sync + 'static`; a `State` or `TaskContext` of another \
            crate is not ours: check the `use` lines"
)]
pub trait Injected: Sized {
    /// What the program must give by `with_state` before a worker starts.
    fn need() -> Option<Need> {
        None
    }

    /// Takes it.
    ///
    /// # Errors
    /// As for any handler: the attempt ends with it.
    fn take(context: &TaskContext, states: &States) -> Result<Self, TaskError>;
}

impl Injected for TaskContext {
    fn take(context: &TaskContext, _: &States) -> Result<Self, TaskError> {
        Ok(context.clone())
    }
}

impl<T: Send + Sync + 'static> Injected for State<T> {
    fn need() -> Option<Need> {
        Some(Need::of::<T>())
    }

    fn take(_: &TaskContext, states: &States) -> Result<Self, TaskError> {
        states
            .get()
            .ok_or_else(|| TaskError::retry(format!("no state of type {} is given", type_name::<T>())))
    }
}
