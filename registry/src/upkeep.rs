//! The leader's housekeeping: it runs beside the assigner's loop, while it leads.
//!
//! Nothing here is urgent, and nothing here may cost an idle registry a write.

mod retention;

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::backend::DynBackend;
use crate::clock;
use crate::key::Keyspace;
use retention::Passed;

/// The pause between two passes.
const EVERY: Duration = Duration::from_secs(30);
/// The pause while more is due than one pass reads.
const SOON: Duration = Duration::from_secs(1);

/// Runs for ever; dropped when its assigner no longer leads.
pub(crate) async fn run(backend: DynBackend, space: Keyspace) -> Infallible {
    let mut pieces = retention::Pieces::of(&space);
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        pause = EVERY;
        match pieces.pass(&backend, &space, &clock::now()).await {
            Ok(Passed { removed, more }) => {
                if more {
                    pause = SOON;
                }
                if removed > 0 {
                    tracing::info!(removed, "terminal records past their time were removed");
                }
            }
            Err(error) => tracing::warn!(%error, "retention goes on in the next pass"),
        }
    }
}
