//! The seam for what is done to bodies between a program and the registry.

use std::error::Error;
use std::fmt;

use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::record::limits;

use super::undecodable::cut;
use crate::error::OptionError;

/// Something that is done to the bytes of payloads and results: compressing, encrypting.
///
/// # Expected flow
/// A publisher's client applies its codecs to the payload, in the order in which they were
/// given, and the names of those that did something are written beside it. A worker undoes
/// them from the last to the first, by name. Results go the same way back.
///
/// Codecs are plain code, called on the runtime of whoever publishes or handles; bodies of
/// more than 64 KiB are done on tokio's blocking threads.
///
/// ```
/// use bellows_sdk::{About, Codec, CodecError, Encoded};
///
/// /// Not encryption.
/// #[derive(Debug)]
/// struct Backwards;
///
/// impl Codec for Backwards {
///     fn id(&self) -> &str { "backwards" }
///
///     fn encode(&self, _: &About, body: &[u8]) -> Result<Option<Encoded>, CodecError> {
///         Ok(Some(Encoded::new(body.iter().rev().copied().collect())))
///     }
///
///     fn decode(&self, _: &About, _: Option<&str>, body: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
///         if body.len() > limit {
///             return Err(CodecError::TooLarge { limit });
///         }
///         Ok(body.iter().rev().copied().collect())
///     }
/// }
/// # let codecs = bellows_sdk::Codecs::new().with(Backwards);
/// ```
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// Its name, which is kept with each body: at most 64 lower-case letters, digits and
    /// `-`. A format that changes needs another name.
    fn id(&self) -> &str;

    /// Does it. `None` leaves the body as it is, and the codec unnamed: where compressing
    /// would not make it smaller, for instance.
    ///
    /// # Errors
    /// Nothing is published; a result is refused.
    fn encode(&self, about: &About, body: &[u8]) -> Result<Option<Encoded>, CodecError>;

    /// Undoes it. `key` is what [`Encoded::under`] named.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] before more than `limit` bytes are held in memory, whatever
    /// the body says. The payload counts as one that does not decode.
    fn decode(
        &self,
        about: &About,
        key: Option<&str>,
        body: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, CodecError>;
}

/// What a codec made of a body.
#[derive(Clone)]
pub struct Encoded {
    pub(crate) body: Vec<u8>,
    pub(crate) key: Option<String>,
}

impl Encoded {
    /// These bytes.
    pub fn new(body: Vec<u8>) -> Self {
        Self { body, key: None }
    }

    /// These bytes, under the key of this name: at most 64 letters, digits and any of
    /// `-._`.
    pub fn under(key: impl Into<String>, body: Vec<u8>) -> Self {
        Self { body, key: Some(key.into()) }
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded").field("key", &self.key).field("bytes", &self.body.len()).finish()
    }
}

/// Which body it is: what a cipher binds it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub(crate) definition: DefinitionId,
    pub(crate) task: TaskId,
    pub(crate) part: Part,
}

/// Which part of a task a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// What the publisher gave.
    Payload,
    /// What the handler gave.
    Result,
}

impl About {
    pub(crate) fn payload(definition: &DefinitionId, task: TaskId) -> Self {
        Self { definition: definition.clone(), task, part: Part::Payload }
    }

    pub(crate) fn result(definition: &DefinitionId, task: TaskId) -> Self {
        Self { definition: definition.clone(), task, part: Part::Result }
    }

    /// The task's definition.
    pub fn definition(&self) -> &DefinitionId {
        &self.definition
    }

    /// The task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Which part of it.
    pub fn part(&self) -> Part {
        self.part
    }

    /// The same as bytes, no two bodies alike: the associated data of a cipher, so that
    /// what was sealed for one body does not open as another.
    pub fn binding(&self) -> Vec<u8> {
        let part = match self.part {
            Part::Payload => "payload",
            Part::Result => "result",
        };
        // Names have no spaces.
        format!("bellows1 {part} {} {}", self.definition, self.task).into_bytes()
    }
}

/// Why a body could not be encoded or decoded. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The body was encoded with a codec that this program was not given.
    #[error("codec {0:?} is not known to this program")]
    UnknownCodec(String),
    /// The body was sealed with a key that this program was not given.
    #[error("key {key:?} of codec {codec:?} is not known to this program")]
    UnknownKey {
        /// The codec.
        codec: String,
        /// The key's name.
        key: String,
    },
    /// The body does not open: another key of the same name, or not this task's body.
    #[error(
        "it does not open with key {key:?} of codec {codec:?}: another key has this name, or it is not this task's"
    )]
    Refused {
        /// The codec.
        codec: String,
        /// The key's name.
        key: String,
    },
    /// The body is not what the codec makes.
    #[error("it is damaged: not what codec {0:?} makes")]
    Damaged(String),
    /// The decoded body would be larger than this program takes.
    #[error("decoded, it has more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// What the body refers to is not there.
    #[error("the object {0:?} that it refers to is not there")]
    Missing(String),
    /// The place where large bodies are does not answer. Trying again may help.
    #[error("the object store does not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The codec's own words. They may be kept with the task and logged: nothing of the
    /// body.
    #[error("codec {codec:?}: {text}")]
    Failed {
        /// The codec.
        codec: String,
        /// What went wrong.
        text: String,
    },
}

impl CodecError {
    /// A codec of this name, which is a stranger's.
    pub(crate) fn unknown(codec: &str) -> Self {
        Self::UnknownCodec(cut(codec))
    }

    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Refuses the name of a codec or of a key.
pub(crate) fn check_name(option: &'static str, name: &str) -> Result<(), OptionError> {
    let max = limits::CODEC_NAME;
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if (1..=max).contains(&name.len()) && name.bytes().all(inner) {
        return Ok(());
    }
    let limit = format!("1 to {max} letters, digits or any of -._");
    Err(OptionError { option, value: cut(name), limit })
}
