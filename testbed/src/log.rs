//! What the testbed tells the person at the terminal: one line a step, with the seconds it took.
//! Goes to standard error, so that `env` and `tools` can be evaluated by a shell.

use crate::clock::Stopwatch;
use crate::error::Result;

/// Says one thing.
pub(crate) fn say(text: &str) {
    eprintln!("testbed: {text}");
}

/// Does one step and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let watch = Stopwatch::start();
    let result = work();
    let seconds = watch.elapsed().as_secs_f64();
    match &result {
        Ok(_) => say(&format!("{what}: {seconds:.1} s")),
        Err(_) => say(&format!("{what}: failed after {seconds:.1} s")),
    }
    result
}
