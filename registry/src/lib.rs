//! bellows-registry
pub mod backend;
pub mod clock;
pub mod entropy;
pub mod id;
pub mod key;
pub mod record;
pub mod spec;
pub mod state;
pub mod txn;
