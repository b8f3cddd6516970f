//! One thing that happens after another, in an order that only the dice know; and how
//! peace comes.

use std::time::Duration;

use bellows_registry::key::Key;
use bellows_registry::spec::Mode;
use bellows_registry::view::{Task, View};

use crate::leader::Sim;

impl Sim {
    /// One thing that happens, and what the assigner makes of it.
    pub(crate) fn step(&mut self) {
        let def = self.table.pick(&self.table.defs).unwrap();
        match self.table.below(1400) {
            0..200 => self.publish(),
            200..245 => self.table.worker_comes(&def),
            245..270 => self.table.worker_changes(),
            270..310 => self.table.worker_dies(),
            310..530 => self.table.attempt_ends(),
            530..560 => self.table.attempt_ends_late(),
            560..600 => self.table.attempt_reports(),
            600..615 => self.report_and_compare(),
            615..630 => self.table.comes_again(),
            630..690 => self.table.ask(),
            690..750 => self.table.pass(Duration::from_millis(self.table.below(4000))),
            750..758 => self.table.pass(Duration::from_secs(100)),
            758..770 => self.policy(),
            770..785 => self.compare_with_a_list(),
            785..975 => self.taken(),
            975..1135 => self.answered(),
            1135..1143 => self.answer_lost(),
            1143..1147 => self.failover(),
            1147..1150 => self.watch_lost(),
            _ => self.news(),
        }
        if self.table.below(2) == 0 {
            self.plan_and_send();
        }
    }

    fn publish(&mut self) {
        let replaced = self.table.seen.times("replaced");
        self.table.publish();
        if self.table.seen.times("replaced") > replaced {
            // A task has changed its lane: one that it left may have lost its turn.
            self.fair.forget_turns();
        }
    }

    fn policy(&mut self) {
        let def = self.table.pick(&self.table.defs).unwrap();
        let modes = [Mode::Active, Mode::Active, Mode::Active, Mode::Hold, Mode::HoldAndDrain];
        let mode = self.table.pick(&modes).unwrap();
        // A limit holds for what is planned once it is seen.
        self.all_answered();
        self.table.policy(&def, mode);
        self.all_news();
    }

    /// A report changes nothing of what is planned.
    fn report_and_compare(&mut self) {
        self.all_news();
        let before = self.plan();
        self.table.attempt_reports();
        self.all_news();
        assert_eq!(self.plan().steps, before.steps, "a report changes what is planned");
    }

    /// The view folded until now must be the one that a list gives.
    fn compare_with_a_list(&mut self) {
        self.all_news();
        let mut fresh = View::new(self.table.space.clone());
        fresh.replace(self.table.revision, &self.table.list(), &self.table.now);
        self.view.pass(&self.table.now);
        assert_eq!(self.facts(&self.view), self.facts(&fresh), "the fold went astray");
        self.count_what_is_due();
    }

    /// What is in the lanes is what is due and has not expired, however often both changed.
    fn count_what_is_due(&self) {
        let now = self.table.now.instant;
        for d in self.view.definitions().values() {
            let waits = |task: &&Task| task.exists() && task.assignment().is_none() && task.is_readable();
            let (mut due, mut later) = (0, 0);
            for task in d.tasks().map(|(_, task)| task).filter(waits) {
                let is_due = task.due().is_some_and(|at| at <= now);
                due += usize::from(is_due && !task.has_expired(now));
                later += usize::from(!is_due);
            }
            assert_eq!((d.due_count(), d.delayed_count()), (due, later), "the lanes went astray");
        }
    }

    fn facts(&self, view: &View) -> Vec<String> {
        let of = |def| {
            view.definitions().get(def).map_or_else(String::new, |d| {
                let held = |w| format!("{w}:{}:{}:{}", d.held_count(w), d.held_slots(w), d.is_taken_alone(w));
                format!(
                    "{} waiting, {} assigned in {} slots, {} parked, {} dead, {} slots, {} requests, {}",
                    d.waiting_count(),
                    d.assigned_count(),
                    d.assigned_slots(),
                    d.parked_count(),
                    d.dead_workers().count(),
                    d.slots(),
                    d.requests().count(),
                    d.workers().keys().map(held).collect::<Vec<_>>().join(" ")
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
        self.table.pass(takes);
        self.all_answered();
        self.all_news();
        self.plan_and_send();
        for _ in 0..8 {
            self.table.attempt_ends();
        }
    }

    /// How many keys of a kind there are.
    pub(crate) fn left(&self, wanted: impl Fn(&Key) -> bool) -> usize {
        self.table.keys(wanted).len()
    }
}
