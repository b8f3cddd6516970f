//! Tasks as plain data: what to save in order to await a result later, elsewhere.

use std::fmt;
use std::marker::PhantomData;

use bellows_registry::id::{DefinitionId, ResultSlot, TaskId};
use serde::{Deserialize, Serialize};

/// A task, without the type of its result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RawTaskRef {
    /// Its definition.
    #[serde(flatten)]
    pub definition: DefinitionId,
    /// Its id.
    #[serde(rename = "task")]
    pub id: TaskId,
    /// Where its terminal record goes.
    pub slot: ResultSlot,
}

impl fmt::Display for RawTaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.definition, self.id)
    }
}

/// A task of a known kind. Serializes to a few words of JSON; as good after a restart, in
/// another process, or on another machine.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct TaskRef<T> {
    raw: RawTaskRef,
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

impl<T> TaskRef<T> {
    /// A reference whose type is known: one from a
    /// [`PublishError::Unknown`](crate::PublishError::Unknown), for instance. A wrong type
    /// is told when the result is read.
    pub fn from_raw(raw: RawTaskRef) -> Self {
        Self { raw, kind: PhantomData }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.raw.id
    }

    /// Without the type.
    pub fn raw(&self) -> &RawTaskRef {
        &self.raw
    }
}

impl<T> Clone for TaskRef<T> {
    fn clone(&self) -> Self {
        Self::from_raw(self.raw.clone())
    }
}

impl<T> fmt::Debug for TaskRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.raw)
    }
}

impl<T> PartialEq for TaskRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl<T> Eq for TaskRef<T> {}
