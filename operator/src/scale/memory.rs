//! What is remembered of one definition between two looks at it: what was asked for, what
//! came of it, and when to try again.

use std::time::Duration;

use bellows_registry::clock::{self, Instant};
use bellows_registry::id::DefinitionId;
use k8s_openapi::api::core::v1::ObjectReference;

use super::Reason;
use super::status::Told;
use crate::events::{self, Events};

/// What is remembered of one definition.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) idle_since: Option<Instant>,
    /// Since when a burst of publishes is being gathered.
    pub(super) burst_since: Option<Instant>,
    /// A write is under way: decide nothing until it is answered.
    pub(super) writing: bool,
    /// The status is being written: two writes at once might arrive in the wrong order.
    pub(super) telling: bool,
    /// What our last write asked for, valid until the cache shows this generation.
    pub(super) written: Option<(i64, u32)>,
    /// Do not try again before this.
    pub(super) retry_at: Option<Instant>,
    pub(super) told: Told,
}

/// What becomes of a decision to change the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It is written now.
    Now,
    /// Not before this moment, which is to come.
    At(Instant),
    /// A write is under way, and its answer brings the next look.
    OnAnswer,
}

impl Memory {
    /// What becomes of a decision at `now`. `room` is whether one more write may be under way;
    /// where it is not, others are. Pure.
    pub(super) fn attempt(&self, room: bool, now: Instant) -> Attempt {
        match self.retry_at.filter(|at| now < *at) {
            _ if self.writing => Attempt::OnAnswer,
            Some(at) => Attempt::At(at),
            None if room => Attempt::Now,
            None => Attempt::OnAnswer,
        }
    }

    /// Notes the answer to a write of the status.
    pub(super) fn shown(&mut self, written: bool) {
        self.telling = false;
        if !written {
            self.told.failed();
        }
    }
}

/// What came of a write.
pub(super) enum Answer {
    Scaled(Box<Scaled>),
    Shown { id: DefinitionId, written: bool },
}

/// What came of setting a number of pods.
pub(super) struct Scaled {
    pub(super) id: DefinitionId,
    pub(super) object: ObjectReference,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) reason: Reason,
    /// The Deployment's generation after it, and how long it took.
    pub(super) result: Result<(i64, Duration), String>,
}

impl Scaled {
    /// Remembers what came of it. Only what was done is told: in the event, and as the
    /// status's last scaling.
    pub(super) fn end(&self, memory: Option<&mut Memory>, events: &Events) {
        let Self { id, object, from, to, reason, result } = self;
        match result {
            Ok(_) => {
                let note = format!("from {from} to {to} worker pods: {reason}");
                events.say(object, events::normal("Scaled", format!("Scale{from}To{to}"), note));
            }
            Err(error) => {
                tracing::warn!(definition = %id, error, "the number of pods could not be changed");
            }
        }
        let Some(memory) = memory else { return };
        memory.writing = false;
        match result {
            Ok((generation, _)) => {
                memory.told.scaled(*from, *to, *reason);
                memory.written = Some((*generation, *to));
                memory.retry_at = None;
            }
            Err(_) => memory.retry_at = Some(clock::instant() + Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_waits_for_an_answer_or_for_a_moment_to_come() {
        let now = clock::instant();
        let (past, next) = (now - Duration::from_secs(1), now + Duration::from_secs(1));
        for (writing, retry_at, room, attempt) in [
            (false, None, true, Attempt::Now),
            (false, Some(past), true, Attempt::Now),
            (false, Some(now), true, Attempt::Now),
            (false, Some(next), true, Attempt::At(next)),
            (false, Some(next), false, Attempt::At(next)),
            (false, Some(past), false, Attempt::OnAnswer),
            (false, None, false, Attempt::OnAnswer),
            (true, Some(past), true, Attempt::OnAnswer),
            (true, Some(next), true, Attempt::OnAnswer),
        ] {
            let memory = Memory { writing, retry_at, ..Memory::default() };
            assert_eq!(memory.attempt(room, now), attempt, "{memory:?}, room: {room}");
        }
    }

    #[test]
    fn a_scaling_is_told_once_it_is_done_and_not_before() {
        let scaled = |result| Scaled {
            id: DefinitionId::new("a", "b").unwrap(),
            object: ObjectReference::default(),
            from: 0,
            to: 3,
            reason: Reason::BelowMinimum,
            result,
        };
        let (events, mut queue) = Events::queue(4);
        let mut memory = Memory { writing: true, ..Memory::default() };
        scaled(Err("refused".to_owned())).end(Some(&mut memory), &events);
        assert!(queue.try_recv().is_err(), "nothing was scaled");
        assert!(memory.retry_at.is_some() && !memory.writing && memory.told.last_scale().is_none());

        scaled(Ok((7, Duration::ZERO))).end(Some(&mut memory), &events);
        let spoken = queue.try_recv().expect("it was scaled");
        assert_eq!((spoken.said.reason, spoken.said.action.as_str()), ("Scaled", "Scale0To3"));
        assert_eq!(memory.written, Some((7, 3)));
        assert_eq!(memory.told.last_scale().map(|last| last.to), Some(3));
    }
}
