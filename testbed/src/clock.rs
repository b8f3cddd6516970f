//! Reading time and waiting for conditions, always with a bound.
//! The only file of this crate that reads a clock.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long to sleep between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Measures from its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "the testbed waits for real processes")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Tries every 50 ms until it succeeds; the error of the last try is part of the message when it never does.
pub(crate) fn retry<T>(what: &str, bound: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = String::new();
    let outcome = wait_until(what, bound, || match attempt() {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            last = error.to_string();
            Ok(None)
        }
    });
    outcome.map_err(|_| Error::Timeout { what: format!("{what}; the last try said: {last}"), after: bound })
}

/// Looks at a condition every 50 ms until it yields a value.
///
/// # Errors
/// [`Error::Timeout`], naming `what`, when `bound` has passed; whatever the probe itself returns as an error ends
/// the wait at once.
pub fn wait_until<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if watch.elapsed() >= bound {
            return Err(Error::Timeout { what: what.to_owned(), after: bound });
        }
        thread::sleep(POLL);
    }
}
