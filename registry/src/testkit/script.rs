//! Random operations side by side on two backends, every answer compared.
//!
//! The backends must be fresh: revisions are compared as they are. Leases are compared
//! by the order in which they were granted, errors by their class. Watches are opened
//! on the way and compared at barriers, change by change; history is compacted only
//! there, so that both sides have read as far.

mod draw;
mod side;

use std::fmt;

use self::draw::{Draw, Step};
use self::side::Side;
use super::Host;

/// Steps between two barriers.
const BARRIER: usize = 500;

/// What a run has compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// The seed that gave the steps.
    pub seed: u64,
    /// Steps taken on both sides.
    pub steps: usize,
    /// Those that both sides refused.
    pub refused: usize,
    /// Changes that watches told, the same on both sides.
    pub changes: usize,
    /// Watches opened.
    pub watches: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps, refused, changes, watches } = self;
        write!(
            f,
            "script with seed {seed}: {steps} steps, {refused} of them refused by both, \
             {changes} changes told by {watches} watches, 0 differences"
        )
    }
}

/// The first difference of a run.
#[derive(Debug, thiserror::Error)]
#[error("script with seed {seed}, step {step}: {what}\n  left:  {left}\n  right: {right}")]
pub struct Difference {
    seed: u64,
    step: usize,
    what: String,
    left: String,
    right: String,
}

/// Runs `steps` steps drawn from `seed` on both backends.
pub async fn run(
    left: &dyn Host,
    right: &dyn Host,
    seed: u64,
    steps: usize,
) -> Result<Summary, Box<Difference>> {
    let mut draw = Draw::new(seed);
    let (mut left, mut right) = (Side::new(left), Side::new(right));
    let mut summary = Summary { seed, ..Summary::default() };
    for number in 1..=steps {
        let step = if number % BARRIER == 0 || number == steps { draw.barrier() } else { draw.step() };
        let (from_left, from_right) = (left.take(&step).await, right.take(&step).await);
        if from_left != from_right {
            return Err(Box::new(Difference {
                seed,
                step: number,
                what: shortened(format!("{step:?}")),
                left: shortened(format!("{from_left:?}")),
                right: shortened(format!("{from_right:?}")),
            }));
        }
        draw.learn(&step, &from_left);
        summary.steps += 1;
        summary.refused += usize::from(from_left.was_refused());
        summary.changes += from_left.changes();
        summary.watches += usize::from(matches!(step, Step::Watch(_)));
    }
    Ok(summary)
}

fn shortened(mut text: String) -> String {
    const MOST: usize = 4000;
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
