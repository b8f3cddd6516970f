//! The demo's story and the tests that need a real Kubernetes, told with the same words.
//!
//! `story` has the chapters; `scene` what they share: `cluster` (testbed or kind), the
//! witnesses `ledger` (of the registry) and `replicas` (of the Deployment), the `volume`
//! of `photos`, and the `report`. `behaviours` is the report of `make test`. The rest are the means to tell and to wait.

pub mod behaviours;
pub mod cluster;
pub mod contact_sheet;
pub mod deb;
pub mod ledger;
pub mod manifests;
pub mod names;
pub mod narrate;
pub mod photos;
pub mod pods;
pub mod replicas;
pub mod report;
pub mod scene;
pub mod shell;
pub mod story;
pub mod verdict;
pub mod volume;
pub mod wait;
