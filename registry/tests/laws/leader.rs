//! The assigner as a machine whose every wait is a step of its own: requests are taken
//! when the history says so, answers and news come when it says so, or never.

use std::time::Duration;

use bellows_registry::backend::{Entry, Revision};
use bellows_registry::check;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::Key;
use bellows_registry::plan::{self, Assumed, Plan, Step, Waiting, Written};
use bellows_registry::record::{AssignmentRecord, Tally};
use bellows_registry::spec::Mode;
use bellows_registry::view::View;

use crate::fair::Fair;
use crate::table::{Count, Table};

/// A request under way.
struct Flight {
    def: DefinitionId,
    step: Step,
    written: Written,
    /// What the registry said, once it has taken it.
    answer: Option<(Revision, bool)>,
}

/// More requests under way than this, and nothing is planned.
const FLIGHTS: usize = 12;

/// What was seen of what can go wrong.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) given: u64,
    pub(crate) losses: u64,
    pub(crate) parked: u64,
    pub(crate) refused: u64,
    pub(crate) replaced: u64,
    pub(crate) lost_answers: u64,
    pub(crate) failovers: u64,
    /// Plans in which a limit held tasks back.
    pub(crate) limited: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, more: &Self) {
        self.given += more.given;
        self.losses += more.losses;
        self.parked += more.parked;
        self.refused += more.refused;
        self.replaced += more.replaced;
        self.lost_answers += more.lost_answers;
        self.failovers += more.failovers;
        self.limited += more.limited;
    }
}

pub(crate) struct Sim {
    pub(crate) table: Table,
    view: View,
    assumed: Assumed,
    flights: Vec<Flight>,
    fair: Fair,
    plan: Plan,
    seen: Seen,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let table = Table::new(seed);
        Self {
            view: View::new(table.space.clone()),
            assumed: Assumed::default(),
            flights: Vec::new(),
            fair: Fair::default(),
            plan: Plan::default(),
            seen: Seen::default(),
            table,
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen { given: self.table.given(), replaced: self.table.replaced, ..self.seen }
    }

    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.plan.waiting.values().copied().collect()
    }

    /// One thing that happens, and what the assigner makes of it.
    pub(crate) fn step(&mut self) {
        let def = self.table.pick(&self.table.defs).unwrap();
        match self.table.below(1000) {
            0..220 => {
                let replaced = self.table.replaced;
                self.table.publish();
                if self.table.replaced > replaced {
                    // A task has changed its lane: one that it left may have lost its turn.
                    self.fair.forget_turns();
                }
            }
            220..265 => self.table.worker_comes(&def),
            265..290 => self.table.worker_changes(),
            290..330 => self.table.worker_dies(),
            330..550 => self.table.attempt_ends(),
            550..610 => self.table.now.instant += Duration::from_millis(self.table.below(4000)),
            610..620 => self.table.now.instant += Duration::from_secs(100),
            620..635 => {
                let modes = [Mode::Active, Mode::Active, Mode::Active, Mode::Hold, Mode::HoldAndDrain];
                let mode = self.table.pick(&modes).unwrap();
                // A limit holds for what is planned once it is seen.
                self.all_answered();
                self.table.policy(&def, mode);
                self.all_news();
            }
            635..650 => self.compare_with_a_list(),
            650..780 => self.taken(),
            780..880 => self.answered(),
            880..888 => self.answer_lost(),
            888..892 => self.failover(),
            _ => self.news(),
        }
        if self.table.below(2) == 0 {
            self.plan_and_send();
        }
    }

    /// Plans, judges the plan, and sends it.
    fn plan_and_send(&mut self) {
        if self.flights.len() >= FLIGHTS {
            return;
        }
        let now = self.table.now;
        self.assumed.end_passed(self.view.revision(), now.instant);
        self.view.pass(&now);
        let plan = plan::assign(&self.view, &self.assumed, &now);
        assert_eq!(check::plan(&self.view, &self.assumed, &plan, &now), [], "{plan:?}");
        self.fair.judge(&self.view, &self.assumed, &plan, &now);
        let limit = |why: &Waiting| {
            use Waiting::{ConcurrencyLimit, KeyConcurrencyLimit, KeyRateLimit, RateLimit};
            matches!(why, ConcurrencyLimit | KeyConcurrencyLimit | KeyRateLimit | RateLimit)
        };
        self.seen.limited += u64::from(plan.waiting.values().any(limit));
        for (def, step) in &plan.steps {
            let space = &self.table.space;
            let written = plan::write(space, &self.view, def, step, &self.table.dice, &now);
            self.assumed.sent(def, step);
            if let Some(lane) = step.turn_of() {
                self.view.gave(def, lane);
            }
            let written = written.expect("a step makes sense in the view it was planned from");
            let (def, step) = (def.clone(), step.clone());
            self.flights.push(Flight { def, step, written, answer: None });
        }
        let again = plan::assign(&self.view, &self.assumed, &now);
        assert_eq!(again.steps, [], "planning again gives something to do after {plan:?}");
        self.plan = plan;
    }

    /// The registry takes a request, any of those under way.
    fn taken(&mut self) {
        let open: Vec<usize> =
            (0..self.flights.len()).filter(|at| self.flights[*at].answer.is_none()).collect();
        let Some(at) = self.table.pick(&open) else { return };
        let row = match &self.flights[at].written {
            Written::Move(row) => Some(row.clone()),
            Written::Fetch(fetch) => {
                let found = self.table.entry(&fetch.key());
                found.and_then(|entry| fetch.clone().with(&self.table.space, &entry))
            }
        };
        let applied = row.is_some_and(|row| self.table.commit(&row));
        self.flights[at].answer = Some((self.table.revision, applied));
        if applied {
            self.count(at);
        }
    }

    /// What the records say of attempts and losses is what was counted here.
    fn count(&mut self, at: usize) {
        let Flight { def, step, .. } = &self.flights[at];
        let count = self.table.counts.entry((def.clone(), step.task())).or_default();
        match step {
            Step::Assign { task, worker, .. } => {
                let of_task =
                    |key: &Key| matches!(key, Key::Assignment(_, w, t, _) if t == task && w == worker);
                let known = *count;
                let key = self.table.keys(of_task).pop().unwrap();
                let record: AssignmentRecord = self.table.get(&key).unwrap();
                let told = Count { attempts: record.tally.attempts, losses: record.tally.losses };
                assert_eq!(told, known, "a loss is no attempt, and an attempt no loss");
                assert_eq!(record.number, known.attempts + 1);
            }
            Step::Lost { task, .. } | Step::TakeBack { task, .. } => {
                count.losses += 1;
                let known = *count;
                self.seen.losses += 1;
                let tally: Tally = self.table.get(&Key::Tally(def.clone(), *task)).unwrap();
                assert_eq!(Count { attempts: tally.attempts, losses: tally.losses }, known);
            }
            Step::LostForGood { .. } => self.seen.parked += 1,
            _ => {}
        }
    }

    fn answered(&mut self) {
        let done: Vec<usize> =
            (0..self.flights.len()).filter(|at| self.flights[*at].answer.is_some()).collect();
        let Some(at) = self.table.pick(&done) else { return };
        let Flight { def, step, answer, .. } = self.flights.swap_remove(at);
        let Some((revision, applied)) = answer else { return };
        let now = self.table.now.instant;
        if applied {
            self.assumed.applied(&def, step.task(), revision, now);
        } else {
            self.seen.refused += 1;
            self.assumed.refused(&def, step.task(), revision, now, now);
            if let Some(lane) = step.turn_of() {
                self.view.refused(&def, lane);
            }
            if let Step::Assign { lane, .. } = &step {
                self.fair.refused(&def, lane);
            }
        }
    }

    /// The watch tells some of what happened.
    fn news(&mut self) {
        for _ in 0..=self.table.below(4) {
            let Some(changes) = self.table.news.pop_front() else { return };
            self.view.apply(&changes, &self.table.now);
        }
    }

    fn all_answered(&mut self) {
        while !self.flights.is_empty() {
            self.taken();
            self.answered();
        }
    }

    fn all_news(&mut self) {
        while !self.table.news.is_empty() {
            self.news();
        }
    }

    /// A list, by the page.
    fn list(&mut self) {
        let entries: Vec<Entry> = self.table.list();
        self.table.news.clear();
        self.view.begin_list();
        for page in entries.chunks(1 + self.table.below(40) as usize) {
            self.view.list_page(page, &self.table.now);
        }
        self.view.end_list(self.table.revision);
    }

    /// Nobody knows what became of what is under way: a new term, a list.
    fn answer_lost(&mut self) {
        self.seen.lost_answers += u64::from(!self.flights.is_empty());
        self.flights.clear();
        self.list();
        self.assumed.clear(self.table.now.instant);
        self.fair.reset();
    }

    /// Another one leads, and knows only what a list tells.
    fn failover(&mut self) {
        self.seen.failovers += 1;
        self.flights.clear();
        self.view = View::new(self.table.space.clone());
        self.list();
        self.assumed = Assumed::of_a_new_leader(self.table.now.instant);
        self.fair.reset();
    }

    /// The view folded until now must be the one that a list gives.
    fn compare_with_a_list(&mut self) {
        self.all_news();
        let mut fresh = View::new(self.table.space.clone());
        fresh.replace(self.table.revision, &self.table.list(), &self.table.now);
        self.view.pass(&self.table.now);
        assert_eq!(self.facts(&self.view), self.facts(&fresh), "the fold went astray");
    }

    fn facts(&self, view: &View) -> Vec<String> {
        let of = |def: &DefinitionId| {
            view.definitions().get(def).map_or_else(String::new, |d| {
                let workers = d.workers().keys();
                let workers = workers.map(|w| format!("{w}:{}:{}", d.held_slots(w), d.is_taken_alone(w)));
                format!(
                    "{} waiting, {} assigned in {} slots, {} parked, {} dead, {} slots, {}",
                    d.waiting_count(),
                    d.assigned_count(),
                    d.assigned_slots(),
                    d.parked_count(),
                    d.dead_workers().count(),
                    d.slots(),
                    workers.collect::<Vec<_>>().join(" ")
                )
            })
        };
        self.table.defs.iter().map(of).collect()
    }

    /// From now on workers are enough, live, and answer, and policies stay.
    pub(crate) fn make_peace(&mut self) {
        self.table.peace = true;
        self.all_answered();
        for def in self.table.defs.clone() {
            self.table.policy(&def, Mode::Active);
        }
        self.table.all_workers_leave();
        self.all_news();
    }

    pub(crate) fn peaceful_round(&mut self, takes: Duration) {
        for def in self.table.defs.clone() {
            if self.table.workers_of(&def) < 3 {
                self.table.worker_comes(&def);
            }
        }
        self.table.now.instant += takes;
        self.table.now.wall = self.table.now.wall.plus(takes);
        self.all_answered();
        self.all_news();
        self.plan_and_send();
        for _ in 0..8 {
            self.table.attempt_ends();
        }
    }
}
