//! Payloads of older versions, and how they become those of this one.
//!
//! A payload's version is written beside it when it is published
//! ([`TaskDefinition::VERSION`]). A worker brings an older one up step by step, from each
//! version to the next; one that is newer than the worker knows is left alone.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::undecodable::Undecodable;
use crate::definition::{PayloadOf, TaskDefinition};

/// Why a payload of an older version could not be brought up to this program's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The definition has no step from this version: too old, or never written.
    #[error("there is no upgrade from version {0}")]
    NoStep(u32),
    /// The payload is not what its version says.
    #[error("it does not have the shape of its version")]
    Shape(#[source] serde_json::Error),
    /// The step's own words. They are kept with the task: say nothing secret.
    #[error("{0}")]
    Refused(Box<dyn Error + Send + Sync>),
}

/// The steps of a chain of upgrades: what the body of [`TaskDefinition::upgrade`] calls.
///
/// ```
/// use bellows_sdk::prelude::*;
/// use bellows_sdk::upgrade::{self, UpgradeError, Value};
///
/// #[derive(Deserialize)]
/// struct ResizeV1 { url: String, size: (u32, u32) }
/// #[derive(Serialize, Deserialize)]
/// struct Resize { url: String, width: u32 }
///
/// fn from_v1(old: ResizeV1) -> Resize {
///     Resize { url: old.url, width: old.size.0 }
/// }
///
/// struct ResizeImage;
/// impl TaskDefinition for ResizeImage {
///     const NAME: &'static str = "resize-image";
///     const VERSION: u32 = 2;
///     type Callback = String;
///     type Trigger = PublishTrigger<Resize>;
///
///     fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> {
///         match version {
///             1 => upgrade::step(payload, from_v1),
///             _ => Err(UpgradeError::NoStep(version)),
///         }
///     }
/// }
/// ```
pub mod upgrade {
    pub use serde_json::Value;

    pub use super::UpgradeError;
    use super::{DeserializeOwned, Error, Serialize};

    /// A step that always succeeds.
    ///
    /// # Errors
    /// [`UpgradeError::Shape`] if the payload is not an `Old`.
    pub fn step<Old: DeserializeOwned, New: Serialize>(
        payload: Value,
        next: impl FnOnce(Old) -> New,
    ) -> Result<Value, UpgradeError> {
        let old = serde_json::from_value(payload).map_err(UpgradeError::Shape)?;
        serde_json::to_value(next(old)).map_err(UpgradeError::Shape)
    }

    /// A step that may refuse a payload.
    ///
    /// # Errors
    /// As [`step`], and [`UpgradeError::Refused`] with the step's own error.
    pub fn try_step<Old: DeserializeOwned, New: Serialize, E: Into<Box<dyn Error + Send + Sync>>>(
        payload: Value,
        next: impl FnOnce(Old) -> Result<New, E>,
    ) -> Result<Value, UpgradeError> {
        let old = serde_json::from_value(payload).map_err(UpgradeError::Shape)?;
        let new = next(old).map_err(|error| UpgradeError::Refused(error.into()))?;
        serde_json::to_value(new).map_err(UpgradeError::Shape)
    }
}

/// Reads a decoded payload of some version as this program's type.
pub(crate) fn read<T: TaskDefinition>(version: u32, bytes: &[u8]) -> Result<PayloadOf<T>, Undecodable> {
    if version > T::VERSION {
        return Err(Undecodable::Newer { version, known: T::VERSION });
    }
    if version == T::VERSION {
        return serde_json::from_slice(bytes).map_err(Undecodable::Json);
    }
    let mut payload: Value = serde_json::from_slice(bytes).map_err(Undecodable::Json)?;
    for from in version..T::VERSION {
        payload = T::upgrade(from, payload).map_err(|error| Undecodable::Upgrade { version: from, error })?;
    }
    serde_json::from_value(payload)
        .map_err(|error| Undecodable::Upgrade { version: T::VERSION - 1, error: UpgradeError::Shape(error) })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::definition::PublishTrigger;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Third {
        metres: u32,
    }

    struct Walk;
    impl TaskDefinition for Walk {
        const NAME: &'static str = "walk";
        const VERSION: u32 = 3;
        type Callback = ();
        type Trigger = PublishTrigger<Third>;

        fn upgrade(version: u32, payload: Value) -> Result<Value, UpgradeError> {
            match version {
                1 => upgrade::try_step(payload, |feet: u32| feet.checked_mul(12).ok_or("too far")),
                2 => upgrade::step(payload, |inches: u32| Third { metres: inches / 39 }),
                _ => Err(UpgradeError::NoStep(version)),
            }
        }
    }

    fn read_as(version: u32, json: &str) -> Result<Third, String> {
        read::<Walk>(version, json.as_bytes()).map_err(|error| error.kept())
    }

    #[test]
    fn an_older_payload_goes_through_every_step_and_a_current_one_through_none() {
        assert_eq!(read_as(1, "130"), Ok(Third { metres: 40 }));
        assert_eq!(read_as(2, "390"), Ok(Third { metres: 10 }));
        assert_eq!(read_as(3, r#"{"metres":7}"#), Ok(Third { metres: 7 }));
    }

    #[test]
    fn what_cannot_be_upgraded_says_from_which_version_and_why() {
        let said = |version, json| read_as(version, json).unwrap_err();
        assert_eq!(
            said(0, "1"),
            "the payload of version 0 cannot be upgraded: there is no upgrade from version 0"
        );
        assert_eq!(said(1, "4000000000"), "the payload of version 1 cannot be upgraded: too far");
        assert!(said(1, r#""x""#).starts_with(
            "the payload of version 1 cannot be upgraded: it does not have the shape of its version: invalid type"
        ));
        assert_eq!(said(4, "1"), "the payload has version 4; this worker knows up to 3");
    }
}
