//! Payloads by reference: in an object store, with a note in the registry that says where.

use std::sync::Arc;
use std::time::Duration;

use bellows_registry::entropy::Entropy;
use bellows_registry::record::Applied;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::codec::{About, CodecError};
use super::codecs::Sealed;

/// The name that such a payload has as its last codec.
pub(crate) const ID: &str = "object";
/// A store from which nothing came for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nor one that takes so long to take a body.
const PUT_PATIENCE: Duration = Duration::from_secs(60);

/// Where large payloads are.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

/// What the registry has instead of the payload. Not the whole path: whoever writes to the
/// registry shall not choose which objects workers read and delete.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The last part of the path: 16 hex digits, drawn for each publish, so that one that
    /// is sent again with other bytes leaves the first one's alone.
    name: String,
    bytes: u64,
    sha256: String,
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: prefix.to_owned() }
    }

    /// Puts the body there, and the note in its place.
    pub(crate) async fn put(&self, about: &About, sealed: Sealed) -> Result<Sealed, CodecError> {
        let name = format!("{:016x}", Entropy::system().bits64());
        let note = Note { name, bytes: sealed.body.len() as u64, sha256: digest(&sealed.body) };
        let path = self.path(about, &note.name);
        let put = timeout(PUT_PATIENCE, self.store.put(&path, sealed.body.into())).await;
        put.map_err(unavailable)?.map_err(unavailable)?;
        let body = serde_json::to_vec(&note).map_err(unavailable)?; // plain data: cannot fail
        let mut codecs = sealed.codecs;
        codecs.push(Applied { codec: ID.to_owned(), key: None });
        Ok(Sealed { body: body.into(), codecs })
    }

    /// The body that a note tells of.
    pub(crate) async fn get(&self, about: &About, note: &[u8], limit: usize) -> Result<Bytes, CodecError> {
        let note = read(note)?;
        let path = self.path(about, &note.name);
        self.fetch(&path, &note, limit).await
    }

    async fn fetch(&self, path: &Path, note: &Note, limit: usize) -> Result<Bytes, CodecError> {
        let found = in_time(path, self.store.get(path)).await?;
        // What encryption adds is no reason to refuse.
        let most = (limit as u64).saturating_add(64);
        if note.bytes > most || found.meta.size > most {
            return Err(CodecError::TooLarge { limit });
        }
        let mut whole = Vec::with_capacity(usize::try_from(found.meta.size).unwrap_or_default());
        let mut chunks = found.into_stream();
        while let Some(chunk) = in_time(path, chunks.try_next()).await? {
            if (whole.len() + chunk.len()) as u64 > most {
                return Err(CodecError::TooLarge { limit });
            }
            whole.extend_from_slice(&chunk);
        }
        if whole.len() as u64 != note.bytes || digest(&whole) != note.sha256 {
            return Err(CodecError::Damaged(ID.to_owned()));
        }
        Ok(whole.into())
    }

    /// Deletes the body that a note tells of, as well as it can.
    pub(crate) async fn delete(&self, about: &About, note: &[u8]) {
        let Ok(note) = read(note) else { return };
        let path = self.path(about, &note.name);
        let deleted = timeout(PATIENCE, self.store.delete(&path)).await;
        if !matches!(deleted, Ok(Ok(()))) {
            tracing::warn!(task = %about.task(), %path, "a payload's object is left behind");
        }
    }

    fn path(&self, about: &About, name: &str) -> Path {
        let (definition, task) = (about.definition(), about.task());
        Path::from(format!("{}/{definition}/{task}/{name}", self.prefix))
    }
}

fn read(note: &[u8]) -> Result<Note, CodecError> {
    let damaged = || CodecError::Damaged(ID.to_owned());
    let note: Note = serde_json::from_slice(note).map_err(|_| damaged())?;
    let plain = note.name.len() == 16 && note.name.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { Ok(note) } else { Err(damaged()) }
}

fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One answer of the store.
async fn in_time<T>(
    path: &Path,
    answer: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, CodecError> {
    let answer = timeout(PATIENCE, answer).await.map_err(unavailable)?;
    answer.map_err(|error| failed(path, error))
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> CodecError {
    CodecError::Unavailable(Box::new(error))
}

fn failed(path: &Path, error: object_store::Error) -> CodecError {
    match error {
        object_store::Error::NotFound { .. } => CodecError::Missing(path.to_string()),
        other => unavailable(other),
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::id::{DefinitionId, TaskId};
    use object_store::memory::InMemory;

    use super::*;

    fn about() -> About {
        About::payload(&DefinitionId::new("media", "act").unwrap(), TaskId::from_bits(0xab))
    }

    fn objects() -> (Arc<InMemory>, Objects) {
        let store = Arc::new(InMemory::new());
        (Arc::clone(&store), Objects::new(store, "tasks"))
    }

    async fn put(objects: &Objects, body: &'static [u8]) -> Bytes {
        let sealed = Sealed { body: Bytes::from_static(body), codecs: Vec::new() };
        objects.put(&about(), sealed).await.unwrap().body
    }

    async fn only(store: &InMemory) -> Path {
        let all: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(all.len(), 1);
        all[0].location.clone()
    }

    #[tokio::test]
    async fn a_payload_lies_under_its_task_until_it_is_deleted() {
        let (store, objects) = objects();
        let note = put(&objects, b"large").await;
        let path = only(&store).await.to_string();
        assert!(path.starts_with("tasks/media/act/000000000000000000000000000000ab/"), "{path}");
        assert_eq!(objects.get(&about(), &note, 5).await.unwrap(), "large");
        objects.delete(&about(), &note).await;
        let missing = objects.get(&about(), &note, 5).await.unwrap_err();
        assert!(matches!(&missing, CodecError::Missing(gone) if *gone == path), "{missing}");
    }

    #[tokio::test]
    async fn another_objects_bytes_and_too_many_of_them_are_refused() {
        let (store, objects) = objects();
        let note = put(&objects, b"large").await;
        let path = only(&store).await;
        store.put(&path, Bytes::from_static(b"lurge").into()).await.unwrap();
        assert!(matches!(objects.get(&about(), &note, 5).await, Err(CodecError::Damaged(_))));
        store.put(&path, Bytes::from(vec![0; 1000]).into()).await.unwrap();
        assert!(matches!(objects.get(&about(), &note, 5).await, Err(CodecError::TooLarge { limit: 5 })));
    }

    #[tokio::test]
    async fn a_note_cannot_lead_out_of_its_task() {
        let (_, objects) = objects();
        for name in ["../../../other/secret00", "", "0123456789abcde/"] {
            let note = serde_json::to_vec(&Note { name: name.to_owned(), bytes: 1, sha256: String::new() });
            let refused = objects.get(&about(), &note.unwrap(), 5).await.unwrap_err();
            assert!(matches!(refused, CodecError::Damaged(_)), "{refused}");
        }
    }
}
