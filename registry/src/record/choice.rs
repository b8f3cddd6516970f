//! What a publisher chooses about one task's turn: priority, fairness key, weight.
//!
//! Each is checked when it is made. What a record says is taken as it is, but for numbers
//! out of range, which are read as the nearest one allowed: a task is not lost for them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Instant;

/// A choice that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A number out of its range.
    #[error("{option} must be from {min} to {max}, not {value}")]
    Range {
        /// The option.
        option: &'static str,
        /// What was chosen.
        value: u32,
        /// The least allowed.
        min: u32,
        /// The greatest allowed.
        max: u32,
    },
    /// A text that is empty or too long.
    #[error("{option} has {bytes} bytes; it must have 1 to {max}")]
    Length {
        /// The option.
        option: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
}

fn in_range(option: &'static str, value: u32, min: u32, max: u32) -> Result<u32, ChoiceError> {
    if value < min || value > max {
        return Err(ChoiceError::Range { option, value, min, max });
    }
    Ok(value)
}

/// How urgent a task is among those of its fairness key: 1 (least) to 9 (most), 5 if
/// nothing is chosen.
///
/// A level is worth [`Priority::AGEING`] of waiting, so that no task starves: one of
/// priority `p` is overtaken only by tasks of a higher priority `q` that became due less
/// than `(q - p) × AGEING` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The least urgent.
    pub const MIN: Self = Self(1);
    /// The most urgent.
    pub const MAX: Self = Self(9);
    /// What a level is worth in waiting: ten minutes.
    pub const AGEING: Duration = Duration::from_secs(600);

    /// Refuses a level out of range.
    pub fn new(level: u8) -> Result<Self, ChoiceError> {
        let (min, max) = (u32::from(Self::MIN.0), u32::from(Self::MAX.0));
        in_range("priority", u32::from(level), min, max).map(|_| Self(level))
    }

    /// The level.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Where a task due at `due` stands: the earlier, the sooner it is given out. Ageing
    /// needs no clock: who waits longer was due earlier.
    pub fn rank(self, due: Instant) -> Instant {
        due + Self::AGEING * u32::from(Self::MAX.0 - self.0)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let level = u64::deserialize(d)?;
        let nearest = level.clamp(u64::from(Self::MIN.0), u64::from(Self::MAX.0));
        Ok(u8::try_from(nearest).map_or(Self::MAX, Self))
    }
}

/// How many of a worker's slots a task takes, all of one worker: 1 to 1000, 1 if nothing
/// is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// As heavy as a task may be: no worker has more slots.
    pub const MAX: u32 = 1000;

    /// Refuses what is out of range.
    pub fn new(slots: u32) -> Result<Self, ChoiceError> {
        in_range("weight", slots, 1, Self::MAX).map(Self)
    }

    /// The number of slots.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number of slots, for counting.
    pub fn slots(self) -> usize {
        self.0 as usize
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let nearest = u64::deserialize(d)?.clamp(1, u64::from(Self::MAX));
        Ok(Self(u32::try_from(nearest).unwrap_or(Self::MAX)))
    }
}

/// What tasks have in common that take turns with others, and that limits per key count:
/// a tenant, an account, a host. Any text of 1 to 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FairnessKey(Arc<str>);

impl FairnessKey {
    /// The longest allowed text, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Refuses an empty text and one that is too long.
    pub fn new(text: &str) -> Result<Self, ChoiceError> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            let (bytes, max) = (text.len(), Self::MAX_LEN);
            return Err(ChoiceError::Length { option: "key", bytes, max });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for FairnessKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FairnessKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Ok(Self(Arc::from(&*text)))
    }
}

impl fmt::Display for FairnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FairnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_out_of_range_names_the_option_the_value_and_the_limit() {
        for (error, says) in [
            (Priority::new(0).unwrap_err(), "priority must be from 1 to 9, not 0"),
            (Priority::new(10).unwrap_err(), "priority must be from 1 to 9, not 10"),
            (Weight::new(0).unwrap_err(), "weight must be from 1 to 1000, not 0"),
            (Weight::new(1001).unwrap_err(), "weight must be from 1 to 1000, not 1001"),
            (FairnessKey::new("").unwrap_err(), "key has 0 bytes; it must have 1 to 128"),
            (FairnessKey::new(&"k".repeat(129)).unwrap_err(), "key has 129 bytes; it must have 1 to 128"),
        ] {
            assert_eq!(error.to_string(), says);
        }
        assert_eq!(Priority::new(9), Ok(Priority::MAX));
        assert_eq!(FairnessKey::new(&"k".repeat(128)).unwrap().as_str().len(), 128);
    }

    #[test]
    fn a_record_with_a_choice_out_of_range_is_read_as_the_nearest() {
        assert_eq!(serde_json::from_str::<Priority>("0").unwrap(), Priority::MIN);
        assert_eq!(serde_json::from_str::<Priority>("700").unwrap(), Priority::MAX);
        assert_eq!(serde_json::from_str::<Weight>("0").unwrap().get(), 1);
        assert_eq!(serde_json::from_str::<Weight>("5000000000").unwrap().get(), Weight::MAX);
    }
}
