//! What any [`Backend`](crate::backend::Backend) owes, as one table of named checks.
//!
//! Each check works under a prefix of its own, so that all of them may run on one
//! store, and says in one sentence what was not as promised.
//!
//! ```no_run
//! # async fn example(host: &dyn bellows_registry::testkit::Host) {
//! let report = bellows_registry::testkit::conformance::run(host, "my backend").await;
//! assert!(report.failed.is_empty(), "{report}");
//! # }
//! ```

mod asked;
mod house;
mod leases;
mod moves;
mod ranges;
mod refusals;
mod reports;
mod scene;
mod stage;
mod transactions;
mod watches;

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::Host;
pub use stage::{Flaw, Stage};

/// One promise, and the test of it.
#[derive(Clone, Copy)]
pub struct Check {
    /// The promise.
    pub name: &'static str,
    run: for<'a> fn(&'a Stage<'a>) -> BoxFuture<'a, Result<(), Flaw>>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes checks out of functions; the function's name is the check's.
macro_rules! table {
    ($($check:ident),* $(,)?) => {
        &[$($crate::testkit::conformance::Check {
            name: stringify!($check),
            run: |stage| Box::pin($check(stage)),
        }),*]
    };
}
use table;

/// Every check.
pub fn checks() -> impl Iterator<Item = Check> {
    [
        ranges::CHECKS,
        transactions::CHECKS,
        refusals::CHECKS,
        leases::CHECKS,
        watches::CHECKS,
        moves::CHECKS,
        moves::unique::CHECKS,
        reports::CHECKS,
        asked::CHECKS,
        house::CHECKS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// A check that has not ended by then is failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// How many checks held.
    pub passed: usize,
    /// Those that did not, with what was wrong.
    pub failed: Vec<(&'static str, Flaw)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, passed, failed } = self;
        write!(f, "conformance of {backend}: {passed} checks held, {} did not", failed.len())?;
        for (name, flaw) in failed {
            write!(f, "\n  {name}: {flaw}")?;
        }
        Ok(())
    }
}

/// Runs every check on one backend, one after the other.
pub async fn run(host: &dyn Host, backend: &str) -> Report {
    let mut report = Report { backend: backend.to_owned(), passed: 0, failed: Vec::new() };
    for check in checks() {
        let stage = Stage::new(host, check.name);
        let flaw = match timeout(PATIENCE, (check.run)(&stage)).await {
            Ok(Ok(())) => {
                report.passed += 1;
                continue;
            }
            Ok(Err(flaw)) => flaw,
            Err(_) => Flaw::new(format!("not done after {PATIENCE:?}")),
        };
        report.failed.push((check.name, flaw));
    }
    report
}
