//! Keys of a range, page by page: no answer and no memory grows with the range.

use bellows_registry::backend::RangeRequest;
use bellows_registry::key::KeyRange;
use bytes::Bytes;

use super::{Registry, RegistryError};

/// The rest of a range. Each page is read as it is then; not all at one revision, which
/// might be compacted before the end.
pub(super) struct Pages<'a> {
    registry: &'a Registry,
    rest: Option<KeyRange>,
    limit: usize,
}

impl<'a> Pages<'a> {
    /// Values come along with their keys, and may have 1 MiB each.
    const LEAST: usize = 16;
    const MOST: usize = 500;
    /// Pages are sized by the last one so that each comes near this many bytes.
    const BYTES: usize = 2 * 1024 * 1024;

    pub(super) fn of(registry: &'a Registry, range: KeyRange) -> Self {
        Self { registry, rest: Some(range), limit: Self::LEAST }
    }

    /// The keys of the next page; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, RegistryError> {
        let Some(range) = self.rest.take() else { return Ok(None) };
        let request = RangeRequest { range: range.clone(), revision: None, limit: self.limit };
        let page = self.registry.backend.range(request).await?;
        let bytes: usize = page.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        let keys: Vec<Bytes> = page.entries.into_iter().map(|entry| entry.key).collect();
        if let Some(last) = keys.last().filter(|_| page.more) {
            self.limit = (Self::BYTES * keys.len() / bytes.max(1)).clamp(Self::LEAST, Self::MOST);
            self.rest = Some(KeyRange { start: successor(last), end: range.end });
        }
        Ok(Some(keys))
    }

    /// Whether the last page has been read.
    pub(super) fn at_end(&self) -> bool {
        self.rest.is_none()
    }
}

/// The first key after `key`.
pub(super) fn successor(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}
