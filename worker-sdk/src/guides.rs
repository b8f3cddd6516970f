//! The examples of the guides are doc tests.

#[doc = include_str!("../../docs/guide/cancel.md")]
struct Cancel;

#[doc = include_str!("../../docs/guide/parked-and-replay.md")]
struct ParkedAndReplay;

#[doc = include_str!("../../docs/guide/retries.md")]
struct Retries;

#[doc = include_str!("../../docs/guide/time-limits.md")]
struct TimeLimits;
