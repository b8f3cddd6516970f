//! What travels around a payload: its version, its headers and trace, and what was done to
//! its bytes on the way.

pub(crate) mod content;
pub(crate) mod headers;
pub(crate) mod trace;
pub(crate) mod undecodable;
pub(crate) mod version;
