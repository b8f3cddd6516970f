//! What travels around a payload: its version, its headers and trace, and what was done to
//! its bytes on the way.

pub(crate) mod codec;
pub(crate) mod codecs;
pub(crate) mod content;
#[cfg(feature = "encryption")]
pub(crate) mod encryption;
pub(crate) mod headers;
#[cfg(feature = "object-store")]
mod objects;
pub(crate) mod run;
pub(crate) mod trace;
pub(crate) mod undecodable;
pub(crate) mod version;
#[cfg(feature = "zstd")]
pub(crate) mod zstd;
