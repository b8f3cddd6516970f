//! Removes terminal records that are past their time.
//!
//! A pass walks the results once, in bounded pages, and deletes each expired record
//! only as it was seen. A record that cannot be read is left alone.

use bytes::Bytes;

use crate::backend::{BackendError, DynBackend, RangeAnswer, RangeRequest};
use crate::clock::WallMillis;
use crate::key::{Key, Keyspace};
use crate::record::{OutcomeRecord, Record};
use crate::txn::{self, Batch};

/// Records read at a time: results are at most 1 MiB, and mostly far smaller.
const PAGE: usize = 50;

/// One pass; answers how many records were removed.
///
/// # Errors
/// The first that the registry answers; what was removed until then stays removed.
pub(super) async fn pass(
    backend: &DynBackend,
    space: &Keyspace,
    now: WallMillis,
) -> Result<usize, BackendError> {
    let mut range = space.all_outcomes_range();
    let mut removed = 0;
    loop {
        let request = RangeRequest { range: range.clone(), revision: None, limit: PAGE };
        let page = backend.range(request).await?;
        removed += remove_expired(backend, space, &page, now).await?;
        match page.entries.last() {
            Some(last) if page.more => {
                range.start = Bytes::from([&last.key[..], b"\0"].concat());
            }
            _ => return Ok(removed),
        }
    }
}

async fn remove_expired(
    backend: &DynBackend,
    space: &Keyspace,
    page: &RangeAnswer,
    now: WallMillis,
) -> Result<usize, BackendError> {
    let mut batch = Batch::default();
    for entry in &page.entries {
        let expired = OutcomeRecord::decode(&entry.value).is_ok_and(|record| record.expires <= now);
        if let (true, Ok(Key::Outcome(def, slot, task))) = (expired, space.parse(&entry.key)) {
            // A page is smaller than a batch: all of it fits.
            let _ = batch.push(txn::expire_outcome(space, &def, slot, task, entry.mod_revision));
        }
    }
    if batch.is_empty() {
        return Ok(0);
    }
    let answers = Batch::answers(backend.txn(batch.into_txn(None)).await?);
    Ok(answers.into_iter().flatten().filter(|one| one.succeeded).count())
}
