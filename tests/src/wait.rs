//! Waiting for a condition, with a bound and a name.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::narrate::CheckFailed;

/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(100);

/// Looks until the answer is `Some`; an error of looking is kept for the message only,
/// since a cluster in the middle of a fault refuses things for a while.
pub async fn until<T, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let mut last = String::from("it never was so");
    let looking = async {
        loop {
            match look().await {
                Ok(Some(found)) => return found,
                Ok(None) => {}
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(bound, looking).await.map_err(|_| late(what, bound, &last))
}

/// Bounds something that announces itself.
pub async fn within<T>(what: &str, bound: Duration, happening: impl Future<Output = Result<T>>) -> Result<T> {
    let happened = tokio::time::timeout(bound, happening).await;
    happened.map_err(|_| late(what, bound, "it did not happen"))?.with_context(|| what.to_owned())
}

fn late(what: &str, bound: Duration, last: &str) -> anyhow::Error {
    let why = format!("not within {} s: {last}", bound.as_secs());
    CheckFailed { check: what.to_owned(), why }.into()
}
