//! The examples of the guides are doc tests.

#[doc = include_str!("../../docs/guide/cancel.md")]
struct Cancel;
