//! The due tasks of one definition, by whose turn it is.
//!
//! Tasks with the same fairness key wait in one lane, and lanes take turns: a lane that
//! comes to wait joins the ring at its end, and goes there again when it was given its
//! share: when that is sent, not when it is seen, so that the order of turns is that of
//! plans. A lane that may have no more at once (`concurrencyLimit.perKey`) keeps its turn
//! and is not in the ring, so that it costs a plan nothing.
//!
//! Within a lane tasks stand in the order of their rank (`Priority::rank`), one queue for
//! each [`Class`] of needs: where the most urgent finds no place, the next class may.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::backend::Revision;
use crate::id::TaskId;
use crate::record::{FairnessKey, Isolation, Weight};
use crate::spec::Execution;

/// What tasks of one lane have in common; those without a key have that in common.
pub type LaneKey = Option<FairnessKey>;

/// What a task needs of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Whether it has the worker to itself.
    pub isolation: Isolation,
    /// How many slots it takes.
    pub weight: Weight,
}

/// A task's place in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Its due time, put back for each level of priority that it lacks.
    pub at: Instant,
    /// The revision of its record: the older goes first.
    pub revision: Revision,
    /// The task.
    pub id: TaskId,
}

/// The due tasks of one fairness key.
#[derive(Debug, Default)]
pub struct Lane {
    waiting: BTreeMap<Class, BTreeSet<Rank>>,
    due: usize,
    held: usize,
    /// Its place among the lanes with due tasks, kept while a limit holds it back.
    turn: Option<i64>,
    in_ring: bool,
    used: u32,
    /// What the lane last added to the sums of all lanes.
    counted: Counted,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    startable: usize,
    limited: bool,
}

impl Lane {
    /// Its waiting tasks by what they need, each in order of rank.
    pub fn waiting(&self) -> impl Iterator<Item = (Class, &BTreeSet<Rank>)> {
        self.waiting.iter().map(|(class, ranks)| (*class, ranks))
    }

    /// How many tasks wait.
    pub fn due(&self) -> usize {
        self.due
    }

    /// How many of them no limit on tasks at once holds back.
    pub fn startable(&self) -> usize {
        self.counted.startable
    }

    /// How many tasks workers have.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many tasks it was given in its present turn.
    pub fn used(&self) -> u32 {
        self.used
    }
}

/// All lanes of one definition.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes that may be given a task, in the order of their turns.
    ring: BTreeMap<i64, LaneKey>,
    next_turn: i64,
    /// Before all turns that were ever given.
    first_turn: i64,
    due: usize,
    due_slots: usize,
    startable: usize,
    limited: usize,
    per_key: Option<u32>,
    shares: BTreeMap<String, u32>,
}

impl Lanes {
    /// Lanes that may be given a task as far as the view knows, in the order of turns.
    pub fn ring(&self) -> impl Iterator<Item = (i64, &LaneKey, &Lane)> {
        self.ring.iter().filter_map(|(turn, key)| self.lanes.get(key).map(|lane| (*turn, key, lane)))
    }

    /// A lane, if a task of it is due or given.
    pub fn get(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key)
    }

    /// How many tasks a key is given in its turn.
    pub fn share(&self, key: &LaneKey) -> u32 {
        let share = key.as_ref().and_then(|key| self.shares.get(key.as_str()));
        share.copied().unwrap_or(1).max(1)
    }

    /// How many tasks of one key may run at once.
    pub fn per_key(&self) -> Option<usize> {
        self.per_key.map(|limit| limit as usize)
    }

    /// How many tasks are due.
    pub fn due(&self) -> usize {
        self.due
    }

    /// How many slots the due tasks take.
    pub fn due_slots(&self) -> usize {
        self.due_slots
    }

    /// How many of them no limit per key holds back.
    pub fn startable(&self) -> usize {
        self.startable
    }

    /// Whether a limit per key holds any back.
    pub fn any_limited(&self) -> bool {
        self.limited > 0
    }

    /// Follows a policy. Costs a step for each lane if it says something new.
    pub(super) fn follow(&mut self, execution: &Execution) {
        let per_key = execution.per_key_limit();
        if self.per_key != per_key {
            self.per_key = per_key;
            let keys: Vec<LaneKey> = self.lanes.keys().cloned().collect();
            keys.iter().for_each(|key| self.settle(key));
        }
        if self.shares != execution.key_shares {
            self.shares.clone_from(&execution.key_shares);
        }
    }

    /// A task waits. [`Lanes::settle`] has to follow, as after every change.
    pub(super) fn add(&mut self, key: &LaneKey, class: Class, rank: Rank) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.waiting.entry(class).or_default().insert(rank) {
            lane.due += 1;
            self.due += 1;
            self.due_slots += class.weight.slots();
        }
    }

    /// A task waits no longer.
    pub(super) fn remove(&mut self, key: &LaneKey, class: Class, rank: &Rank) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(ranks) = lane.waiting.get_mut(&class) else { return };
        if ranks.remove(rank) {
            lane.due -= 1;
            self.due -= 1;
            self.due_slots -= class.weight.slots();
        }
        if ranks.is_empty() {
            lane.waiting.remove(&class);
        }
    }

    /// A worker has a task.
    pub(super) fn hold(&mut self, key: &LaneKey) {
        self.lanes.entry(key.clone()).or_default().held += 1;
    }

    /// A worker has a task no longer.
    pub(super) fn release(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.held -= 1;
        }
    }

    /// A task is given out: the lane has used a part of its turn.
    pub(super) fn gave(&mut self, key: &LaneKey) {
        let share = self.share(key);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        // A share that was lowered may be used up already: the turn was at hand all the same.
        lane.used = lane.used % share + 1;
        if lane.used >= share {
            lane.used = 0;
            self.next_turn += 1;
            self.move_to(key, self.next_turn);
        }
    }

    /// It was refused: the lane has its turn back, before all others.
    pub(super) fn refused(&mut self, key: &LaneKey) {
        self.first_turn -= 1;
        self.move_to(key, self.first_turn);
    }

    fn move_to(&mut self, key: &LaneKey, turn: i64) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(before) = lane.turn.replace(turn) else {
            lane.turn = None; // nothing of it waits
            return;
        };
        if lane.in_ring {
            self.ring.remove(&before);
            self.ring.insert(turn, key.clone());
        }
    }

    /// Puts the lane where it belongs now, and forgets it if nothing is left of it.
    pub(super) fn settle(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let room = self.per_key.map_or(usize::MAX, |limit| (limit as usize).saturating_sub(lane.held));
        let counted = Counted { startable: lane.due.min(room), limited: lane.due > room };
        self.startable = self.startable + counted.startable - lane.counted.startable;
        self.limited = self.limited + usize::from(counted.limited) - usize::from(lane.counted.limited);
        lane.counted = counted;
        if lane.due > 0 && lane.turn.is_none() {
            self.next_turn += 1;
            lane.turn = Some(self.next_turn);
        }
        let belongs = counted.startable > 0;
        if let Some(turn) = lane.turn.filter(|_| belongs != lane.in_ring) {
            if belongs {
                self.ring.insert(turn, key.clone());
            } else {
                self.ring.remove(&turn);
            }
            lane.in_ring = belongs;
        }
        if lane.due == 0 {
            (lane.turn, lane.used) = (None, 0);
        }
        if lane.due == 0 && lane.held == 0 {
            self.lanes.remove(key);
        }
    }
}
