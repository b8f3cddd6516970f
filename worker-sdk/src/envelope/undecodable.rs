//! Why a worker cannot read a payload.

use super::codec::CodecError;
use super::version::UpgradeError;

/// Why a payload cannot be read. Another version of the worker may be able to.
#[derive(Debug)]
pub(crate) enum Undecodable {
    /// It is not JSON, or not of the payload's type.
    Json(serde_json::Error),
    /// It is of a version that this worker does not know yet. It was not looked at.
    Newer { version: u32, known: u32 },
    /// It is of an older version, and a step towards this one failed.
    Upgrade { version: u32, error: UpgradeError },
    /// It cannot be opened: the codec's or the key's name is in the error.
    Codec(CodecError),
    /// It is not JSON, and says so. It was not looked at.
    ContentType(String),
}

/// A payload that this program cannot read. Its text says why, and may quote the payload.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.kept())]
pub struct PayloadError(pub(crate) Undecodable);

impl Undecodable {
    /// The text that is kept with the task. It may quote the payload: they are kept side
    /// by side.
    pub(crate) fn kept(&self) -> String {
        match self {
            Self::Json(error) => format!("the payload cannot be decoded: {error}"),
            Self::Upgrade { version, error } => {
                let why = match error {
                    UpgradeError::Shape(source) => format!("{error}: {source}"),
                    UpgradeError::NoStep(_) | UpgradeError::Refused(_) => error.to_string(),
                };
                format!("the payload of version {version} cannot be upgraded: {why}")
            }
            _ => self.logged(),
        }
    }

    /// The text for logs, and for tasks whose payload is encrypted: nothing of the payload.
    pub(crate) fn logged(&self) -> String {
        match self {
            Self::Json(error) => {
                format!("the payload cannot be decoded, at line {}, column {}", error.line(), error.column())
            }
            Self::Newer { version, known } => {
                format!("the payload has version {version}; this worker knows up to {known}")
            }
            Self::Upgrade { version, error } => match error {
                UpgradeError::NoStep(_) => {
                    format!("the payload of version {version} cannot be upgraded: {error}")
                }
                UpgradeError::Shape(_) | UpgradeError::Refused(_) => {
                    format!("the payload of version {version} cannot be upgraded")
                }
            },
            Self::Codec(error) => format!("the payload cannot be opened: {error}"),
            Self::ContentType(found) => {
                format!("the payload is {:?}; this worker reads JSON", cut(found))
            }
        }
    }
}

/// A stranger's text, short enough to be quoted.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
