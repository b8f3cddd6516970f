//! bellows-registry
pub mod assigner;
pub mod backend;
pub mod backoff;
pub mod clock;
pub mod demand;
pub mod entropy;
pub mod id;
pub mod key;
pub mod mirror;
pub mod plan;
pub mod record;
pub mod session;
pub mod spec;
pub mod state;
pub mod txn;
mod upkeep;
pub mod view;
