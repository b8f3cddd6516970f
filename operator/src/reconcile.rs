//! Reconciling one definition, in named steps: dereference, validate, build, apply,
//! status.

pub mod build;
pub mod validate;
