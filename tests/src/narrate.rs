//! How the story is told: chapters with the time they usually take, commands as a user
//! would type them, and checks that name themselves.

use std::fmt::Display;
use std::time::Duration;

use bellows_registry::clock::{self, Instant};

/// A check that did not hold.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {why}")]
pub struct CheckFailed {
    /// What was checked, in a few words.
    pub check: String,
    /// What was found instead.
    pub why: String,
}

/// Holds, or fails with its name.
pub fn check(name: &str, holds: bool, why: impl Display) -> anyhow::Result<()> {
    if holds {
        println!("    ok  {name}");
        return Ok(());
    }
    Err(CheckFailed { check: name.to_owned(), why: why.to_string() }.into())
}

/// Tells a time beside its target. Not a check: a busy machine misses a target without
/// anything being wrong, and what must hold at any speed has checks of its own.
pub fn figure(name: &str, seconds: f64, target: f64) {
    let verdict = if seconds <= target { "target" } else { "ABOVE the target of" };
    println!("    {name}: {seconds:.1} s ({verdict} {target:.0} s)");
}

/// Says what is being done, without a verdict.
pub fn say(text: impl Display) {
    println!("    {text}");
}

/// Begins a chapter and says how long it usually takes.
pub fn chapter(title: &str, usually: &str) -> Chapter {
    println!("\n== {title} (usually {usually})");
    Chapter { began: clock::instant() }
}

/// Measures a chapter; [`Chapter::end`] tells how long it took.
#[derive(Debug)]
pub struct Chapter {
    began: Instant,
}

impl Chapter {
    /// Says and answers how long it took.
    pub fn end(self) -> Duration {
        let took = clock::instant() - self.began;
        println!("    {:.1} s", took.as_secs_f64());
        took
    }
}
