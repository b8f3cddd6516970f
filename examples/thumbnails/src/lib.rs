//! Thumbnails of photographs: a complete Bellows worker and its publisher.
//!
//! `task` is what travels; `thumbnail` the work itself, which knows nothing of Bellows;
//! `worker` the task, one attempt of it; `refs` the publisher's file of saved
//! refs, `awaiting` what comes of them, `asking` what else can be asked of them.

pub mod asking;
pub mod awaiting;
pub mod refs;
pub mod task;
pub mod thumbnail;
pub mod worker;
