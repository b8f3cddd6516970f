//! Giving out the due tasks of one definition, one step at a time.
//!
//! Lanes take turns; a lane that a limit holds back, and a task that finds no place, are
//! passed over and hold up nobody else. What was sent and is not in the view yet counts
//! as given, for every limit.

use std::collections::{BTreeMap, btree_set};
use std::iter::Peekable;

use tokio::time::Instant;

use super::fill::Fill;
use super::limits::{Allowed, Limits};
use super::versions::Avoided;
use super::{Assumed, Step, Waiting};
use crate::backend::Revision;
use crate::id::{DefinitionId, TaskId, WorkerId};
use crate::record::PolicyState;
use crate::spec::Mode;
use crate::txn::AsSeen;
use crate::view::{Class, Definition, Lane, LaneKey, Rank};

/// Where a lane stands: how often this plan gave it its turn, then its turn before.
type Turn = (u32, i64);

/// The tasks of one definition that a plan may give out.
pub(super) struct Give<'a> {
    pub(super) id: &'a DefinitionId,
    pub(super) definition: &'a Definition,
    assumed: &'a Assumed,
    fill: Fill<'a>,
    limits: Limits<'a>,
    /// What the limits of the whole definition still allow.
    room: Allowed,
    /// Lanes that were not looked at.
    ring: Peekable<Box<dyn Iterator<Item = (i64, &'a LaneKey, &'a Lane)> + 'a>>,
    /// Lanes that were, and may be given more.
    open: BTreeMap<Turn, Open<'a>>,
    /// The first limit of a key that held tasks back.
    held_back: Option<Waiting>,
    waiting: Option<Waiting>,
    now: Instant,
    wake: Option<Instant>,
}

/// After all that are not behind.
const BEHIND: u32 = 1 << 31;

/// A lane while a plan is made.
struct Open<'a> {
    key: &'a LaneKey,
    turn: i64,
    /// Given in its present turn, and by this plan.
    used: u32,
    /// Its most urgent task waits for a worker that is kept back for it. The lane keeps its
    /// turn for that one; its others are given what nobody else takes.
    behind: bool,
    /// What the limits per key still allow.
    room: Allowed,
    queues: Vec<(Class, Peekable<btree_set::Iter<'a, Rank>>)>,
}

impl<'a> Give<'a> {
    pub(super) fn of(
        id: &'a DefinitionId,
        definition: &'a Definition,
        assumed: &'a Assumed,
        now: Instant,
    ) -> Self {
        let limits = Limits::of(id, definition, assumed, now);
        let room = limits.total();
        let ring = Box::new(definition.lanes().ring()) as Box<dyn Iterator<Item = _> + 'a>;
        Self {
            id,
            definition,
            assumed,
            fill: Fill::of(definition, assumed.given(id, definition)),
            limits,
            room,
            ring: ring.peekable(),
            open: BTreeMap::new(),
            held_back: None,
            waiting: stands_still(definition),
            now,
            wake: room.more_at,
        }
    }

    /// The next step, until there is none.
    pub(super) fn next(&mut self) -> Option<Step> {
        while self.waiting.is_none() {
            let Some(lane) = self.next_lane() else {
                self.waiting = self.fill.refusal().or(self.held_back_in_view());
                break;
            };
            let step = self.place(lane);
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// Why tasks remain, once there is no next step.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }

    /// When a limit allows more, if nothing else changes.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// The lane whose turn it is, if it may be given a task.
    fn next_lane(&mut self) -> Option<Open<'a>> {
        loop {
            let seen = self.open.first_key_value().map(|(turn, _)| *turn);
            let unseen = self.ring.peek().map(|(turn, ..)| (0, *turn));
            match (seen, unseen) {
                (Some(seen), unseen) if unseen.is_none_or(|unseen| seen < unseen) => {
                    return self.open.pop_first().map(|(_, lane)| lane);
                }
                _ => {
                    let (turn, key, lane) = self.ring.next()?;
                    let open = self.look_at(turn, key, lane);
                    self.put_back(open);
                }
            }
        }
    }

    fn look_at(&mut self, turn: i64, key: &'a LaneKey, lane: &'a Lane) -> Open<'a> {
        let room = self.limits.key(key, lane);
        if room.tasks == 0 {
            self.wake = [self.wake, room.more_at].into_iter().flatten().min();
        }
        let queues = lane.waiting().map(|(class, ranks)| (class, ranks.iter().peekable())).collect();
        // A share that was lowered may be used up already: the turn is at hand all the same.
        let used = lane.used() % self.definition.lanes().share(key);
        Open { key, turn, used, behind: false, room, queues }
    }

    /// Lets a lane wait for its turn, unless a limit of its key holds back what is left.
    fn put_back(&mut self, mut lane: Open<'a>) {
        // What the limits of a key allow last is kept for the task that a worker is kept for.
        if lane.behind && lane.room.tasks == 1 {
            return;
        }
        if lane.room.tasks == 0 {
            if lane.best(&self.within()).is_some() {
                self.held_back.get_or_insert(lane.room.limit);
            }
            return;
        }
        let turns = lane.used / self.definition.lanes().share(lane.key);
        let turns = if lane.behind { turns + BEHIND } else { turns };
        self.open.insert((turns, lane.turn), lane);
    }

    /// Gives out the lane's most urgent task that finds a worker.
    fn place(&mut self, mut lane: Open<'a>) -> Option<Step> {
        while let Some(at) = lane.best(&self.within()) {
            if self.room.tasks == 0 {
                self.waiting = Some(self.room.limit);
                return None;
            }
            let (class, queue) = &mut lane.queues[at];
            let task = queue.peek().and_then(|rank| self.definition.task(rank.id));
            let avoided = task.map_or_else(Avoided::default, |task| Avoided::of(task, self.now));
            if let Some(place) = self.fill.take(*class, avoided) {
                let step = queue.next().and_then(|rank| self.step(&lane, rank.id, place));
                lane.used += 1;
                lane.room.tasks -= 1;
                self.room.tasks -= 1;
                self.put_back(lane);
                return step;
            }
            self.waiting = self.fill.exhausted();
            if self.waiting.is_some() {
                return None;
            }
            if let Some(until) = avoided.until() {
                // This one waits for a worker of another version; the next may not.
                queue.next();
                self.wake = Some(self.wake.map_or(until, |wake| wake.min(until)));
                continue;
            }
            if !lane.behind && !self.fill.is_too_heavy(*class) {
                lane.behind = true;
                self.put_back(lane);
                return None;
            }
        }
        None
    }

    fn step(&self, lane: &Open<'a>, id: TaskId, (worker, revision): (WorkerId, Revision)) -> Option<Step> {
        let task = self.definition.task(id)?;
        let seen = AsSeen { task: task.task_revision(), tally: task.tally_revision(), worker: revision };
        Some(Step::Assign {
            task: id,
            worker,
            class: task.class(),
            lane: lane.key.clone(),
            in_turn: !lane.behind,
            rate: self.limits.rate().copied(),
            seen,
        })
    }

    fn within(&self) -> Within<'_> {
        let Self { id, definition, assumed, fill, now, .. } = self;
        Within { id, definition, assumed, fill, now: *now }
    }

    fn held_back_in_view(&self) -> Option<Waiting> {
        let limited = self.definition.lanes().any_limited().then_some(Waiting::KeyConcurrencyLimit);
        self.held_back.or(limited)
    }
}

impl Open<'_> {
    /// The queue with the lane's most urgent task that may find a place.
    fn best(&mut self, give: &Within<'_>) -> Option<usize> {
        let heads = self.queues.iter_mut().enumerate().filter_map(|(at, (class, queue))| {
            if give.fill.refuses(*class) {
                return None;
            }
            while queue.next_if(|rank| give.leaves_out(rank.id)).is_some() {}
            queue.peek().map(|rank| (**rank, at))
        });
        heads.min().map(|(_, at)| at)
    }
}

/// What a lane has to know to find its next task.
struct Within<'g> {
    id: &'g DefinitionId,
    definition: &'g Definition,
    assumed: &'g Assumed,
    fill: &'g Fill<'g>,
    now: Instant,
}

impl Within<'_> {
    /// What is under way is not begun, nor what somebody asks to cancel, nor what has waited
    /// too long.
    fn leaves_out(&self, task: TaskId) -> bool {
        self.assumed.is_busy(self.id, task)
            || self.definition.request(task).is_some()
            || self.definition.task(task).is_none_or(|task| task.has_expired(self.now))
    }
}

/// Why nothing of the definition is given out at all, if so.
fn stands_still(definition: &Definition) -> Option<Waiting> {
    if definition.due_count() == 0 {
        return None;
    }
    let Some(record) = definition.policy() else { return Some(Waiting::NoPolicy) };
    match record.state {
        // Retained tasks wait for the definition to come back; purged ones are on their way out.
        PolicyState::Retained | PolicyState::Purging => Some(Waiting::Deleted),
        PolicyState::Active | PolicyState::Draining => {
            (record.policy.mode == Mode::Hold).then_some(Waiting::OnHold)
        }
    }
}
