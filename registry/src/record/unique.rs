//! Unique keys: of the tasks of a definition, at most one at a time holds each.
//!
//! A key is kept as its SHA-256, so that what users put into it (an address, an order
//! number) stands nowhere in the registry's paths. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{Record, TaskOptions};
use crate::id::{DefinitionId, ResultSlot, TaskId};

/// A unique key, as its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueKey([u8; 32]);

/// How long a task holds its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldUntil {
    /// Until it has ended: at most one task of the key is active. A parked task holds it.
    #[default]
    Ended,
    /// Until it is first given to a worker: at most one task of the key is pending, and
    /// it may be replaced until then.
    Begun,
}

/// The unique key that a task was published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key.
    pub key: UniqueKey,
    /// How long the task holds it.
    #[serde(default)]
    pub until: HeldUntil,
}

/// Who holds a unique key: what is stored under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderRecord {
    /// The task.
    pub task: TaskId,
    /// Where its terminal record goes.
    pub slot: ResultSlot,
}

impl Record for HolderRecord {}

/// Keys beyond its own that a task is tied to: whoever ends it must know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ties {
    /// Where its terminal record goes.
    pub slot: ResultSlot,
    /// The unique key that it holds now.
    pub unique: Option<UniqueKey>,
}

impl Ties {
    /// Those of a task without a unique key.
    pub const fn slot(slot: ResultSlot) -> Self {
        Self { slot, unique: None }
    }
}

impl TaskOptions {
    /// The unique key that the task holds until it is first given to a worker.
    pub fn key_while_waiting(&self) -> Option<UniqueKey> {
        self.unique.map(|unique| unique.key)
    }

    /// The unique key that the task still holds when it has been given to a worker once.
    pub fn key_once_begun(&self) -> Option<UniqueKey> {
        self.unique.filter(|unique| unique.until == HeldUntil::Ended).map(|unique| unique.key)
    }

    /// The unique key that the task gives up when it is first given to a worker.
    pub fn key_until_begun(&self) -> Option<UniqueKey> {
        self.unique.filter(|unique| unique.until == HeldUntil::Begun).map(|unique| unique.key)
    }
}

/// Domains, so that keys of different use never meet.
const ACTIVE: &[u8] = b"bellows 1 unique while active";
const PENDING: &[u8] = b"bellows 1 unique while pending";
const IDEMPOTENT: &[u8] = b"bellows 1 idempotent publish";
const FOLLOW_UP: &[u8] = b"bellows 1 follow-up";

/// The parts, each with its length before it, so that no two lists of parts are alike.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl UniqueKey {
    /// The key that these bytes name, in the room of its use: a key held until its task
    /// has ended is never the same as one held until it has begun.
    pub fn of(until: HeldUntil, bytes: &[u8]) -> Self {
        let domain = match until {
            HeldUntil::Ended => ACTIVE,
            HeldUntil::Begun => PENDING,
        };
        Self(digest(&[domain, bytes]))
    }

    /// The digest, for the key's path.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for UniqueKey {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

/// The id and the slot of the one task that an idempotency key names in a definition.
pub fn idempotent(def: &DefinitionId, key: &[u8]) -> (TaskId, ResultSlot) {
    let digest = digest(&[IDEMPOTENT, def.to_string().as_bytes(), key]);
    (task_id(&digest), ResultSlot::from_bits(u16::from_be_bytes([digest[16], digest[17]])))
}

/// The id of a follow-up task: the same however often its settlement is sent.
pub fn follow_up(of: TaskId, attempt: crate::id::AttemptId, index: usize) -> TaskId {
    let (of, attempt) = (of.to_string(), attempt.to_string());
    let index = (index as u64).to_be_bytes();
    task_id(&digest(&[FOLLOW_UP, of.as_bytes(), attempt.as_bytes(), &index]))
}

fn task_id(digest: &[u8; 32]) -> TaskId {
    let bits = digest[..16].iter().fold(0u128, |bits, byte| (bits << 8) | u128::from(*byte));
    TaskId::from_bits(bits.max(1)) // zero is the singleton's
}

impl fmt::Display for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a unique key is 64 lower-case hex digits")]
pub struct NotADigest;

impl FromStr for UniqueKey {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        crate::key::unhex(text).map(Self).ok_or(NotADigest)
    }
}

impl Serialize for UniqueKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UniqueKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AttemptId;

    #[test]
    fn keys_of_different_use_never_meet() {
        let active = UniqueKey::of(HeldUntil::Ended, b"\"k\"");
        assert_ne!(active, UniqueKey::of(HeldUntil::Begun, b"\"k\""));
        assert_eq!(active, UniqueKey::of(HeldUntil::Ended, b"\"k\""));
        assert_eq!(active.to_string().parse(), Ok(active));
    }

    #[test]
    fn an_idempotency_key_names_one_task_in_each_definition_for_ever() {
        let def = |name| DefinitionId::new("media", name).unwrap();
        let (id, slot) = idempotent(&def("resize"), b"\"order-17\"");
        // Stored in publishers' minds: it must not change between versions.
        assert_eq!((id.to_string().as_str(), slot.to_string().as_str()), ID_OF_ORDER_17);
        assert_ne!(idempotent(&def("resize"), b"\"order-18\"").0, id);
        assert_ne!(idempotent(&def("rotate"), b"\"order-17\"").0, id);
    }
    const ID_OF_ORDER_17: (&str, &str) = ("ffceac3cddc2410a985867879926fe8e", "abf6");

    #[test]
    fn a_follow_up_has_one_id_for_each_attempt_and_place() {
        let id = |attempt, index| follow_up(TaskId::from_bits(7), AttemptId::from_bits(attempt), index);
        assert_eq!(id(1, 0), id(1, 0));
        assert_ne!(id(1, 0), id(1, 1));
        assert_ne!(id(1, 0), id(2, 0));
    }

    #[test]
    fn an_option_reads_as_a_person_would_write_it() {
        let key = UniqueKey::from([0xab; 32]);
        let unique = Unique { key, until: HeldUntil::Begun };
        let text = serde_json::to_string(&unique).unwrap();
        assert_eq!(text, format!(r#"{{"key":"{}","until":"begun"}}"#, "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<Unique>(&text).unwrap(), unique);
        assert!(serde_json::from_str::<Unique>(r#"{"key":"AB"}"#).is_err());
    }
}
