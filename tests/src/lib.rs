//! The demo's story and the tests that need a real Kubernetes, told with the same words.

pub mod contact_sheet;
pub mod deb;
pub mod photos;
