//! Leading: one loop over what happens, each turn fold → plan → send.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::send::{self, Answered, Became, Fate};
use super::{Assigner, Left};
use crate::backend::Revision;
use crate::clock::{self, Now};
use crate::demand::{self, DemandReport};
use crate::id::DefinitionId;
use crate::mirror::{Mirror, MirrorEvent, PageEvent};
use crate::plan::{self, Assumed, Plan, Step};
use crate::record::LeaderRecord;
use crate::session::Session;
use crate::upkeep;
use crate::view::View;

/// Requests under way at once: the ceiling of etcd is reached with few, and each more
/// only adds to the latency.
const IN_FLIGHT: usize = 2;
/// Events folded before the next plan.
const EVENTS_A_TURN: usize = 64;

/// So many refusals that the view does not explain make it doubtful.
const DOUBT_AFTER: u32 = 5;
/// A doubtful view is listed anew at most this often.
const DOUBT_EVERY: Duration = Duration::from_secs(30);

/// What the leader may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The view is older than the term: fold, do not plan.
    CatchingUp,
    /// Plan and send.
    Planning,
    /// An outcome is unknown: begin a new term before anything else (law 5).
    Raising,
}

/// One time of leading.
pub(super) struct Lead<'a> {
    assigner: &'a Assigner,
    session: &'a Session,
    term: Revision,
    stage: Stage,
    mirror: Mirror,
    view: View,
    assumed: Assumed,
    in_flight: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// One of them reads records first. Never two: the other is for what can be sent at once.
    fetching: bool,
    plan: Plan,
    fresh: bool,
    /// Whether a list newer than the first term was seen.
    caught_up: bool,
    /// Refusals that the view does not explain, since the last list.
    unexplained: u32,
    /// No list is asked for before this, unless somebody else asks.
    no_doubt_before: Instant,
}

impl<'a> Lead<'a> {
    pub(super) fn new(assigner: &'a Assigner, session: &'a Session, term: Revision) -> Self {
        let mirror = Mirror::new(Arc::clone(&assigner.backend), assigner.space.assigner_range());
        Self {
            assigner,
            session,
            term,
            stage: Stage::CatchingUp,
            mirror,
            view: View::new(assigner.space.clone()),
            assumed: Assumed::default(),
            in_flight: FuturesUnordered::new(),
            fetching: false,
            plan: Plan::default(),
            fresh: false,
            caught_up: false,
            unexplained: 0,
            no_doubt_before: clock::instant(),
        }
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> Left {
        let lost = self.session.lost();
        let upkeep = upkeep::run(Arc::clone(&self.assigner.backend), self.assigner.space.clone());
        let mut upkeep = std::pin::pin!(upkeep);
        loop {
            self.session.tick();
            if self.stage == Stage::Raising {
                let raised = tokio::select! {
                    () = stop.cancelled() => return Left::Stopped,
                    () = lost.cancelled() => return Left::LeaseLost,
                    raised = self.raise() => raised,
                };
                if !raised {
                    return Left::Deposed;
                }
            }
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => return Left::Stopped,
                () = lost.cancelled() => return Left::LeaseLost,
                never = &mut upkeep => match never {},
                Some(answered) = self.in_flight.next(), if !self.in_flight.is_empty() => self.answered(answered),
                event = self.mirror.next_page() => self.fold(event),
                () = sleep_until(wake) => {}
            }
            self.fold_what_is_ready();
            if self.is_deposed() {
                return Left::Deposed;
            }
            self.decide();
        }
    }

    /// When to look again although nothing happened.
    fn wake(&self) -> Instant {
        let tick = clock::instant() + self.session.ttl() / 4;
        // While nothing is planned the plan is an old one, and its time may be over: waiting
        // for that is no waiting.
        let planned = self.plan.wake.filter(|_| self.may_plan());
        [planned, self.assumed.next_retry()].into_iter().flatten().fold(tick, Instant::min)
    }

    fn may_plan(&self) -> bool {
        self.stage == Stage::Planning && !self.view.is_listing()
    }

    fn fold(&mut self, event: PageEvent) {
        self.session.tick();
        let now = clock::now();
        match event {
            PageEvent::Page(page) => {
                if page.first {
                    self.view.begin_list();
                    self.fresh = false;
                }
                self.view.list_page(&page.entries, &now);
                if !page.last {
                    return;
                }
                self.view.end_list(page.revision);
                self.fresh = true;
                self.unexplained = 0;
                if self.stage == Stage::CatchingUp && plan::has_passed(&self.view, self.term) {
                    // Whatever was sent in an earlier term is in this list, or void; what others
                    // gave out before the first list, nobody knows.
                    if !std::mem::replace(&mut self.caught_up, true) {
                        self.assumed = Assumed::of_a_new_leader(now.instant);
                    }
                    self.assumed.clear(now.instant);
                    self.stage = Stage::Planning;
                }
            }
            PageEvent::Other(MirrorEvent::Changed(changes)) => {
                self.view.apply(&changes, &now);
                self.fresh = true;
            }
            PageEvent::Other(MirrorEvent::Resumed) => self.fresh = true,
            PageEvent::Other(MirrorEvent::Listed { .. }) => {} // lists come by the page
            PageEvent::Other(MirrorEvent::Interrupted(error)) => {
                tracing::warn!(%error, "the assigner's view may be old");
                self.fresh = false;
            }
        }
        self.assumed.end_passed(self.view.revision(), now.instant);
    }

    fn fold_what_is_ready(&mut self) {
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.mirror.next_page().now_or_never() else { break };
            self.fold(event);
        }
        while let Some(Some(answered)) = self.in_flight.next().now_or_never() {
            self.answered(answered);
        }
    }

    /// Whether the view shows another leader. (The fence would say so too.)
    fn is_deposed(&self) -> bool {
        !self.view.is_listing()
            && plan::has_passed(&self.view, self.term)
            && self.stage == Stage::Planning
            && self.view.leader(self.assigner.config.shard) != Some(self.term)
    }

    /// A view that goes on to be refused for no reason it can show may be wrong: then it
    /// is read anew, though not again and again.
    fn doubt(&mut self, now: &Now) {
        if self.unexplained >= DOUBT_AFTER && now.instant >= self.no_doubt_before {
            tracing::warn!(
                refusals = self.unexplained,
                "the view does not explain refusals: it is listed anew"
            );
            self.unexplained = 0;
            self.no_doubt_before = now.instant + DOUBT_EVERY;
            self.mirror.relist();
        }
    }

    fn decide(&mut self) {
        let now = clock::now();
        self.doubt(&now);
        self.assumed.end_passed(self.view.revision(), now.instant);
        if self.may_plan() {
            self.view.pass(&now);
            self.plan = plan::assign(&self.view, &self.assumed, &now);
            if self.in_flight.len() < IN_FLIGHT {
                self.send(&now);
            }
        }
        self.report(&now);
    }

    fn send(&mut self, now: &Now) {
        let fence = self.assigner.space.term_fence(self.assigner.config.shard, self.term);
        let maker = send::Maker {
            space: &self.assigner.space,
            view: &self.view,
            entropy: &self.assigner.entropy,
            fence,
            now,
        };
        let requests = maker.requests(&self.plan, IN_FLIGHT - self.in_flight.len(), !self.fetching);
        for request in requests {
            self.fetching |= request.fetches();
            for (def, step) in request.steps() {
                self.assumed.sent(def, step);
                if let Some(lane) = step.turn_of() {
                    self.view.gave(def, lane);
                }
            }
            let backend = Arc::clone(&self.assigner.backend);
            self.in_flight.push(request.send(backend).boxed());
        }
    }

    /// A step was refused, or certainly not applied: it may be planned again later.
    fn refused(&mut self, def: &DefinitionId, step: &Step, until: Revision, retry: Instant, now: Instant) {
        self.assumed.refused(def, step.task(), until, retry, now);
        if let Some(lane) = step.turn_of() {
            self.view.refused(def, lane);
        }
    }

    fn answered(&mut self, answered: Answered) {
        self.fetching &= !answered.fetched;
        if self.stage == Stage::Raising {
            return; // the next list says more than any answer of the old term
        }
        let now = clock::now();
        match answered.fate {
            Fate::Unknown => self.stage = Stage::Raising,
            Fate::NotApplied => {
                // Overloaded, or without a leader: at once would be a storm.
                let retry = now.instant + send::RETRY_NOT_APPLIED;
                for (def, step) in &answered.steps {
                    self.refused(def, step, Revision::MAX, retry, now.instant);
                }
            }
            // Ours no longer, unless an unanswered raise of ours was applied: find out.
            Fate::Fenced => self.stage = Stage::Raising,
            Fate::Answered { revision, steps } => {
                for ((def, step), became) in answered.steps.iter().zip(steps) {
                    match became {
                        Became::Applied => {
                            self.assumed.applied(def, step.task(), revision, now.instant);
                        }
                        Became::NotSent => {
                            let retry = now.instant + send::RETRY_NOT_APPLIED;
                            self.refused(def, step, Revision::MAX, retry, now.instant);
                        }
                        Became::Refused => {
                            // If the view has passed the refusal already, it does not explain
                            // it: then only time helps, and at once would never end.
                            let explained = !plan::has_passed(&self.view, revision);
                            self.unexplained += u32::from(!explained);
                            let until = if explained { revision } else { Revision::MAX };
                            let retry = now.instant + send::RETRY_REFUSED;
                            self.refused(def, step, until, retry, now.instant);
                        }
                    }
                }
            }
        }
        self.assumed.end_passed(self.view.revision(), now.instant);
    }

    /// Begins a new term, so that nothing sent in the old one can still be applied, and
    /// lists from there. Answers whether we still lead.
    async fn raise(&mut self) -> bool {
        self.in_flight.clear();
        self.fetching = false;
        let record = LeaderRecord { identity: self.assigner.config.identity.clone() };
        let raise = send::Raise {
            backend: &self.assigner.backend,
            space: &self.assigner.space,
            shard: self.assigner.config.shard,
            lease: self.session.lease(),
            record: &record,
        };
        let Some(term) = raise.until_answered(self.term, self.session).await else { return false };
        tracing::info!(from = self.term, to = term, "an outcome was unknown: the term is raised");
        self.term = term;
        self.stage = Stage::CatchingUp;
        self.mirror.relist();
        true
    }

    /// What was told of the demand may be old.
    fn stale(&self) {
        self.assigner.demand.send_if_modified(|report| {
            let was = report.fresh;
            if was {
                *report = Arc::new(DemandReport { fresh: false, ..(**report).clone() });
            }
            was
        });
    }

    fn report(&self, now: &Now) {
        if self.view.is_listing() {
            return self.stale();
        }
        let planning = self.stage == Stage::Planning;
        let report = DemandReport {
            leading: true,
            fresh: self.fresh && planning,
            trust: self.session.trust(),
            revision: self.view.revision(),
            definitions: demand::report(&self.view, &self.assumed, &self.plan, now.instant),
            unreadable: self.view.unreadable(),
        };
        self.assigner.demand.send_if_modified(|old| {
            let changed = **old != report;
            if changed {
                *old = Arc::new(report);
            }
            changed
        });
    }
}
