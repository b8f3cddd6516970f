//! The assigner as a machine whose every wait is a step of its own: requests are taken
//! when the history says so, answers and news come when it says so, or never.

use bellows_registry::backend::{Entry, Revision};
use bellows_registry::check;
use bellows_registry::id::DefinitionId;
use bellows_registry::plan::{self, Assumed, Plan, Step, Waiting, Written};
use bellows_registry::txn::Move;
use bellows_registry::view::View;

use crate::fair::Fair;
use crate::table::Table;

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

pub(crate) struct Sim {
    pub(crate) table: Table,
    pub(crate) view: View,
    pub(crate) assumed: Assumed,
    flights: Vec<Flight>,
    pub(crate) fair: Fair,
    plan: Plan,
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
            table,
        }
    }

    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.plan.waiting.values().copied().collect()
    }

    /// Plans, judges the plan, and sends it.
    pub(crate) fn plan_and_send(&mut self) {
        if self.flights.len() >= FLIGHTS {
            return;
        }
        let plan = self.plan();
        let now = self.table.now;
        assert_eq!(check::plan(&self.view, &self.assumed, &plan, &now), [], "{plan:?}");
        self.fair.judge(&self.view, &self.assumed, &plan, &now);
        let limit = |why: &Waiting| {
            use Waiting::{ConcurrencyLimit, KeyConcurrencyLimit, KeyRateLimit, RateLimit};
            matches!(why, ConcurrencyLimit | KeyConcurrencyLimit | KeyRateLimit | RateLimit)
        };
        self.table.seen.add("plans that a limit held back", u64::from(plan.waiting.values().any(limit)));
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

    /// What is to be done now, as far as the view knows.
    pub(crate) fn plan(&mut self) -> Plan {
        let now = self.table.now;
        self.assumed.end_passed(self.view.revision(), now.instant);
        self.view.pass(&now);
        plan::assign(&self.view, &self.assumed, &now)
    }

    /// The registry takes a request, any of those under way. Where a record is read first,
    /// that is a request of its own.
    pub(crate) fn taken(&mut self) {
        let open: Vec<usize> =
            (0..self.flights.len()).filter(|at| self.flights[*at].answer.is_none()).collect();
        let Some(at) = self.table.pick(&open) else { return };
        match &self.flights[at].written {
            Written::Move(row) => {
                let row = row.clone();
                self.made(at, &row);
            }
            Written::Fetch(fetch) => {
                let found = self.table.entry(&fetch.key());
                let row = found.and_then(|entry| fetch.clone().with(&self.table.space, &entry));
                match row {
                    Some(row) => self.flights[at].written = Written::Move(row),
                    None => self.flights[at].answer = Some((self.table.revision, false)),
                }
            }
        }
    }

    fn made(&mut self, at: usize, row: &Move) {
        let Flight { def, step, answer, .. } = &mut self.flights[at];
        let is_due = self.table.is_due(def, step);
        let applied = self.table.once(row);
        *answer = Some((self.table.revision, applied));
        if applied {
            assert!(is_due, "nobody asked for it, or it is too early: {step:?}");
            self.table.count(def, step);
        }
    }

    pub(crate) fn answered(&mut self) {
        let done: Vec<usize> =
            (0..self.flights.len()).filter(|at| self.flights[*at].answer.is_some()).collect();
        let Some(at) = self.table.pick(&done) else { return };
        let Flight { def, step, answer, .. } = self.flights.swap_remove(at);
        let Some((revision, applied)) = answer else { return };
        let now = self.table.now.instant;
        if applied {
            self.assumed.applied(&def, step.task(), revision, now);
        } else {
            self.table.seen.note("steps refused");
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
    pub(crate) fn news(&mut self) {
        for _ in 0..=self.table.below(4) {
            let Some(changes) = self.table.news.pop_front() else { return };
            self.view.apply(&changes, &self.table.now);
        }
    }

    pub(crate) fn all_answered(&mut self) {
        while !self.flights.is_empty() {
            self.taken();
            self.answered();
        }
    }

    pub(crate) fn all_news(&mut self) {
        while !self.table.news.is_empty() {
            self.news();
        }
    }

    /// A list, by the page.
    pub(crate) fn list(&mut self) {
        let entries: Vec<Entry> = self.table.list();
        self.table.news.clear();
        self.view.begin_list();
        for page in entries.chunks(1 + self.table.below(40) as usize) {
            self.view.list_page(page, &self.table.now);
        }
        self.view.end_list(self.table.revision);
    }

    /// What the watch would have told is compacted: a list, and the watch goes on from there.
    pub(crate) fn watch_lost(&mut self) {
        self.table.seen.note("watches lost");
        self.list();
    }

    /// Nobody knows what became of what is under way: a new term, a list.
    pub(crate) fn answer_lost(&mut self) {
        self.table.seen.add("answers lost", u64::from(!self.flights.is_empty()));
        self.flights.clear();
        self.list();
        self.assumed.clear(self.table.now.instant);
        self.fair.reset();
    }

    /// Another one leads, and knows only what a list tells.
    pub(crate) fn failover(&mut self) {
        self.table.seen.note("changes of leaders");
        self.flights.clear();
        self.view = View::new(self.table.space.clone());
        self.list();
        self.assumed = Assumed::of_a_new_leader(self.table.now.instant);
        self.fair.reset();
    }
}
