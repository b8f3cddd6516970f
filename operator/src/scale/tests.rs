//! Tables for every rule, and long random histories against the rules as laws.

use bellows_registry::clock;
use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits { min: 0, max: 10, concurrency: 4, idle: Duration::from_secs(60), mode: Mode::Active }
}

fn fresh(due: usize, assigned: usize) -> Signal {
    Signal::Fresh { due, startable: due, slots: due + assigned, assigned, taken: assigned }
}

#[test]
fn out_goes_at_once_and_in_one_step() {
    let now = clock::instant();
    for (due, assigned, current, to) in [
        (1, 0, 0, Some(1)),
        (4, 0, 0, Some(1)),
        (5, 0, 0, Some(2)),
        (1000, 0, 0, Some(10)),
        (3, 4, 1, Some(2)),
        (0, 8, 2, None),
        (1, 3, 1, None),
        (1, 0, 5, None),
    ] {
        let decision = decide(&limits(), fresh(due, assigned), current, None, now);
        let expected = to.map_or(Verdict::Stay, |to| Verdict::Scale { from: current, to });
        assert_eq!(decision.verdict, expected, "{due} due, {assigned} running, {current} pods");
    }
}

#[test]
fn a_burst_of_publishes_seen_task_by_task_is_one_way_out() {
    let start = clock::instant();
    let mut since = None;
    // Tasks are seen one after another; the pods they need are asked for once.
    for (millis, due) in [(0, 1), (3, 5), (20, 9)] {
        let now = start + Duration::from_millis(millis);
        let decision = decide(&limits(), fresh(due, 0), 0, None, now);
        assert_eq!(gather(&limits(), &decision, &mut since, now), Some(start + GATHER), "{due} due");
    }
    let end = start + GATHER;
    let decision = decide(&limits(), fresh(9, 0), 0, None, end);
    assert_eq!(gather(&limits(), &decision, &mut since, end), None, "waited long enough");
    assert_eq!(decision.verdict, Verdict::Scale { from: 0, to: 3 });
    // Once they are there the next burst is gathered anew.
    let enough = decide(&limits(), fresh(9, 0), 3, None, end);
    assert_eq!(gather(&limits(), &enough, &mut since, end), None);
    assert_eq!(since, None);
}

#[test]
fn a_way_out_to_the_maximum_or_the_minimum_waits_for_nothing() {
    let now = clock::instant();
    let most = decide(&limits(), fresh(1000, 0), 0, None, now);
    assert_eq!(gather(&limits(), &most, &mut None, now), None);
    let warm = Limits { min: 2, ..limits() };
    let least = decide(&warm, fresh(0, 0), 0, None, now);
    assert_eq!(gather(&warm, &least, &mut None, now), None);
}

#[test]
fn in_goes_to_the_minimum_after_an_unbroken_idle_time_and_not_before() {
    let start = clock::instant();
    let first = decide(&limits(), fresh(0, 0), 3, None, start);
    assert_eq!((first.verdict, first.reason), (Verdict::Stay, Reason::Cooling));
    assert_eq!(first.wake, Some(start + Duration::from_secs(60)));
    let broken = decide(&limits(), fresh(0, 1), 3, first.idle_since, start + Duration::from_secs(59));
    assert_eq!(broken.idle_since, None, "a running task ends the idle time");
    let end = decide(&limits(), fresh(0, 0), 3, first.idle_since, start + Duration::from_secs(60));
    assert_eq!(end.verdict, Verdict::Scale { from: 3, to: 0 });
    assert_eq!(end.reason.to_string(), "nothing to do for 1m");
}

#[test]
fn a_backlog_that_fits_on_fewer_pods_takes_none_away() {
    let decision = decide(&limits(), fresh(1, 1), 9, None, clock::instant());
    assert_eq!((decision.verdict, decision.reason), (Verdict::Stay, Reason::Enough));
}

#[test]
fn a_minimum_is_kept_without_any_task_and_a_lowered_maximum_obeyed() {
    let now = clock::instant();
    let warm = Limits { min: 2, ..limits() };
    assert_eq!(decide(&warm, fresh(0, 0), 0, None, now).reason, Reason::BelowMinimum);
    assert_eq!(decide(&warm, fresh(0, 0), 2, None, now).verdict, Verdict::Stay);
    let tight = Limits { max: 2, ..limits() };
    assert_eq!(decide(&tight, fresh(9, 4), 8, None, now).verdict, Verdict::Scale { from: 8, to: 2 });
    let busy = decide(&tight, fresh(0, 20), 8, None, now);
    assert_eq!(busy.verdict, Verdict::Scale { from: 8, to: 5 }, "never below what is running");
}

#[test]
fn without_a_fresh_view_nothing_moves_and_the_idle_time_begins_anew() {
    let now = clock::instant();
    let decision = decide(&limits(), Signal::Lost, 7, Some(now), now + Duration::from_secs(3600));
    assert_eq!((decision.verdict, decision.idle_since), (Verdict::Frozen, None));
}

#[test]
fn tasks_on_hold_need_no_pods() {
    let held = Limits { mode: Mode::Hold, ..limits() };
    let decision = decide(&held, fresh(50, 0), 0, None, clock::instant());
    assert_eq!((decision.verdict, decision.reason), (Verdict::Stay, Reason::OnHold));
}

proptest! {
    #[test]
    fn every_history_keeps_the_laws(
        (min, max, concurrency) in (0u32..4, 1u32..20, 1u32..9),
        steps in prop::collection::vec((0usize..60, 0usize..60, 0u64..90, prop::bool::weighted(0.1)), 1..60),
    ) {
        let limits = Limits { min, max: max.max(min), concurrency, ..limits() };
        let (mut now, mut current, mut idle) = (clock::instant(), min, None);
        let mut quiet = Duration::ZERO; // how long demand has been zero, by our own count
        for (due, assigned, wait, lost) in steps {
            now += Duration::from_secs(wait);
            let (due, assigned) = if due < 20 && assigned < 20 { (0, 0) } else { (due, assigned) };
            let signal = if lost { Signal::Lost } else { fresh(due, assigned) };
            quiet += Duration::from_secs(wait);
            let decision = decide(&limits, signal, current, idle, now);
            match decision.verdict {
                Verdict::Scale { from, to } => {
                    prop_assert!(!lost && from == current && to != current);
                    prop_assert!(to >= limits.min && to <= limits.max.max(limits.pods_for(assigned)));
                    if to < from && from <= limits.max {
                        prop_assert!(due + assigned == 0 && quiet >= limits.idle, "took a busy pod");
                    }
                    current = to;
                }
                Verdict::Stay | Verdict::Frozen => {}
            }
            if lost || due + assigned > 0 { quiet = Duration::ZERO; }
            idle = decision.idle_since;
            // Deciding again from what was decided changes nothing.
            let again = decide(&limits, signal, current, idle, now);
            prop_assert!(!matches!(again.verdict, Verdict::Scale { .. }), "decided twice");
            if !lost {
                let enough = limits.pods_for(due + assigned).clamp(limits.min, limits.max);
                prop_assert!(current >= enough, "demand without pods");
            }
        }
    }
}

#[test]
fn tasks_that_a_limit_holds_back_get_no_pods() {
    let limits = Limits { max: 50, concurrency: 4, ..limits() };
    let now = clock::instant();
    let held = |startable, assigned| {
        let slots = startable + assigned;
        Signal::Fresh { due: 1000, startable, slots, assigned, taken: assigned }
    };
    let decision = decide(&limits, held(8, 0), 0, None, now);
    assert_eq!(decision.verdict, Verdict::Scale { from: 0, to: 2 }, "as many as may run");
    let decision = decide(&limits, held(0, 8), 2, None, now);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Stay, Reason::Limited { waiting: 1000 }));
}

#[test]
fn heavy_tasks_get_the_pods_that_their_slots_take() {
    let limits = Limits { max: 50, concurrency: 4, ..limits() };
    let heavy = Signal::Fresh { due: 5, startable: 5, slots: 20, assigned: 0, taken: 0 };
    let decision = decide(&limits, heavy, 0, None, clock::instant());
    assert_eq!(decision.verdict, Verdict::Scale { from: 0, to: 5 });
}

#[test]
fn a_lowered_maximum_leaves_the_pods_whose_slots_are_taken() {
    let now = clock::instant();
    // Pods, running tasks, the weight of each, and the pods that stay of a maximum of 2.
    for (mode, current, assigned, weight, stay) in [
        (Mode::Active, 8, 8, 4, 8),
        (Mode::Active, 8, 8, 2, 4),
        (Mode::Active, 8, 8, 1, 2),
        (Mode::Active, 8, 0, 1, 2),
        (Mode::Hold, 8, 6, 4, 6),
    ] {
        let tight = Limits { max: 2, mode, ..limits() };
        let taken = assigned * weight;
        let busy = Signal::Fresh { due: 9, startable: 9, slots: 9 + taken, assigned, taken };
        let decision = decide(&tight, busy, current, None, now);
        let expected =
            if stay == current { Verdict::Stay } else { Verdict::Scale { from: current, to: stay } };
        assert_eq!(decision.verdict, expected, "{assigned} tasks of weight {weight} on {current} pods");
    }
}

#[test]
fn what_the_registry_counts_is_what_is_decided_by() {
    let demand =
        Demand { due: 9, startable: 5, wanted: 28, assigned: 2, assigned_slots: 8, ..Demand::default() };
    let signal = Signal::Fresh { due: 9, startable: 5, slots: 28, assigned: 2, taken: 8 };
    assert_eq!(Signal::of(&demand), signal);
}
