//! How a body is to be read: kept beside it, in the header that anyone can read.

use serde::{Deserialize, Serialize};

/// The media type of a body whose record names none.
pub const JSON: &str = "application/json";

/// How a payload is to be read.
///
/// Absent from a record whose payload is plain JSON of the first version, as every payload
/// was before there were envelopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Envelope {
    /// The media type of the decoded payload; `None` is [`JSON`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The version of the payload's shape, from 1.
    #[serde(skip_serializing_if = "is_first")]
    pub version: u32,
    /// What was done to the payload, in the order in which it was done: a reader undoes it
    /// from the last to the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codecs: Vec<Applied>,
}

impl Envelope {
    /// Plain JSON of the first version.
    pub const PLAIN: &'static Self = &Self { content_type: None, version: 1, codecs: Vec::new() };

    /// The envelope as it is stored: `None` if it says nothing.
    pub fn stored(self) -> Option<Box<Self>> {
        (self != *Self::PLAIN).then(|| Box::new(self))
    }

    /// The media type of the decoded payload.
    pub fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or(JSON)
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::PLAIN.clone()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_first(version: &u32) -> bool {
    *version == 1
}

/// One codec that was applied to a body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Applied {
    /// Which codec, such as `zstd`.
    pub codec: String,
    /// Under which key, where the codec has keys. The key's name, never the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[cfg(test)]
mod tests {
    use crate::record::TaskOptions;

    use super::*;

    #[test]
    fn a_record_from_before_there_were_envelopes_is_plain_json_of_the_first_version() {
        let old: TaskOptions = serde_json::from_str("{}").unwrap();
        assert_eq!((old.envelope().version, old.envelope().content_type()), (1, JSON));
        assert_eq!(old.envelope().codecs, []);
        assert!(old.is_default());
        assert_eq!(Envelope::default().stored(), None, "what says nothing is not stored");
    }

    #[test]
    fn an_envelope_is_a_few_words_that_a_person_can_read() {
        let zstd = Applied { codec: "zstd".to_owned(), key: None };
        let sealed = Applied { codec: "aes256gcm".to_owned(), key: Some("2026".to_owned()) };
        let envelope = Envelope { version: 2, codecs: vec![zstd, sealed], ..Envelope::default() };
        let options = TaskOptions { envelope: envelope.stored(), ..TaskOptions::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(
            text,
            r#"{"envelope":{"version":2,"codecs":[{"codec":"zstd"},{"codec":"aes256gcm","key":"2026"}]}}"#
        );
        assert_eq!(serde_json::from_str::<TaskOptions>(&text).unwrap(), options);
    }
}
