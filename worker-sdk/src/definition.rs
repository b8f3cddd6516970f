//! What a kind of work is called, what it takes and what it gives.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::version::UpgradeError;

/// A kind of work.
///
/// Usually an empty struct: it exists to be named in types.
///
/// ```
/// use bellows_sdk::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct Resize { url: String, width: u32 }
/// #[derive(Serialize, Deserialize)]
/// struct Thumb { key: String }
///
/// struct ResizeImage;
/// impl TaskDefinition for ResizeImage {
///     const NAME: &'static str = "resize-image";
///     type Callback = Thumb;
///     type Trigger = PublishTrigger<Resize>;
/// }
/// ```
pub trait TaskDefinition: Send + Sync + 'static {
    /// The globally stable name, within a namespace: the `metadata.name` of the
    /// `TaskDefinition` on the cluster. Lower-case letters, digits, `-` and `.`.
    const NAME: &'static str;
    /// The result that a publisher awaits.
    type Callback: Serialize + DeserializeOwned + Send + 'static;
    /// How work begins: [`PublishTrigger`] or [`SingletonTrigger`].
    type Trigger: ActivationStrategy;

    /// The version of the payload's shape, from 1: written beside each payload.
    ///
    /// Raise it when older payloads can no longer be read as the new type, and say in
    /// [`TaskDefinition::upgrade`] how they become new ones. A worker leaves payloads of a
    /// version above its own alone: they wait for a worker that knows it.
    const VERSION: u32 = 1;

    /// Names that this definition had before.
    ///
    /// A task stays where it was published: under the old name. A worker of this definition
    /// serves it there: in a registry that its own process hosts always, on a cluster where
    /// `BELLOWS_DEFINITION` is the old name, so that the old `TaskDefinition` can run the
    /// new image until its tasks are done. A [`TaskRef`](crate::TaskRef) saved under the old
    /// name stays good. New tasks are published under [`TaskDefinition::NAME`].
    const ALIASES: &'static [&'static str] = &[];

    /// Makes a payload of `version` one of `version + 1`. Called for each step from the
    /// payload's version up to [`TaskDefinition::VERSION`], on the handler's runtime and just
    /// before the handler; a panic is a failed attempt.
    ///
    /// [`upgrade::step`](crate::upgrade::step) takes a plain function from the old type to
    /// the new one, and its page shows a whole chain. `#[task(version = 3,
    /// upgrade(from_v1, from_v2))]` expands to `const VERSION: u32 = 3;` and to this, with
    /// the last function coming from the version before this one:
    ///
    /// ```ignore
    /// fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> { // all of `bellows_sdk::upgrade`
    ///     match version {
    ///         1 => bellows_sdk::upgrade::step(payload, from_v1),
    ///         2 => bellows_sdk::upgrade::step(payload, from_v2),
    ///         _ => Err(UpgradeError::NoStep(version)),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The payload then counts as one that does not decode: it is parked in the end, with
    /// the error.
    fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> {
        drop(payload);
        Err(UpgradeError::NoStep(version))
    }
}

/// What an attempt is given.
pub type PayloadOf<T> = <<T as TaskDefinition>::Trigger as ActivationStrategy>::Payload;

/// How work begins. Sealed: there are two ways, and the registry knows both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the trigger of a task",
    label = "a payload is stored, and this one cannot be",
    note = "derive `Serialize` and `Deserialize` for the payload; it must be `Send + 'static` too"
)]
pub trait ActivationStrategy: sealed::Sealed + Send + Sync + 'static {
    /// What an attempt is given; `()` if tasks carry nothing.
    type Payload: Serialize + DeserializeOwned + Send + 'static;
    /// Which way this is.
    const TRIGGER: bellows_registry::spec::Trigger;
}

/// Tasks are published, each with a payload.
#[derive(Debug)]
pub struct PublishTrigger<P>(PhantomData<fn() -> P>);

/// Exactly one task exists as long as its definition does. It is always ready, carries
/// nothing, and runs on one worker at a time across the fleet.
#[derive(Debug)]
pub struct SingletonTrigger;

#[diagnostic::do_not_recommend]
impl<P: Serialize + DeserializeOwned + Send + 'static> ActivationStrategy for PublishTrigger<P> {
    type Payload = P;
    const TRIGGER: bellows_registry::spec::Trigger = bellows_registry::spec::Trigger::Publish;
}

impl ActivationStrategy for SingletonTrigger {
    type Payload = ();
    const TRIGGER: bellows_registry::spec::Trigger = bellows_registry::spec::Trigger::Singleton;
}

/// The way of those definitions whose tasks can be published.
#[diagnostic::on_unimplemented(
    message = "a singleton task cannot be published",
    label = "this definition's trigger is `{Self}`, not a `PublishTrigger`",
    note = "a singleton's one task exists as long as its definition does; give the definition a \
            `PublishTrigger<Payload>` to publish tasks"
)]
pub trait PublishStrategy: ActivationStrategy {}

impl<P: Serialize + DeserializeOwned + Send + 'static> PublishStrategy for PublishTrigger<P> {}

mod sealed {
    pub trait Sealed {}
    impl<P> Sealed for super::PublishTrigger<P> {}
    impl Sealed for super::SingletonTrigger {}
}
