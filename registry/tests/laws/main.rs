//! The deciding core alone, over long random histories, with the laws as the oracle.
//!
//! No backend and no clock: a table of keys, the moves of `txn`, the fold of `view` and
//! the plans of `plan`. Requests are taken late or never, answers come late or are lost,
//! the view lags behind, leaders change, workers die, and some of them only seem to: what
//! they send comes late. People cancel, replay and purge. Every step is judged: the plan
//! against the view it was made from, each move against what its fence is to let through,
//! the history against the laws and the limits, and the folded view against one read afresh.

mod again;
mod asking;
mod attempts;
mod counts;
mod fair;
mod leader;
mod publishing;
mod seen;
mod steps;
mod table;
mod workers;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellows_registry::clock;
use bellows_registry::key::Key;
use leader::Sim;
use seen::Seen;

/// Steps of one history.
const STEPS: u64 = 600;

/// Histories: as many as take a minute or two.
const HISTORIES: u64 = 3_600;

#[test]
fn no_random_history_breaks_a_law_or_a_limit() {
    let (began, next) = (clock::instant(), AtomicU64::new(0));
    let histories = || {
        let mut seen = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= HISTORIES {
                return seen;
            }
            let mut sim = Sim::new(seed);
            let _named = Named(seed);
            for step in 0..STEPS {
                sim.step();
                if step % 50 == 0 {
                    sim.table.judge();
                }
            }
            seen.merge(&sim.table.seen);
        }
    };
    let seen = std::thread::scope(|scope| {
        let threads = [scope.spawn(histories), scope.spawn(histories)];
        threads.into_iter().fold(Seen::default(), |mut sum, thread| {
            sum.merge(&thread.join().expect("a history broke a law: see above"));
            sum
        })
    });
    let steps = HISTORIES * STEPS;
    println!("{steps} steps in {:?}: {seen:?}", began.elapsed());
    seen.judge(HISTORIES);
    note(steps, seen.times("changes of leaders") + seen.times("answers lost"));
}

/// Says which history it was, should it break something.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was history {}", self.0);
        }
    }
}

/// For whoever collects what was shown.
fn note(steps: u64, disturbances: u64) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bellows");
    let text = format!("{{\"property_steps\": {steps}, \"property_disturbances\": {disturbances}}}\n");
    std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("property.json"), text)).unwrap();
}

#[test]
fn a_registry_left_in_peace_runs_empty_within_its_limits() {
    for seed in 0..(HISTORIES / 20).max(10) {
        let mut sim = Sim::new(1_000_000 + seed);
        for _ in 0..400 {
            sim.step();
        }
        sim.make_peace();
        let mut rounds = 0;
        while sim.left(|key| matches!(key, Key::Task(..))) > 0 {
            rounds += 1;
            let left = sim.left(|key| matches!(key, Key::Task(..)));
            assert!(rounds < 3000, "seed {seed}: {left} tasks never end: {:?}", sim.waiting());
            sim.peaceful_round(Duration::from_secs(30));
        }
        // What was parked goes when its time is over, and then nothing holds anything.
        for _ in 0..10 {
            sim.peaceful_round(Duration::from_secs(100 * 24 * 3600));
        }
        let remains = |key: &Key| matches!(key, Key::Request(..) | Key::Parked(..) | Key::Unique(..));
        assert_eq!(sim.left(remains), 0, "seed {seed}: {:?}", sim.table.keys(remains));
        sim.table.judge();
    }
}
