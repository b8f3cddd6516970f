//! The guides' programs, compiled and run as doc tests: every file of `docs/guide`.

#[doc = include_str!("../../docs/guide/cancel.md")]
mod cancel {}

#[doc = include_str!("../../docs/guide/cpu-bound-handlers.md")]
mod cpu_bound_handlers {}

#[cfg(feature = "embedded")]
#[doc = include_str!("../../docs/guide/embedded.md")]
mod embedded {}

#[cfg(feature = "encryption")]
#[doc = include_str!("../../docs/guide/encryption.md")]
mod encryption {}

#[doc = include_str!("../../docs/guide/first-worker.md")]
mod first_worker {}

#[doc = include_str!("../../docs/guide/follow-ups.md")]
mod follow_ups {}

#[doc = include_str!("../../docs/guide/middleware.md")]
mod middleware {}

#[doc = include_str!("../../docs/guide/parked-and-replay.md")]
mod parked_and_replay {}

#[doc = include_str!("../../docs/guide/payloads.md")]
mod payloads {}

#[doc = include_str!("../../docs/guide/progress-and-checkpoints.md")]
mod progress_and_checkpoints {}

#[doc = include_str!("../../docs/guide/publishing.md")]
mod publishing {}

#[doc = include_str!("../../docs/guide/results.md")]
mod results {}

#[doc = include_str!("../../docs/guide/retries.md")]
mod retries {}

#[doc = include_str!("../../docs/guide/scheduling.md")]
mod scheduling {}

#[doc = include_str!("../../docs/guide/tasks-by-attribute.md")]
mod tasks_by_attribute {}

#[cfg(feature = "testing")]
#[doc = include_str!("../../docs/guide/testing-your-tasks.md")]
mod testing_your_tasks {}

#[doc = include_str!("../../docs/guide/time-limits.md")]
mod time_limits {}

#[doc = include_str!("../../docs/guide/tracing.md")]
mod tracing {}

#[doc = include_str!("../../docs/guide/waiting.md")]
mod waiting {}
