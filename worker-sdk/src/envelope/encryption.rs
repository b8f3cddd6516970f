//! Encryption: AES-256 in Galois/counter mode, keys by name.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use bellows_registry::entropy::Entropy;

use super::codec::{About, Codec, CodecError, Encoded, check_name};
use crate::error::OptionError;

const ID: &str = "aes256gcm";
/// What a sealed body has in front.
const NONCE: usize = 12;
/// And at its end.
const TAG: usize = 16;
/// So many keys are more than anybody rotates through.
const MAX_KEYS: usize = 64;

/// The keys of [`Encryption`], by name. What is written is sealed with the active one; what
/// is read opens with any.
///
/// # Rotation
/// Add the new key everywhere, not yet active; then make it active everywhere; then, when
/// no body under the old key is left (tasks, parked tasks and results are past their
/// retention), remove the old one. Rotate before 2³² bodies are sealed with one key: nonces
/// are random.
///
/// ```
/// use bellows_sdk::Keyring;
///
/// let keys = Keyring::new("2026-01", [1; 32])?.with("2026-07", [2; 32])?; // 2026-01 is active
/// let keys = keys.active("2026-07")?;
/// # Ok::<(), bellows_sdk::OptionError>(())
/// ```
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Named>,
    active: usize,
}

#[derive(Clone)]
struct Named {
    name: String,
    cipher: Aes256Gcm,
}

impl Keyring {
    /// One key of 32 random bytes, which is the active one. Names are at most 64 letters,
    /// digits and any of `-._`; they are written beside what is sealed, in the open.
    ///
    /// # Errors
    /// If the name is not allowed.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, OptionError> {
        Self { keys: Vec::new(), active: 0 }.with(name, key)
    }

    /// One more key, not active.
    ///
    /// # Errors
    /// If the name is not allowed, or taken, or there are 64 keys already.
    pub fn with(mut self, name: &str, key: [u8; 32]) -> Result<Self, OptionError> {
        check_name("key", name)?;
        let refused = |limit: String| Err(OptionError { option: "key", value: name.to_owned(), limit });
        if self.keys.iter().any(|known| known.name == name) {
            return refused("each name once".to_owned());
        }
        if self.keys.len() == MAX_KEYS {
            return refused(format!("at most {MAX_KEYS} keys"));
        }
        self.keys.push(Named { name: name.to_owned(), cipher: Aes256Gcm::new(&key.into()) });
        Ok(self)
    }

    /// Makes the key of this name the active one.
    ///
    /// # Errors
    /// If there is none.
    pub fn active(mut self, name: &str) -> Result<Self, OptionError> {
        match self.keys.iter().position(|known| known.name == name) {
            Some(at) => self.active = at,
            None => {
                let limit = "the name of a key that was added".to_owned();
                return Err(OptionError {
                    option: "active key",
                    value: super::undecodable::cut(name),
                    limit,
                });
            }
        }
        Ok(self)
    }

    /// Keys as text, as from a Kubernetes Secret: `2026-07=<64 hex digits>,2026-01=…`. The
    /// first is the active one. `openssl rand -hex 32` makes a key.
    ///
    /// # Errors
    /// Names the key that is malformed, and shows nothing of it.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let mut ring: Option<Self> = None;
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            // An entry without a name may be a key: it is not shown.
            let (name, digits) = entry.split_once('=').unwrap_or(("", ""));
            let key = parse_key(digits).ok_or_else(|| OptionError {
                option: "key",
                value: super::undecodable::cut(name),
                limit: "<name>=<64 hexadecimal digits>".to_owned(),
            })?;
            ring = Some(match ring {
                None => Self::new(name, key)?,
                Some(ring) => ring.with(name, key)?,
            });
        }
        let limit = "<name>=<64 hexadecimal digits>, and more after a comma".to_owned();
        ring.ok_or_else(|| OptionError { option: "keys", value: String::new(), limit })
    }

    fn find(&self, name: &str) -> Option<&Named> {
        self.keys.iter().find(|known| known.name == name)
    }
}

fn parse_key(digits: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(key)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|known| &known.name)).finish()
    }
}

/// Encrypts bodies. Its name is `aes256gcm`.
///
/// # Guarantees
/// A body opens only with its key, and only as the part (payload or result) of the task and
/// definition for which it was sealed: whoever can write to the registry can destroy it,
/// but not change it, nor put it in another's place.
///
/// # Caveats
/// Not hidden: names of definitions and keys, ids, times, sizes, headers, and the texts of
/// errors. What a handler says in an error is written as it is.
#[derive(Debug, Clone)]
pub struct Encryption {
    keys: Keyring,
}

impl Encryption {
    /// With these keys.
    pub fn new(keys: Keyring) -> Self {
        Self { keys }
    }
}

impl Codec for Encryption {
    fn id(&self) -> &str {
        ID
    }

    fn encode(&self, about: &About, body: &[u8]) -> Result<Option<Encoded>, CodecError> {
        let key = &self.keys.keys[self.keys.active];
        let nonce = nonce();
        let sealed = key
            .cipher
            .encrypt(&nonce.into(), Payload { msg: body, aad: &about.binding() })
            .map_err(|_| CodecError::Failed { codec: ID.to_owned(), text: "it is too large".to_owned() })?;
        let mut whole = Vec::with_capacity(NONCE + sealed.len());
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&sealed);
        Ok(Some(Encoded::under(&key.name, whole)))
    }

    fn decode(
        &self,
        about: &About,
        key: Option<&str>,
        body: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let damaged = || CodecError::Damaged(ID.to_owned());
        let name = key.ok_or_else(damaged)?;
        let Some(key) = self.keys.find(name) else {
            let key = super::undecodable::cut(name);
            return Err(CodecError::UnknownKey { codec: ID.to_owned(), key });
        };
        if body.len() > limit.saturating_add(NONCE + TAG) {
            return Err(CodecError::TooLarge { limit });
        }
        let (nonce, sealed) = body.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let opened = key.cipher.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &about.binding() });
        opened.map_err(|_| CodecError::Refused { codec: ID.to_owned(), key: name.to_owned() })
    }
}

fn nonce() -> [u8; NONCE] {
    let system = Entropy::system();
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&system.bits64().to_le_bytes());
    nonce[8..].copy_from_slice(&system.bits64().to_le_bytes()[..4]);
    nonce
}

#[cfg(test)]
mod tests {
    use bellows_registry::id::{DefinitionId, TaskId};

    use super::*;

    fn about(definition: &str, task: u128) -> About {
        About::payload(&DefinitionId::new("default", definition).unwrap(), TaskId::from_bits(task))
    }

    fn sealed(keys: &Keyring, about: &About) -> Encoded {
        Encryption::new(keys.clone()).encode(about, b"secret").unwrap().unwrap()
    }

    fn opened(keys: &Keyring, about: &About, sealed: &Encoded) -> Result<Vec<u8>, String> {
        let encryption = Encryption::new(keys.clone());
        encryption.decode(about, sealed.key.as_deref(), &sealed.body, 1024).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_opens_with_its_key_and_as_what_it_was_sealed_for_only() {
        let (keys, here) = (Keyring::new("k", [7; 32]).unwrap(), about("act", 1));
        let body = sealed(&keys, &here);
        assert!(!body.body.windows(6).any(|window| window == b"secret"));
        assert_ne!(body.body, sealed(&keys, &here).body, "another nonce each time");
        assert_eq!(opened(&keys, &here, &body).unwrap(), b"secret");
        let result = About { part: super::super::codec::Part::Result, ..here.clone() };
        for elsewhere in [about("act", 2), about("other", 1), result] {
            let refused = opened(&keys, &elsewhere, &body).unwrap_err();
            assert!(
                refused.starts_with("it does not open with key \"k\" of codec \"aes256gcm\""),
                "{refused}"
            );
        }
        let impostor = Keyring::new("k", [8; 32]).unwrap();
        assert!(opened(&impostor, &here, &body).unwrap_err().contains("another key has this name"));
    }

    #[test]
    fn after_a_rotation_old_bodies_open_and_new_ones_have_the_new_key() {
        let (old, here) = (Keyring::new("2025", [1; 32]).unwrap(), about("act", 1));
        let before = sealed(&old, &here);
        let both = old.clone().with("2026", [2; 32]).unwrap().active("2026").unwrap();
        assert_eq!(opened(&both, &here, &before).unwrap(), b"secret");
        let after = sealed(&both, &here);
        assert_eq!(after.key.as_deref(), Some("2026"));
        let refused = opened(&old, &here, &after).unwrap_err();
        assert_eq!(refused, "key \"2026\" of codec \"aes256gcm\" is not known to this program");
    }

    #[test]
    fn a_changed_or_truncated_body_does_not_open() {
        let (keys, here) = (Keyring::new("k", [7; 32]).unwrap(), about("act", 1));
        let body = sealed(&keys, &here);
        for at in 0..body.body.len() {
            let mut changed = body.clone();
            changed.body[at] ^= 1;
            assert!(opened(&keys, &here, &changed).is_err(), "byte {at}");
            changed.body.truncate(at);
            assert!(opened(&keys, &here, &changed).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_come_as_text_and_are_never_shown() {
        let (one, two) = ("0f".repeat(32), "A0".repeat(32));
        let keys = Keyring::parse(&format!("new={one}, old={two}\n")).unwrap();
        assert_eq!(format!("{keys:?}"), r#"["new", "old"]"#);
        assert_eq!(sealed(&keys, &about("act", 1)).key.as_deref(), Some("new"));
        for (text, said) in [
            (String::new(), "keys \"\" is not allowed: use <name>=<64"),
            (one.clone(), "key \"\" is not allowed: use <name>=<64"),
            (format!("new={}", &one[1..]), "key \"new\" is not allowed: use <name>=<64"),
            (format!("a b={one}"), "key \"a b\" is not allowed: use 1 to 64 letters"),
            (format!("a={one},a={one}"), "key \"a\" is not allowed: use each name once"),
        ] {
            let error = Keyring::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains(&one[1..]), "it shows a key");
        }
    }
}
