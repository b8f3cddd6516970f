//! What is stored: one type a kind of key, in a versioned envelope.
//!
//! A value is one line of text and then raw bytes:
//!
//! ```text
//! bellows1 {"slot":"beef",…}\n<body>
//! ```
//!
//! The header is JSON, so that `etcdctl get` shows something a person can read; the
//! body (a payload or a result) is never parsed again. A reader ignores fields it
//! does not know, and leaves a value of a newer format alone ([`DecodeError::Newer`]):
//! version N and N−1 read each other.

mod choice;
mod envelope;
mod outcome;
mod report;
mod request;
mod task;
mod unique;
mod worker;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use choice::{ChoiceError, FairnessKey, Priority, Weight};
pub use envelope::{Applied, Envelope, JSON};
pub use outcome::{AttemptError, Cancellation, Ended, ErrorKind, OutcomeRecord, ParkedRecord, Tally};
pub use report::{CheckpointRecord, Progress};
pub use request::{Ask, RequestRecord};
pub use task::{AssignmentRecord, Delay, Isolation, Seen, TaskOptions, TaskRecord};
pub use unique::{HeldUntil, HolderRecord, NotADigest, Ties, Unique, UniqueKey, follow_up, idempotent};
pub use worker::{
    LeaderRecord, MetaRecord, OpenRecord, PolicyRecord, PolicyState, WorkerRecord, WorkerState,
};

/// The record format this version writes.
pub const FORMAT: u32 = 1;

/// The longest header anyone may store, in bytes: larger ones are not parsed.
pub const MAX_HEADER: usize = 64 * 1024;

/// Limits on what users hand in, in bytes unless said otherwise. Checked before
/// anything is sent.
pub mod limits {
    /// A payload or a result, by default.
    pub const BODY_DEFAULT: usize = 64 * 1024;
    /// A payload or a result, whatever is configured.
    pub const BODY_HARD: usize = 1024 * 1024;
    /// A payload up to this size travels inside its assignment.
    pub const INLINE: usize = 4 * 1024;
    /// What a handler reports as its progress.
    pub const PROGRESS: usize = 1024;
    /// What a handler keeps for its task's next attempt.
    pub const CHECKPOINT: usize = 16 * 1024;
    /// A task is parked once so many versions of its worker could not read its payload.
    pub const VERSIONS: usize = 3;
    /// The name of a worker's version.
    pub const VERSION: usize = 256;
    /// The text of one error.
    pub const ERROR_TEXT: usize = 1024;
    /// How many errors of earlier attempts are kept.
    pub const ERRORS: usize = 5;
    /// A unique key or an idempotency key, as JSON.
    pub const KEY: usize = 1024;
    /// The tasks that one settlement may publish.
    pub const FOLLOW_UPS: usize = 16;
    /// The payloads and headers of those tasks together.
    pub const FOLLOW_UP_BYTES: usize = 256 * 1024;
    /// Headers of one task: count.
    pub const HEADERS: usize = 32;
    /// Headers of one task: names and values together.
    pub const HEADER_BYTES: usize = 4 * 1024;
    /// The name of a header.
    pub const HEADER_NAME: usize = 128;
    /// A media type.
    pub const CONTENT_TYPE: usize = 128;
    /// The name of a codec, or of a key.
    pub const CODEC_NAME: usize = 64;
    /// Codecs applied to one body: count.
    pub const CODECS: usize = 8;
    /// A payload or a result once decoded, by default, where a codec makes it smaller.
    pub const DECODED_DEFAULT: usize = 8 * 1024 * 1024;
    /// A payload or a result once decoded, whatever is configured.
    pub const DECODED_HARD: usize = 256 * 1024 * 1024;
}

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version. Never delete it.
    #[error("the record has format {0}, newer than this version's {FORMAT}")]
    Newer(u32),
    /// Not a record of Bellows.
    #[error("the value is not a Bellows record")]
    Foreign,
    /// A record whose header does not parse.
    #[error("the record's header is damaged")]
    Damaged(#[source] serde_json::Error),
}

/// Something stored under a key.
pub trait Record: Serialize + DeserializeOwned {
    /// The raw bytes after the header; most records have none.
    fn body(&self) -> &[u8] {
        &[]
    }

    /// Takes the raw bytes when reading.
    fn set_body(&mut self, _body: Bytes) {}

    /// The value to store.
    fn encode(&self) -> Bytes {
        let header = serde_json::to_string(self).unwrap_or_default(); // plain data: cannot fail
        let mut value = Vec::with_capacity(header.len() + self.body().len() + 12);
        value.extend_from_slice(b"bellows1 ");
        value.extend_from_slice(header.as_bytes());
        value.push(b'\n');
        value.extend_from_slice(self.body());
        value.into()
    }

    /// Reads a stored value.
    fn decode(value: &Bytes) -> Result<Self, DecodeError> {
        let window = &value[..value.len().min(MAX_HEADER)];
        let end = window.iter().position(|b| *b == b'\n').ok_or(DecodeError::Foreign)?;
        let line = std::str::from_utf8(&window[..end]).map_err(|_| DecodeError::Foreign)?;
        let (magic, header) = line.split_once(' ').ok_or(DecodeError::Foreign)?;
        let format = magic.strip_prefix("bellows").and_then(|n| n.parse::<u32>().ok());
        match format {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(DecodeError::Newer(newer)),
            _ => return Err(DecodeError::Foreign),
        }
        let mut record: Self = serde_json::from_str(header).map_err(DecodeError::Damaged)?;
        record.set_body(value.slice(end + 1..));
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallMillis;
    use crate::id::ResultSlot;

    fn task() -> TaskRecord {
        TaskRecord {
            slot: ResultSlot::from_bits(0xbeef),
            published: WallMillis(1_000),
            delay: None,
            headers: std::collections::BTreeMap::new(),
            options: crate::record::TaskOptions::default(),
            payload: Bytes::from_static(b"{\"url\":\"x\"}\n\x00\xff"),
        }
    }

    #[test]
    fn a_record_is_a_readable_line_and_then_the_payload_untouched() {
        let value = task().encode();
        assert_eq!(
            &value[..],
            b"bellows1 {\"slot\":\"beef\",\"published\":1000}\n{\"url\":\"x\"}\n\x00\xff".as_slice()
        );
        assert_eq!(TaskRecord::decode(&value).unwrap(), task());
    }

    #[test]
    fn a_newer_format_is_told_from_damage_and_from_foreign_bytes() {
        let decode = |text: &'static [u8]| TaskRecord::decode(&Bytes::from_static(text)).unwrap_err();
        assert!(matches!(decode(b"bellows2 {}\n"), DecodeError::Newer(2)));
        assert!(matches!(decode(b"bellows1 {\"slot\":7}\n"), DecodeError::Damaged(_)));
        assert!(matches!(decode(b"bellows1 {\"slot\":\"beef\"}"), DecodeError::Foreign));
        for foreign in [&b"hello\n"[..], b"", b"\xff\n", b"bellows0 {}\n", b"bellowsX {}\n"] {
            assert!(matches!(decode(foreign), DecodeError::Foreign), "{foreign:?}");
        }
    }

    #[test]
    fn fields_of_a_later_minor_version_are_ignored() {
        let value = Bytes::from_static(b"bellows1 {\"slot\":\"beef\",\"published\":1,\"colour\":\"red\"}\n");
        assert_eq!(TaskRecord::decode(&value).unwrap().published, WallMillis(1));
    }
}
