//! What workers send of their attempts: ends and reports, in time or late.
//!
//! A worker that was thought dead, or whose task was taken back, knows nothing of it and
//! goes on. Whatever it sends is judged by the fence alone, and so it is here.

use std::time::Duration;

use bellows_registry::key::Key;
use bellows_registry::record::{
    AssignmentRecord, CheckpointRecord, Delay, Ended, OutcomeRecord, ParkedRecord, Progress, Record, Tally,
    TaskRecord,
};
use bellows_registry::testkit::records;
use bellows_registry::txn::{self, AttemptRef, FollowUp, Move};
use bytes::Bytes;

use crate::table::Table;

/// An attempt, as its worker knows it.
#[derive(Clone)]
pub(crate) struct Attempt {
    at: AttemptRef,
    record: AssignmentRecord,
}

/// More attempts than these are forgotten.
const KNOWN: usize = 40;

impl Table {
    pub(crate) fn stands(&self, at: &AttemptRef) -> bool {
        self.has(&at.key())
    }

    pub(crate) fn begins(&mut self, at: AttemptRef, value: &Bytes) {
        let record = AssignmentRecord::decode(value).unwrap();
        self.standing.push(at.clone());
        self.attempts.push_back(Attempt { at, record });
        if self.attempts.len() > KNOWN {
            self.attempts.pop_front();
        }
    }

    /// An attempt that stands.
    fn standing(&self) -> Option<Attempt> {
        let at = self.pick(&self.standing)?;
        let record = self.get(&at.key()).unwrap();
        Some(Attempt { at, record })
    }

    /// An attempt of late, whether it stands or not.
    fn of_late(&self) -> Option<Attempt> {
        let known = self.attempts.len() as u64;
        (known > 0).then(|| self.attempts[self.below(known) as usize].clone())
    }

    pub(crate) fn attempt_ends(&mut self) {
        let Some(attempt) = self.standing() else { return };
        let worker = Key::Worker(attempt.at.definition.clone(), attempt.at.worker.clone());
        if self.peace {
            self.end(&attempt);
        } else if self.is_alive(&worker) {
            // What has lost a worker is likely to lose the next one.
            let kills = attempt.record.tally.losses > 0 && self.below(6) > 0;
            if kills { self.remove(&worker) } else { self.end(&attempt) }
        }
    }

    /// Somebody ends what may be no longer theirs.
    pub(crate) fn attempt_ends_late(&mut self) {
        let Some(attempt) = self.of_late() else { return };
        let stands = self.stands(&attempt.at);
        self.end(&attempt);
        self.seen.note(if stands { "late ends taken" } else { "late ends refused" });
    }

    /// The fence alone decides: whether the assignment stands, and for what is published
    /// with the end of it, whether that is taken.
    fn end(&mut self, attempt: &Attempt) {
        let Attempt { at, record } = attempt;
        let stands = self.stands(at);
        match self.below(10) {
            0 => {
                let taken = self.once(&self.retries(attempt));
                assert_eq!(taken, stands, "a retry is fenced by the assignment");
                let count = self.counts.entry((at.definition.clone(), at.task)).or_default();
                count.attempts += u32::from(taken);
            }
            1 => {
                let hand_backs = record.tally.hand_backs + 1;
                let tally = Tally { hand_backs, delay: None, ..record.tally.clone() };
                let taken = self.once(&txn::give_back(&self.space, at, &tally));
                assert_eq!(taken, stands, "a hand-back is fenced by the assignment");
            }
            2 => {
                let taken = self.once(&self.parks(attempt));
                assert_eq!(taken, stands, "parking is fenced by the assignment");
                self.seen.add("parked", u64::from(taken));
            }
            _ => self.settle(attempt),
        }
    }

    fn retries(&self, Attempt { at, record }: &Attempt) -> Move {
        let attempts = record.tally.attempts + 1;
        let delay = Some(Delay::from_now(record.backoff.wait(attempts, 7), self.now.wall));
        txn::give_back(&self.space, at, &Tally { attempts, delay, ..record.tally.clone() })
    }

    fn parks(&self, Attempt { at, record }: &Attempt) -> Move {
        let parked = ParkedRecord {
            parked: self.now.wall,
            expires: Some(self.now.wall.plus(Duration::from_secs(self.below(300)))),
            tally: record.tally.clone(),
            task: TaskRecord {
                slot: record.slot,
                published: record.published,
                delay: None,
                headers: record.headers.clone(),
                options: record.options.clone(),
                payload: record.payload.clone(),
            },
        };
        let outcome = OutcomeRecord { ended: Ended::Parked, ..records::succeeded(at, record) };
        txn::park(&self.space, at, &parked, &outcome)
    }

    fn settle(&mut self, Attempt { at, record }: &Attempt) {
        let next = self.follow_ups(record);
        let ended = if record.cancel { Ended::Cancelled } else { Ended::Succeeded };
        let outcome = OutcomeRecord { ended, ..records::succeeded(at, record) };
        let stands = self.stands(at);
        let open = next.iter().all(|next| self.is_open(&next.definition));
        let taken = self.once(&txn::settle_and_publish(&self.space, at, record.ties(), &outcome, &next));
        assert_eq!(taken, stands && open, "an end is fenced by the assignment, and by what it publishes");
        for FollowUp { definition, task, .. } in &next {
            let there = self.has(&Key::Task(definition.clone(), *task));
            assert_eq!(there, taken, "what an end publishes is there if it was taken, and only then");
            self.seen.note(if taken { "follow-ups published" } else { "follow-ups refused" });
        }
        if stands && !open {
            self.seen.note("ends refused by a closed definition");
        }
    }

    /// An attempt shows its progress, or keeps a checkpoint.
    pub(crate) fn attempt_reports(&mut self) {
        let attempt = if self.below(2) == 0 { self.standing() } else { self.of_late() };
        let Some(attempt) = attempt else { return };
        if self.below(2) == 0 { self.shows_progress(&attempt) } else { self.keeps_a_checkpoint(&attempt) }
    }

    fn shows_progress(&mut self, Attempt { at, record }: &Attempt) {
        let progress = Progress { attempt: record.number, at: self.now.wall, value: "7".into() };
        let tally = Tally { progress: Some(progress), ..record.tally.clone() };
        let stands = self.stands(at);
        let taken = self.commit(&txn::progress(&self.space, at, &tally));
        assert_eq!(taken, stands, "progress is fenced by the assignment");
        let told: Option<Tally> = self.get(&Key::Tally(at.definition.clone(), at.task)).filter(|_| taken);
        assert!(told.is_none_or(|tally| tally.delay.is_none()), "a wait that is over begins anew");
        self.seen.note(if taken { "progress shown" } else { "progress refused" });
    }

    /// One that is written over what no longer stands has been overtaken by a later one.
    fn keeps_a_checkpoint(&mut self, Attempt { at, record }: &Attempt) {
        let value = Bytes::from(vec![b'c'; self.below(40) as usize]);
        let checkpoint =
            CheckpointRecord { attempt: at.attempt, number: record.number, at: self.now.wall, value };
        let kept = self.entry(&Key::Checkpoint(at.definition.clone(), at.task));
        let overtaken = kept.is_some() && self.below(4) == 0;
        let seen = kept.filter(|_| !overtaken).map_or(0, |entry| entry.mod_revision);
        let stands = self.stands(at);
        let taken = self.once(&txn::checkpoint(&self.space, at, seen, &checkpoint));
        assert_eq!(taken, stands && !overtaken, "a checkpoint is fenced by the assignment and the last one");
        self.seen.note(match (taken, overtaken) {
            (true, _) => "checkpoints kept",
            (false, true) => "checkpoints overtaken",
            (false, false) => "checkpoints refused",
        });
    }
}
