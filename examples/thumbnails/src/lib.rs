//! Thumbnails of photographs: a complete Bellows worker and its publisher.
//!
//! `thumbnail` is the work itself and knows nothing of Bellows; `task` is what
//! travels.

pub mod task;
pub mod thumbnail;
