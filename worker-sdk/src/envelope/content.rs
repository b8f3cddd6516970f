//! Media types: what a payload says it is.

use bellows_registry::record::{JSON, limits};

use super::undecodable::cut;
use crate::error::OptionError;

/// Whether a payload of this media type is JSON. Parameters, such as a character set, do
/// not matter.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == JSON || (essence.contains('/') && essence.ends_with("+json"))
}

/// Refuses what is no media type of JSON.
pub(crate) fn check(media_type: &str) -> Result<(), OptionError> {
    let visible = media_type.bytes().all(|b| (b' '..=b'~').contains(&b));
    if visible && media_type.len() <= limits::CONTENT_TYPE && is_json(media_type) {
        return Ok(());
    }
    Err(OptionError {
        option: "content type",
        value: cut(media_type),
        limit: format!("{JSON} or one that ends in +json, of at most {} bytes", limits::CONTENT_TYPE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_media_type() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.acme.resize+json"]
        {
            check(json).unwrap();
        }
        for other in ["", "json", "+json", "application/cbor", "text/plain; a=+json", "application/json\n"] {
            let refused = check(other).unwrap_err().to_string();
            assert!(
                refused.starts_with("content type ") && refused.contains("use application/json or"),
                "{refused}"
            );
        }
        assert!(check(&format!("application/{}+json", "x".repeat(120))).is_err());
    }
}
