//! What a kind of work is called, what it takes and what it gives.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

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
}

/// What an attempt is given.
pub type PayloadOf<T> = <<T as TaskDefinition>::Trigger as ActivationStrategy>::Payload;

/// How work begins. Sealed: there are two ways, and the registry knows both.
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
