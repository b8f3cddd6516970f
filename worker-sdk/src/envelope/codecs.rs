//! The codecs a program was given, and how a body goes through them.

use std::fmt;
use std::sync::Arc;

use bellows_registry::record::{Applied, limits};
use bytes::Bytes;

use super::codec::{About, Codec, CodecError, check_name};
#[cfg(feature = "object-store")]
use super::objects::{self, Objects};
use crate::error::OptionError;

/// Larger bodies are encoded and decoded on tokio's blocking threads.
const BLOCKING: usize = 64 * 1024;

/// What is done to payloads and results: given to a client by
/// [`Options::codecs`](crate::Options::codecs), and to a worker's tasks by
/// [`Tasks::codecs`](crate::Tasks::codecs).
///
/// A program must know every codec and key that others write with **before** they do: in a
/// roll-out, first [`Codecs::reads`] everywhere, then [`Codecs::with`].
///
/// ```
/// # fn codecs() -> Result<bellows_sdk::Codecs, Box<dyn std::error::Error>> {
/// use bellows_sdk::Codecs;
/// # #[cfg(all(feature = "zstd", feature = "encryption"))]
/// use bellows_sdk::{Encryption, Keyring, Zstd};
///
/// let codecs = Codecs::new();
/// // Compress before you encrypt: what is encrypted does not compress.
/// # #[cfg(all(feature = "zstd", feature = "encryption"))]
/// let codecs = codecs.with(Zstd::new()).with(Encryption::new(Keyring::parse(&std::env::var("TASK_KEYS")?)?));
/// # Ok(codecs)
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Codecs {
    /// Applied to what is written, in this order.
    steps: Vec<Arc<dyn Codec>>,
    /// Known for what is read, with those above.
    known: Vec<Arc<dyn Codec>>,
    max_decoded: Option<usize>,
    #[cfg(feature = "object-store")]
    objects: Option<Objects>,
}

/// A body on its way to the registry, and what was done to it.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(crate) body: Bytes,
    pub(crate) codecs: Vec<Applied>,
}

/// Why a body cannot be written.
#[derive(Debug)]
pub(crate) enum SealError {
    TooLarge { bytes: usize, limit: usize },
    Codec(CodecError),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => {
                write!(f, "it has {bytes} bytes; the limit is {limit}: store it elsewhere and return where")
            }
            Self::Codec(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |codecs: &[Arc<dyn Codec>]| codecs.iter().map(|c| c.id().to_owned()).collect::<Vec<_>>();
        f.debug_struct("Codecs")
            .field("with", &ids(&self.steps))
            .field("reads", &ids(&self.known))
            .finish_non_exhaustive()
    }
}

impl Codecs {
    /// None: bodies are written as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a codec to what is written, after those that were given before, and undoes
    /// it in what is read. At most 8.
    pub fn with(mut self, codec: impl Codec) -> Self {
        self.steps.push(Arc::new(codec));
        self
    }

    /// Undoes a codec in what is read, but does not apply it: for the first half of a
    /// roll-out, or the last.
    pub fn reads(mut self, codec: impl Codec) -> Self {
        self.known.push(Arc::new(codec));
        self
    }

    /// The largest payload or result before it is encoded and after it is decoded, in
    /// bytes: default 8 MiB, at most 256 MiB. It bounds what a small body that claims to
    /// be a huge one can cost. Without codecs it is the same as
    /// [`Options::max_body`](crate::Options::max_body), which bounds what is written.
    pub fn max_decoded(mut self, bytes: usize) -> Self {
        self.max_decoded = Some(bytes);
        self
    }

    /// Puts payloads into an object store that would, encoded, exceed
    /// [`Options::max_body`](crate::Options::max_body), and writes where they are. Objects
    /// lie under `<prefix>/<namespace>/<definition>/<task>/`.
    ///
    /// A worker deletes a payload's object when its task has succeeded or was cancelled by
    /// its handler, as well as it can. Everything else that ends a task (a purge, an
    /// expiry, a publisher that crashed half-way) leaves the object: give the bucket a
    /// lifecycle rule on the prefix that is longer than the longest delay, retries and
    /// retention of parked tasks together.
    #[cfg(feature = "object-store")]
    pub fn by_reference(mut self, store: Arc<dyn object_store::ObjectStore>, prefix: &str) -> Self {
        self.objects = Some(Objects::new(store, prefix));
        self
    }

    /// Refuses what cannot work, before anything is connected.
    pub(crate) fn check(&self) -> Result<(), OptionError> {
        let refused = |option, value: String, limit: String| Err(OptionError { option, value, limit });
        if self.steps.len() > limits::CODECS {
            return refused("codecs", self.steps.len().to_string(), format!("at most {}", limits::CODECS));
        }
        for (at, codec) in self.steps.iter().enumerate() {
            check_name("codec", codec.id())?;
            if self.steps[..at].iter().any(|earlier| earlier.id() == codec.id()) {
                return refused("codec", codec.id().to_owned(), "each codec once".to_owned());
            }
        }
        match self.max_decoded {
            Some(bytes) if bytes > limits::DECODED_HARD => {
                refused("max_decoded", bytes.to_string(), format!("at most {} bytes", limits::DECODED_HARD))
            }
            _ => Ok(()),
        }
    }

    /// The largest body before it is encoded.
    pub(crate) fn raw_limit(&self, max_body: usize) -> usize {
        #[cfg(feature = "object-store")]
        let plain = self.steps.is_empty() && self.objects.is_none();
        #[cfg(not(feature = "object-store"))]
        let plain = self.steps.is_empty();
        if plain { max_body } else { self.decoded_limit() }
    }

    fn decoded_limit(&self) -> usize {
        self.max_decoded.unwrap_or(limits::DECODED_DEFAULT)
    }

    /// A payload as it is written: encoded, and elsewhere if it is still too large.
    ///
    /// # Cancel safety
    /// An object may be left behind; see [`Codecs::by_reference`].
    pub(crate) async fn seal_payload(
        &self,
        about: &About,
        body: Bytes,
        max_body: usize,
    ) -> Result<Sealed, SealError> {
        let sealed = self.encode(about, body, max_body).await?;
        #[cfg(feature = "object-store")]
        if let (Some(objects), true) = (&self.objects, sealed.body.len() > max_body) {
            return objects.put(about, sealed).await.map_err(SealError::Codec);
        }
        within(sealed, max_body)
    }

    /// A result as it is written, or a payload that does not go by reference.
    pub(crate) async fn seal_in_place(
        &self,
        about: &About,
        body: Bytes,
        max_body: usize,
    ) -> Result<Sealed, SealError> {
        within(self.encode(about, body, max_body).await?, max_body)
    }

    async fn encode(&self, about: &About, body: Bytes, max_body: usize) -> Result<Sealed, SealError> {
        let (bytes, limit) = (body.len(), self.raw_limit(max_body));
        if bytes > limit {
            return Err(SealError::TooLarge { bytes, limit });
        }
        if self.steps.is_empty() {
            return Ok(Sealed { body, codecs: Vec::new() });
        }
        let (steps, about) = (self.steps.clone(), about.clone());
        blocking(bytes, move || apply(&steps, &about, body)).await.map_err(SealError::Codec)
    }

    /// The body as it was before it was sealed.
    pub(crate) async fn open(
        &self,
        about: &About,
        codecs: &[Applied],
        body: Bytes,
    ) -> Result<Bytes, CodecError> {
        if codecs.is_empty() {
            return Ok(body);
        }
        if codecs.len() > limits::CODECS + 1 {
            return Err(CodecError::Damaged(format!("a list of {} codecs", codecs.len())));
        }
        #[cfg(feature = "object-store")]
        let (codecs, body) = match (&self.objects, codecs.split_last()) {
            (Some(objects), Some((last, rest))) if last.codec == objects::ID => {
                (rest, objects.get(about, &body, self.decoded_limit()).await?)
            }
            _ => (codecs, body),
        };
        let steps = codecs.iter().rev().map(|applied| self.undo(applied)).collect::<Result<Vec<_>, _>>()?;
        let (about, limit) = (about.clone(), self.decoded_limit());
        blocking(body.len(), move || {
            steps.into_iter().try_fold(body, |body, (codec, key)| {
                codec.decode(&about, key.as_deref(), &body, limit).map(Bytes::from)
            })
        })
        .await
    }

    /// Deletes what a settled task's payload referred to, as well as it can.
    #[cfg(feature = "object-store")]
    pub(crate) async fn forget(&self, about: &About, codecs: &[Applied], body: &Bytes) {
        if let (Some(objects), true) = (&self.objects, refers(codecs)) {
            objects.delete(about, body).await;
        }
    }

    /// Finds the codec that undoes this.
    fn undo(&self, applied: &Applied) -> Result<(Arc<dyn Codec>, Option<String>), CodecError> {
        let mut all = self.steps.iter().chain(&self.known);
        let codec = all.find(|codec| codec.id() == applied.codec);
        let codec = codec.ok_or_else(|| CodecError::unknown(&applied.codec))?;
        Ok((Arc::clone(codec), applied.key.clone()))
    }
}

/// Whether the body is only where the payload is.
#[cfg(feature = "object-store")]
pub(crate) fn refers(codecs: &[Applied]) -> bool {
    codecs.last().is_some_and(|last| last.codec == objects::ID)
}

fn within(sealed: Sealed, limit: usize) -> Result<Sealed, SealError> {
    let bytes = sealed.body.len();
    if bytes > limit { Err(SealError::TooLarge { bytes, limit }) } else { Ok(sealed) }
}

fn apply(steps: &[Arc<dyn Codec>], about: &About, body: Bytes) -> Result<Sealed, CodecError> {
    let mut sealed = Sealed { body, codecs: Vec::new() };
    for codec in steps {
        let Some(encoded) = codec.encode(about, &sealed.body)? else { continue };
        if let Some(key) = &encoded.key {
            check_name("key", key).map_err(|error| CodecError::Failed {
                codec: codec.id().to_owned(),
                text: error.to_string(),
            })?;
        }
        sealed.body = encoded.body.into();
        sealed.codecs.push(Applied { codec: codec.id().to_owned(), key: encoded.key });
    }
    Ok(sealed)
}

async fn blocking<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, CodecError> + Send + 'static,
) -> Result<T, CodecError> {
    if bytes <= BLOCKING {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(CodecError::Failed { codec: String::new(), text: "it panicked".to_owned() }))
}

#[cfg(test)]
mod tests;
