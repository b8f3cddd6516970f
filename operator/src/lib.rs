//! Bellows' operator: it keeps one worker Deployment per TaskDefinition, scales it by
//! the registry's own view of demand, and hosts the assigner.
//!
//! Two leaderships, on purpose. A Kubernetes Lease guards `reconcile` (templates,
//! policies, status). The assigner's election in etcd guards assigning and, because it
//! owns the one view of demand, scaling. Losing the API server stops the first, and
//! never the assigning of tasks.

pub mod check;
pub mod config;
pub mod crd;
pub mod events;
pub mod generate;
pub mod http;
pub mod kubernetes;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod reconcile;
pub mod registry;
pub mod scale;
