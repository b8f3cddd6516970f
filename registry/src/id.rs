//! The names of things, parsed once at the door.
//!
//! Everything here becomes a segment of a key, so the alphabet is `[a-z0-9._-]`
//! and nothing can smuggle in a `/`. No I/O, no randomness: random bits are
//! handed in by [`crate::entropy`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name or an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than the limit, in bytes.
    #[error("{what} {text:?} has {len} bytes; it must have 1 to {max}")]
    Length {
        /// Which kind of name.
        what: &'static str,
        /// The refused text, cut to 80 bytes.
        text: String,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The text has a character outside the alphabet, or a bad first or last one.
    #[error("{what} {text:?} must consist of {alphabet}")]
    Alphabet {
        /// Which kind of name.
        what: &'static str,
        /// The refused text.
        text: String,
        /// The alphabet in words.
        alphabet: &'static str,
    },
}

const DNS: &str = "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit";

fn dns_name(what: &'static str, text: &str, max: usize) -> Result<Arc<str>, IdError> {
    let len = text.len();
    if len == 0 || len > max {
        let text = text.chars().take(80).collect();
        return Err(IdError::Length { what, text, len, max });
    }
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| edge(b) || b == b'-' || b == b'.';
    let bytes = text.as_bytes();
    if !bytes.iter().all(|b| inner(*b)) || !edge(bytes[0]) || !edge(bytes[len - 1]) {
        return Err(IdError::Alphabet { what, text: text.to_owned(), alphabet: DNS });
    }
    Ok(Arc::from(text))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest allowed text, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Parses the text; see [`IdError`] for what is refused.
            pub fn new(text: &str) -> Result<Self, IdError> {
                dns_name($what, text, $max).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text_form!($name);
    };
}

/// `Display`, `Debug`, `FromStr` and serde, all by the one text form.
macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str().as_ref())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// A Kubernetes namespace.
    Namespace, "namespace", 63
}
text_id! {
    /// The name of a task definition: the `metadata.name` of its `TaskDefinition`.
    DefinitionName, "definition name", 63
}
text_id! {
    /// One session of one worker: `<pod>-<16 hex digits>`, never reused (law 20).
    WorkerId, "worker id", 253
}

impl WorkerId {
    /// The id of a new session of `pod`, made unique by 64 random bits.
    ///
    /// A pod name that is not a DNS name, or too long, is refused.
    pub fn for_session(pod: &str, random: u64) -> Result<Self, IdError> {
        Self::new(&format!("{pod}-{random:016x}"))
    }

    /// The pod part of the id.
    pub fn pod(&self) -> &str {
        self.0.rsplit_once('-').map_or(&*self.0, |(pod, _)| pod)
    }
}

/// A task definition's full name: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionId {
    /// The namespace.
    pub namespace: Namespace,
    /// The name within the namespace.
    pub name: DefinitionName,
}

impl DefinitionId {
    /// Parses both parts.
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdError> {
        Ok(Self { namespace: Namespace::new(namespace)?, name: DefinitionName::new(name)? })
    }
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $what:literal, $digits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($int);

        impl $name {
            /// The id with these bits.
            pub const fn from_bits(bits: $int) -> Self {
                Self(bits)
            }

            /// Its bits.
            pub const fn bits(self) -> $int {
                self.0
            }

            fn as_str(self) -> String {
                format!(concat!("{:0", $digits, "x}"), self.0)
            }

            fn parse_hex(text: &str) -> Option<$int> {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                let right = text.len() == $digits && text.bytes().all(hex);
                right.then(|| <$int>::from_str_radix(text, 16).ok()).flatten()
            }
        }
    };
}

macro_rules! plain_hex_id {
    ($name:ident, $what:literal, $alphabet:literal) => {
        impl $name {
            /// Parses the hexadecimal form.
            pub fn new(text: &str) -> Result<Self, IdError> {
                Self::parse_hex(text).map(Self).ok_or_else(|| IdError::Alphabet {
                    what: $what,
                    text: text.chars().take(80).collect(),
                    alphabet: $alphabet,
                })
            }
        }
        text_form!($name);
    };
}

hex_id! {
    /// A task's identity, made by its publisher (law 9): 128 random bits in 32 hex
    /// digits, so that the space of ids can be cut into equal parts without an index.
    TaskId(u128), "task id", 32
}
hex_id! {
    /// One attempt: 64 random bits. Part of the assignment's key, and therefore the
    /// only fence a worker needs (law 2).
    AttemptId(u64), "attempt id", 16
}
hex_id! {
    /// Which slice of the result space a task's terminal record goes to: random per
    /// publishing process, so that a publisher watches only its own results.
    ResultSlot(u16), "result slot", 4
}

plain_hex_id!(AttemptId, "attempt id", "16 lower-case hexadecimal digits");
plain_hex_id!(ResultSlot, "result slot", "4 lower-case hexadecimal digits");

impl TaskId {
    /// The one task of a singleton definition. In keys it reads `singleton`; random
    /// ids never take these bits.
    pub const SINGLETON: Self = Self(0);

    const SINGLETON_TEXT: &str = "singleton";

    /// Parses 32 hex digits, or `singleton`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text == Self::SINGLETON_TEXT {
            return Ok(Self::SINGLETON);
        }
        Self::parse_hex(text).filter(|bits| *bits != 0).map(Self).ok_or_else(|| IdError::Alphabet {
            what: "task id",
            text: text.chars().take(80).collect(),
            alphabet: "32 lower-case hexadecimal digits, not all zero",
        })
    }

    /// Whether this is the task of a singleton definition.
    pub fn is_singleton(self) -> bool {
        self == Self::SINGLETON
    }

    fn text(self) -> String {
        if self.is_singleton() { Self::SINGLETON_TEXT.to_owned() } else { self.as_str() }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}
impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for TaskId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}
impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_key_segment_is_refused() {
        for bad in ["", "a/b", "A", "-a", "a-", ".", "..", "a b", "ä", &"x".repeat(64)] {
            assert!(Namespace::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Namespace::new("media-7").unwrap().as_str(), "media-7");
    }

    #[test]
    fn ids_survive_their_text_form() {
        let task = TaskId::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(task.to_string().parse::<TaskId>().unwrap(), task);
        assert_eq!(TaskId::new("singleton").unwrap(), TaskId::SINGLETON);
        assert!(TaskId::new(&"0".repeat(32)).is_err());
        assert!(TaskId::new("ABCDEF0123456789ABCDEF0123456789").is_err());
        let attempt = AttemptId::from_bits(7);
        assert_eq!(attempt.to_string(), "0000000000000007");
        assert_eq!(AttemptId::new("0000000000000007").unwrap(), attempt);
    }

    #[test]
    fn a_worker_id_tells_its_pod() {
        let worker = WorkerId::for_session("resize-5f6c-abcde", 255).unwrap();
        assert_eq!(worker.as_str(), "resize-5f6c-abcde-00000000000000ff");
        assert_eq!(worker.pod(), "resize-5f6c-abcde");
    }
}
