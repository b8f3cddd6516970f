//! What tests of the registry, and of whoever writes another backend, build on.
//!
//! * [`conformance`]: what a [`Backend`] owes, as named checks;
//! * [`script`]: random operations side by side on two backends, every answer compared;
//! * [`records`]: records as tests need them;
//! * [`Faulty`]: faults at the waist, scripted or drawn from a seed.
//!
//! Must not be used outside of tests: it is compiled with the feature `testkit`.

pub mod conformance;
mod faulty;
pub mod records;
pub mod script;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, BackendError, Revision};

pub use faulty::{Fault, Faulty, Rates, deletes, puts, touches};

/// A backend under test, with what the waist leaves to the operator of the store.
pub trait Host: Backend {
    /// The four primitives.
    fn backend(&self) -> &dyn Backend;

    /// Forgets history before `revision`.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), BackendError>>;
}

impl Host for MemoryBackend {
    fn backend(&self) -> &dyn Backend {
        self
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), BackendError>> {
        async move { Self::compact(self, revision) }.boxed()
    }
}

#[cfg(feature = "embedded")]
impl Host for crate::backend::embedded::EmbeddedBackend {
    fn backend(&self) -> &dyn Backend {
        self
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), BackendError>> {
        async move { Self::compact(self, revision) }.boxed()
    }
}

#[cfg(feature = "etcd")]
impl Host for crate::backend::etcd::EtcdBackend {
    fn backend(&self) -> &dyn Backend {
        self
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), BackendError>> {
        Self::compact(self, revision).boxed()
    }
}
