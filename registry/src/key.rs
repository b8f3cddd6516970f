//! Keys and their paths, both ways. The only file with `/` strings.
//!
//! ```text
//! meta                                        format version, owner, generation
//! leader/<shard>                              assigner election; its mod-revision is the term
//! d/<ns>/<def>                                policy
//! q/<ns>/<def>/open                           exists ⇔ defined and accepting
//! q/<ns>/<def>/t/<task>                       task: immutable
//! q/<ns>/<def>/p/<task>                       tally: absent = zero
//! q/<ns>/<def>/k/<task>                       checkpoint: absent = none
//! q/<ns>/<def>/a/<worker>/<task>/<attempt>    assignment
//! q/<ns>/<def>/w/<worker>                     live worker, the only key on the worker's lease
//! q/<ns>/<def>/x/<task>                       parked task
//! q/<ns>/<def>/u/<sha256>                     unique key -> its holder: task id and slot
//! q/<ns>/<def>/c/<task>                       request
//! r/<ns>/<def>/<slot>/<task>                  terminal record
//! ```
//!
//! `d` to `q` are neighbours in the order of bytes and `r` comes after them, so
//! that one watch shows the assigner everything but the results.

use bytes::Bytes;

use crate::id::{AttemptId, DefinitionId, IdError, ResultSlot, TaskId, WorkerId};

/// One key of the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Format version, owner and generation of the registry.
    Meta,
    /// The assigner's leader key of one shard.
    Leader(u16),
    /// A definition's policy.
    Policy(DefinitionId),
    /// Exists exactly while a definition accepts tasks.
    Open(DefinitionId),
    /// A published task.
    Task(DefinitionId, TaskId),
    /// What happened to a task so far.
    Tally(DefinitionId, TaskId),
    /// What an attempt left for the task's next one.
    Checkpoint(DefinitionId, TaskId),
    /// A task given to a worker, under an attempt.
    Assignment(DefinitionId, WorkerId, TaskId, AttemptId),
    /// A live worker.
    Worker(DefinitionId, WorkerId),
    /// A task that was given up until a person replays it.
    Parked(DefinitionId, TaskId),
    /// A unique key's holder, by the SHA-256 of the key.
    Unique(DefinitionId, [u8; 32]),
    /// What a person or tool asks of the assigner.
    Request(DefinitionId, TaskId),
    /// A terminal record.
    Outcome(DefinitionId, ResultSlot, TaskId),
}

impl Key {
    /// The definition that the key belongs to, if it belongs to one.
    pub fn definition(&self) -> Option<&DefinitionId> {
        match self {
            Self::Meta | Self::Leader(_) => None,
            Self::Policy(def)
            | Self::Open(def)
            | Self::Task(def, _)
            | Self::Tally(def, _)
            | Self::Checkpoint(def, _)
            | Self::Assignment(def, ..)
            | Self::Worker(def, _)
            | Self::Parked(def, _)
            | Self::Unique(def, _)
            | Self::Request(def, _)
            | Self::Outcome(def, ..) => Some(def),
        }
    }
}

/// A half-open range of keys, `start <= key < end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key after the range; empty means the one key `start`.
    pub end: Bytes,
}

impl KeyRange {
    /// The range of one key.
    pub fn one(key: Bytes) -> Self {
        Self { start: key, end: Bytes::new() }
    }

    /// Every key that begins with `prefix`, which must not end in `0xff` (no key of
    /// the registry does).
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start: Vec<u8> = prefix.into();
        let mut end = start.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: start.into(), end: end.into() }
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.end.is_empty() { self.start == key } else { self.start <= key && key < self.end }
    }
}

/// A path that is not a key of this registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The path does not begin with the registry's prefix.
    #[error("the key lies outside the registry's prefix")]
    Outside,
    /// The path has no place in the layout: foreign, or of a newer format.
    #[error("the key has no place in the layout")]
    Unknown,
    /// A segment is not a valid name or id.
    #[error("a segment of the key is not valid")]
    Segment(#[from] IdError),
}

/// The registry's prefix, and with it the way from keys to paths and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    root: String,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self { root: "/bellows/".to_owned() }
    }
}

impl Keyspace {
    /// A keyspace under `prefix`; a missing final `/` is added, since roles and
    /// ranges must end at a boundary.
    pub fn new(prefix: &str) -> Self {
        Self { root: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// The prefix, ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.root
    }

    /// The path of a key.
    pub fn path(&self, key: &Key) -> Bytes {
        let root = &self.root;
        let path = match key {
            Key::Meta => format!("{root}meta"),
            Key::Leader(shard) => format!("{root}leader/{shard}"),
            Key::Policy(def) => format!("{root}d/{def}"),
            Key::Open(def) => format!("{root}q/{def}/open"),
            Key::Task(def, task) => format!("{root}q/{def}/t/{task}"),
            Key::Tally(def, task) => format!("{root}q/{def}/p/{task}"),
            Key::Checkpoint(def, task) => format!("{root}q/{def}/k/{task}"),
            Key::Assignment(def, worker, task, attempt) => {
                format!("{root}q/{def}/a/{worker}/{task}/{attempt}")
            }
            Key::Worker(def, worker) => format!("{root}q/{def}/w/{worker}"),
            Key::Parked(def, task) => format!("{root}q/{def}/x/{task}"),
            Key::Unique(def, digest) => format!("{root}q/{def}/u/{}", hex(digest)),
            Key::Request(def, task) => format!("{root}q/{def}/c/{task}"),
            Key::Outcome(def, slot, task) => format!("{root}r/{def}/{slot}/{task}"),
        };
        Bytes::from(path)
    }

    /// The key at a path.
    pub fn parse(&self, path: &[u8]) -> Result<Key, KeyError> {
        let path = std::str::from_utf8(path).map_err(|_| KeyError::Unknown)?;
        let rest = path.strip_prefix(self.root.as_str()).ok_or(KeyError::Outside)?;
        let segments: Vec<&str> = rest.split('/').collect();
        Ok(match segments[..] {
            ["meta"] => Key::Meta,
            ["leader", shard] => Key::Leader(shard.parse().map_err(|_| KeyError::Unknown)?),
            ["d", ns, def] => Key::Policy(DefinitionId::new(ns, def)?),
            ["q", ns, def, "open"] => Key::Open(DefinitionId::new(ns, def)?),
            ["q", ns, def, "t", task] => Key::Task(DefinitionId::new(ns, def)?, task.parse()?),
            ["q", ns, def, "p", task] => Key::Tally(DefinitionId::new(ns, def)?, task.parse()?),
            ["q", ns, def, "k", task] => Key::Checkpoint(DefinitionId::new(ns, def)?, task.parse()?),
            ["q", ns, def, "a", worker, task, attempt] => {
                Key::Assignment(DefinitionId::new(ns, def)?, worker.parse()?, task.parse()?, attempt.parse()?)
            }
            ["q", ns, def, "w", worker] => Key::Worker(DefinitionId::new(ns, def)?, worker.parse()?),
            ["q", ns, def, "x", task] => Key::Parked(DefinitionId::new(ns, def)?, task.parse()?),
            ["q", ns, def, "u", digest] => {
                Key::Unique(DefinitionId::new(ns, def)?, unhex(digest).ok_or(KeyError::Unknown)?)
            }
            ["q", ns, def, "c", task] => Key::Request(DefinitionId::new(ns, def)?, task.parse()?),
            ["r", ns, def, slot, task] => {
                Key::Outcome(DefinitionId::new(ns, def)?, slot.parse()?, task.parse()?)
            }
            _ => return Err(KeyError::Unknown),
        })
    }

    /// What the assigner watches: everything but the results, in one range.
    pub fn assigner_range(&self) -> KeyRange {
        let (start, end) = (format!("{}d/", self.root), format!("{}r/", self.root));
        KeyRange { start: start.into(), end: end.into() }
    }

    /// Everything of one definition but its policy and results.
    pub fn definition_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/", self.root))
    }

    /// The signal channel of one worker: its assignments.
    pub fn assignments_range(&self, def: &DefinitionId, worker: &WorkerId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/a/{worker}/", self.root))
    }

    /// Every assignment of one definition.
    pub fn all_assignments_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/a/", self.root))
    }

    /// Every task of one definition that waits or runs.
    pub fn tasks_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/t/", self.root))
    }

    /// Every parked task of one definition.
    pub fn parked_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/x/", self.root))
    }

    /// Every request about one definition's tasks.
    pub fn requests_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}q/{def}/c/", self.root))
    }

    /// Every terminal record of one definition.
    pub fn outcomes_range(&self, def: &DefinitionId) -> KeyRange {
        KeyRange::prefix(format!("{}r/{def}/", self.root))
    }

    /// Every terminal record.
    pub fn all_outcomes_range(&self) -> KeyRange {
        KeyRange::prefix(format!("{}r/", self.root))
    }

    /// The terminal records of one publishing process.
    pub fn slot_range(&self, def: &DefinitionId, slot: ResultSlot) -> KeyRange {
        KeyRange::prefix(format!("{}r/{def}/{slot}/", self.root))
    }

    /// The whole registry.
    pub fn everything(&self) -> KeyRange {
        KeyRange::prefix(self.root.clone())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 64 || !text.bytes().all(lower) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Key> {
        let def = DefinitionId::new("media", "resize-image").unwrap();
        let task = TaskId::from_bits(42);
        let worker = WorkerId::for_session("pod-1", 7).unwrap();
        vec![
            Key::Meta,
            Key::Leader(0),
            Key::Policy(def.clone()),
            Key::Open(def.clone()),
            Key::Task(def.clone(), TaskId::SINGLETON),
            Key::Task(def.clone(), task),
            Key::Tally(def.clone(), task),
            Key::Checkpoint(def.clone(), task),
            Key::Assignment(def.clone(), worker.clone(), task, AttemptId::from_bits(9)),
            Key::Worker(def.clone(), worker),
            Key::Parked(def.clone(), task),
            Key::Unique(def.clone(), [0xab; 32]),
            Key::Request(def.clone(), task),
            Key::Outcome(def, ResultSlot::from_bits(0xbeef), task),
        ]
    }

    #[test]
    fn every_key_survives_its_path() {
        let space = Keyspace::new("/somewhere/else");
        for key in one_of_each() {
            assert_eq!(space.parse(&space.path(&key)), Ok(key));
        }
    }

    #[test]
    fn the_assigner_sees_every_key_but_results() {
        let space = Keyspace::default();
        for key in one_of_each() {
            let result = matches!(key, Key::Outcome(..));
            assert_eq!(space.assigner_range().contains(&space.path(&key)), !result, "{key:?}");
            assert!(space.everything().contains(&space.path(&key)));
        }
    }

    #[test]
    fn a_definition_is_not_in_the_range_of_one_whose_name_it_extends() {
        let space = Keyspace::default();
        let (short, long) = (DefinitionId::new("a", "b").unwrap(), DefinitionId::new("a", "b-c").unwrap());
        let path = space.path(&Key::Open(long));
        assert!(!space.definition_range(&short).contains(&path));
    }

    #[test]
    fn foreign_paths_are_refused_with_a_reason() {
        let space = Keyspace::default();
        assert_eq!(space.parse(b"/elsewhere/meta"), Err(KeyError::Outside));
        assert_eq!(space.parse(b"/bellows/q/a/b/z/1"), Err(KeyError::Unknown));
        assert!(matches!(space.parse(b"/bellows/q/A/b/open"), Err(KeyError::Segment(_))));
        assert_eq!(space.parse(b"/bellows/\xff"), Err(KeyError::Unknown));
    }
}
