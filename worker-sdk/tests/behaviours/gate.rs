//! Where a handler says that it is there, and waits until the test lets it go on.

use std::sync::Arc;

use bellows_sdk::prelude::*;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::world::{SOON, within};

/// One handler passes at a time. Clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    arrived: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    /// For the handler: says that it is there.
    pub(crate) fn arrive(&self) {
        self.arrived.notify_one();
    }

    /// For the handler: says that it is there, and waits.
    pub(crate) async fn pass(&self) {
        self.arrive();
        self.opened.notified().await;
    }

    /// For the test: waits until a handler is there.
    pub(crate) async fn reached(&self) {
        within(SOON, self.arrived.notified()).await;
    }

    /// For the test: lets the handler go on.
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }

    /// A handler that passes here before it does its work.
    pub(crate) fn then<F, R>(&self, act: F) -> impl Fn(TaskContext, String) -> Acting + Clone + use<F, R>
    where
        F: Fn(TaskContext, String) -> R + Clone + Send + 'static,
        R: Future<Output = TaskResult<String>> + Send,
    {
        let gate = self.clone();
        move |context, text| {
            let (gate, act) = (gate.clone(), act.clone());
            Box::pin(async move {
                gate.pass().await;
                act(context, text).await
            })
        }
    }

    /// A handler that passes here and answers what it was given.
    pub(crate) fn then_echo(&self) -> impl Fn(TaskContext, String) -> Acting + Clone + use<> {
        self.then(|_, text| async { Ok(text.into()) })
    }

    /// A handler that answers what it was given, and passes here before that if it is `held`.
    pub(crate) fn holding(
        &self,
        held: &'static str,
    ) -> impl Fn(TaskContext, String) -> Acting + Clone + use<> {
        let gate = self.clone();
        move |_, text| {
            let gate = gate.clone();
            Box::pin(async move {
                if text == held {
                    gate.pass().await;
                }
                Ok(text.into())
            })
        }
    }

    /// A handler that says that it is there, and goes on until it is told to stop.
    pub(crate) fn until_told(&self) -> impl Fn(TaskContext, String) -> Acting + Clone + use<> {
        let gate = self.clone();
        move |context, _| {
            gate.arrive();
            Box::pin(async move {
                context.cancelled().cancelled().await;
                Err("was told to stop".into())
            })
        }
    }
}

/// A handler at work.
pub(crate) type Acting = BoxFuture<'static, TaskResult<String>>;
