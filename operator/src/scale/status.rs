//! The scaler's part of a status, and when it is worth a write: pure.
//!
//! At most one write per definition in two seconds, none when nothing changed, and one
//! at once for a scaling. Never one per task.
//!
//! A signal that comes back within seconds was never lost, for people: the number of pods is
//! frozen at once, but a new leader's first list, or a term that is raised, is no news.
//!
//! A replica that is cut off says that the signal is lost, and may do so over what the
//! leader has written. The leader writes it again.

use std::time::Duration;

use bellows_registry::clock::Instant;
use bellows_registry::demand::Demand;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{Decision, Reason, Verdict};
use crate::crd::{ConditionType, LastScale, TaskDefinitionStatus};
use crate::reconcile::status::{Finding, Holds};

/// The shortest time between two writes.
const PACE: Duration = Duration::from_secs(2);

/// A signal that is lost for so long is told.
const LASTING: Duration = Duration::from_secs(3);

/// How often a wait is looked at while nothing else happens.
const LATER: Duration = Duration::from_secs(10);

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    findings: Vec<Finding>,
    replicas: i32,
    ready: i32,
    backlog: usize,
    running: usize,
    parked: usize,
    /// In steps: a wait that only goes on is no news.
    oldest: Option<u64>,
    /// Without a fresh view the numbers are left as they were.
    fresh: bool,
}

impl Shown {
    pub(super) fn of(
        decision: &Decision,
        demand: &Demand,
        fresh: bool,
        deployment: &Deployment,
        now: Instant,
    ) -> Self {
        let frozen = decision.verdict == Verdict::Frozen;
        let holds = |yes: bool| if yes { Holds::True } else { Holds::False };
        let signal = if fresh {
            ("Fresh", "the view of the registry is current")
        } else {
            ("Lost", "no fresh view of the registry")
        };
        let status = deployment.status.as_ref();
        Self {
            findings: vec![
                Finding::new(
                    ConditionType::ScalingActive,
                    holds(!frozen),
                    decision.reason.word(),
                    text(&decision.reason),
                ),
                Finding::new(ConditionType::SignalAvailable, holds(fresh), signal.0, signal.1),
            ],
            replicas: status.and_then(|status| status.replicas).unwrap_or(0),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
            backlog: demand.due,
            running: demand.assigned,
            parked: demand.parked,
            oldest: demand.oldest_due.map(|due| coarse(now.saturating_duration_since(due).as_secs())),
            fresh,
        }
    }
}

impl Shown {
    /// Whether a status says of our conditions what we say.
    fn stands_in(&self, status: &TaskDefinitionStatus) -> bool {
        self.findings.iter().all(|finding| status.conditions.iter().any(|c| finding.is(c)))
    }
}

/// A condition's message must not change with every task: numbers have their own fields.
fn text(reason: &Reason) -> String {
    match reason {
        Reason::Backlog { .. } => "more tasks are due than the pods can take".to_owned(),
        other => other.to_string(),
    }
}

/// Seconds to one significant digit beyond ten.
fn coarse(seconds: u64) -> u64 {
    let mut unit = 1;
    while seconds / unit >= 20 {
        unit *= 10;
    }
    seconds / unit * unit
}

/// What was written, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Told {
    written: Option<(Shown, i64)>,
    written_at: Option<Instant>,
    scaled: Option<LastScale>,
    urgent: bool,
    lost_since: Option<Instant>,
}

/// What to do about the status now.
#[derive(Debug)]
pub(super) struct Next {
    /// Write this.
    pub(super) write: Option<Value>,
    /// Whether that says that the signal was lost or found.
    pub(super) signal_changed: bool,
    /// Look again then.
    pub(super) wake: Option<Instant>,
}

impl Told {
    /// Notes a scaling, which is shown at once.
    pub(super) fn scaled(&mut self, from: u32, to: u32, reason: Reason) {
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let time = Time(crate::lease::timestamp());
        let reason = reason.to_string();
        self.scaled = Some(LastScale { time, from: number(from), to: number(to), reason });
        self.urgent = true;
    }

    /// The last scaling of this process.
    #[cfg(test)]
    pub(super) fn last_scale(&self) -> Option<&LastScale> {
        self.scaled.as_ref()
    }

    /// Notes that the last write did not arrive: what is shown is not what was written.
    pub(super) fn failed(&mut self) {
        self.written = None;
    }

    /// Decides whether `shown` is written now. `before` is the status as cached. Whoever leads
    /// insists on what it shows.
    pub(super) fn next(
        &mut self,
        shown: Shown,
        generation: i64,
        before: &TaskDefinitionStatus,
        leading: bool,
        now: Instant,
    ) -> Next {
        // A wait goes on without any change: look at it from time to time.
        let later = shown.oldest.map(|_| now + LATER);
        let nothing = Next { write: None, signal_changed: false, wake: later };
        let was_fresh =
            before.conditions.iter().find(|c| c.type_ == "SignalAvailable").map(|c| c.status == "True");
        if let Some(at) = self.lasts_at(shown.fresh, now).filter(|at| was_fresh == Some(true) && now < *at) {
            return Next { wake: Some(at), ..nothing };
        }
        let same = self.written.as_ref().is_some_and(|(old, g)| *old == shown && *g == generation);
        // Our own write is not in the cache at once either, but before the pace has passed.
        let insists = leading && !shown.stands_in(before);
        if same && !self.urgent && !insists {
            return nothing;
        }
        let open_at = self.written_at.map(|at| at + PACE);
        if let Some(at) = open_at.filter(|at| !self.urgent && now < *at) {
            return Next { wake: Some(at), ..nothing };
        }
        let value = self.render(&shown, generation, before);
        let signal_changed = was_fresh != Some(shown.fresh);
        self.urgent = false;
        self.written_at = Some(now);
        self.written = Some((shown, generation));
        Next { write: Some(value), signal_changed, wake: later }
    }

    /// When the loss of the signal is told, if it is lost and does not come back before.
    fn lasts_at(&mut self, fresh: bool, now: Instant) -> Option<Instant> {
        if fresh {
            self.lost_since = None;
            return None;
        }
        Some(*self.lost_since.get_or_insert(now) + LASTING)
    }

    fn render(&self, shown: &Shown, generation: i64, before: &TaskDefinitionStatus) -> Value {
        let now = Time(crate::lease::timestamp());
        let stamped =
            |finding: &Finding| finding.clone().stamped(&before.conditions, generation, now.clone());
        let conditions: Vec<_> = shown.findings.iter().map(stamped).collect();
        let last = self.scaled.as_ref().or(before.last_scale.as_ref());
        let mut status = json!({
            "conditions": conditions,
            "replicas": shown.replicas,
            "readyReplicas": shown.ready,
            "lastScale": last,
        });
        // Server-side apply drops what is left out: without a view, repeat the old numbers.
        let numbers = if shown.fresh {
            json!({
                "backlog": shown.backlog,
                "running": shown.running,
                "parked": shown.parked,
                "oldestWaitSeconds": shown.oldest.unwrap_or(0),
            })
        } else {
            json!({
                "backlog": before.backlog,
                "running": before.running,
                "parked": before.parked,
                "oldestWaitSeconds": before.oldest_wait_seconds,
            })
        };
        if let (Some(status), Value::Object(numbers)) = (status.as_object_mut(), numbers) {
            status.extend(numbers);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::clock;
    use bellows_registry::spec::Mode;

    use super::super::{Limits, Signal, decide};
    use super::*;

    fn shown(due: usize, now: Instant) -> Shown {
        seen(Some(due), now)
    }

    /// What is shown with so many due tasks, or without a view.
    fn seen(due: Option<usize>, now: Instant) -> Shown {
        let limits =
            Limits { min: 0, max: 5, concurrency: 1, idle: Duration::from_secs(60), mode: Mode::Active };
        let signal = due.map_or(Signal::Lost, |due| Signal::Fresh {
            due,
            startable: due,
            slots: due,
            assigned: 0,
            taken: 0,
        });
        let decision = decide(&limits, signal, 5, None, now);
        let demand = due.map(|due| Demand { due, oldest_due: Some(now), ..Demand::default() });
        Shown::of(&decision, &demand.unwrap_or_default(), due.is_some(), &Deployment::default(), now)
    }

    fn read(status: Value) -> TaskDefinitionStatus {
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_signal_that_comes_back_at_once_was_never_lost_and_one_that_does_not_is_told() {
        let (mut told, start) = (Told::default(), clock::instant());
        let at = |millis| start + Duration::from_millis(millis);
        let mut look = |seen, before: &TaskDefinitionStatus, now| told.next(seen, 1, before, true, now);
        let lost = |now| seen(None, now);
        let never = TaskDefinitionStatus::default();
        assert!(look(lost(start), &never, start).write.is_some(), "what was never available is told at once");

        let fresh = read(look(shown(1, at(9_000)), &never, at(9_000)).write.expect("it is news"));
        let blip = look(lost(at(20_000)), &fresh, at(20_000));
        assert!(blip.write.is_none() && blip.wake == Some(at(23_000)));
        assert!(look(shown(1, at(9_000)), &fresh, at(20_010)).write.is_none(), "nothing happened");

        assert!(look(lost(at(30_000)), &fresh, at(30_000)).write.is_none());
        assert!(look(lost(at(32_999)), &fresh, at(32_999)).write.is_none());
        let lasting = look(lost(at(33_000)), &fresh, at(33_000));
        assert!(lasting.signal_changed && lasting.write.is_some());
    }

    #[test]
    fn what_another_wrote_over_ours_is_written_again_by_the_leader_alone() {
        for leading in [true, false] {
            let (mut told, start) = (Told::default(), clock::instant());
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut look =
                |before: &TaskDefinitionStatus, now| told.next(shown(1, start), 1, before, leading, now);
            let ours = look(&TaskDefinitionStatus::default(), start).write.expect("it is news");
            let ours = read(ours);
            assert!(look(&ours, at(60)).write.is_none(), "it stands");
            let mut theirs = ours.clone();
            for condition in &mut theirs.conditions {
                condition.status = "False".to_owned();
            }
            let again = look(&theirs, at(61));
            assert_eq!(again.write.map(read).map(|s| s.conditions), leading.then(|| ours.conditions.clone()));
            let soon = look(&theirs, at(62));
            assert!(soon.write.is_none() && (soon.wake == Some(at(63))) == leading, "not more often");
            assert_eq!(look(&theirs, at(63)).write.is_some(), leading);
        }
    }

    #[test]
    fn one_status_is_written_at_a_time_and_one_that_failed_again() {
        let mut memory = crate::scale::memory::Memory { telling: true, ..Default::default() };
        let (start, before) = (clock::instant(), TaskDefinitionStatus::default());
        memory.told.next(shown(1, start), 1, &before, false, start);
        memory.shown(false);
        assert!(!memory.telling);
        let later = start + PACE;
        assert!(memory.told.next(shown(1, start), 1, &before, false, later).write.is_some());
        memory.shown(true);
        assert!(memory.told.next(shown(1, start), 1, &before, false, later + PACE).write.is_none());
    }

    #[test]
    fn a_thousand_changes_in_a_second_are_one_write_and_no_change_is_none() {
        let (mut told, start) = (Told::default(), clock::instant());
        let before = TaskDefinitionStatus::default();
        let mut writes = 0;
        for n in 0..1000 {
            let now = start + Duration::from_millis(n);
            let next = told.next(shown(n as usize + 1, now), 1, &before, true, now);
            writes += usize::from(next.write.is_some());
            assert!(next.write.is_some() || next.wake == Some(start + PACE));
        }
        assert_eq!(writes, 1);
        let later = start + Duration::from_secs(2);
        let written = told.next(shown(7, later), 1, &before, true, later).write.expect("another number");
        let (before, much_later) = (read(written), start + Duration::from_secs(60));
        assert!(told.next(shown(7, much_later), 1, &before, true, much_later).write.is_none());
    }

    #[test]
    fn a_scaling_is_shown_at_once_with_its_reason() {
        let (mut told, now) = (Told::default(), clock::instant());
        let before = TaskDefinitionStatus::default();
        told.next(shown(1, now), 1, &before, true, now);
        told.scaled(0, 3, Reason::Backlog { due: 9, assigned: 0 });
        let written = told.next(shown(9, now), 1, &before, true, now).write.expect("urgent");
        assert_eq!(written["lastScale"]["to"], 3);
        assert_eq!(written["lastScale"]["reason"], "9 tasks due, 0 running");
        assert_eq!(written["backlog"], 9);
    }

    #[test]
    fn a_wait_that_only_goes_on_is_news_ever_more_rarely() {
        for (seconds, shown) in [(0, 0), (19, 19), (20, 20), (47, 40), (119, 110), (250, 200), (3_700, 3_000)]
        {
            assert_eq!(coarse(seconds), shown, "{seconds} s");
        }
    }
}
