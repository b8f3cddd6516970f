//! Durations as people write them in manifests: `300ms`, `30s`, `5m`, `1h30m`.
//!
//! The format is the one Kubernetes uses (Go's `time.ParseDuration`, without signs
//! and units below a millisecond), so that CEL's `duration()` reads it too.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in whole milliseconds, at most a year, written like `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write whole numbers with a unit, such as \"300ms\", \"30s\", \"5m\" or \"1h30m\", at most \"8760h\""
)]
pub struct SpanError {
    text: String,
}

const YEAR_MS: u64 = 8760 * 3_600_000;
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// So many seconds; a year, if that is less.
    pub const fn secs(secs: u64) -> Self {
        Self::millis(secs.saturating_mul(1_000))
    }

    /// So many milliseconds; a year, if that is less.
    pub const fn millis(millis: u64) -> Self {
        // What could not be read again must not be written.
        Self(if millis > YEAR_MS { YEAR_MS } else { millis })
    }

    /// As a [`Duration`].
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 20 {
            return None;
        }
        let (mut rest, mut total, mut first_unit) = (text, 0u64, 0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let at = UNITS.iter().skip(first_unit).position(|(unit, _)| *unit == &rest[..letters])?;
            first_unit += at + 1; // units go from large to small, each once
            total = total.checked_add(number.checked_mul(UNITS[first_unit - 1].1)?)?;
            rest = &rest[letters..];
        }
        (total <= YEAR_MS).then_some(Self(total))
    }
}

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        Self::parse(text).ok_or_else(|| SpanError { text: text.chars().take(40).collect() })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One unit where it divides evenly, else the largest that does.
        let (mut rest, mut wrote) = (self.0, false);
        if rest >= 24 * 3_600_000 && rest % 3_600_000 == 0 {
            return write!(f, "{}h", rest / 3_600_000);
        }
        for (unit, ms) in UNITS {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                (rest, wrote) = (rest % ms, true);
            }
        }
        if wrote { Ok(()) } else { f.write_str("0s") }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
            "maxLength": 20
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_is_longer_than_what_can_be_read_again() {
        for span in [Span::secs(2 * 365 * 86_400), Span::secs(u64::MAX), Span::millis(u64::MAX)] {
            assert_eq!(span.to_string().parse(), Ok(span));
            assert_eq!(span.get(), Duration::from_millis(YEAR_MS));
        }
    }

    #[test]
    fn spans_read_and_write_as_people_do() {
        for (text, ms, back) in [
            ("30s", 30_000, "30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("168h", 604_800_000, "168h"),
            ("0s", 0, "0s"),
            ("1s500ms", 1_500, "1s500ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (ms, back), "{text}");
        }
        for bad in
            ["", "s", "5", "5 s", "-5s", "5d", "1s1h", "1s1s", "9000h", "99999999999999999999h", "1.5s", "٣s"]
        {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} was accepted");
        }
    }
}
