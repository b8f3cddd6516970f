//! The states of a task and the moves between them.
//!
//! ```text
//!            publish
//!               │
//!               ▼        assign
//!   ┌────── WAITING ───────────────► ASSIGNED ──────────┐
//!   │           ▲                       │  │            │ settle, cancel
//!   │           └── retry, snooze, ─────┘  │            │
//!   │               hand back, lost        │ park       │
//!   │ cancel, expire                       ▼            ▼
//!   │                                   PARKED       SETTLED
//!   │                                      │            ▲
//!   │                WAITING ◄── replay ───┤            │
//!   └───────────────────────────────── purge, expire ───┘
//! ```
//!
//! A state is read off the keys: `t` alone is waiting, `t` with `a` is assigned, `x`
//! is parked (with a terminal record that says so), `r` alone is settled.

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Published, perhaps not yet due.
    Waiting,
    /// Given to a worker.
    Assigned,
    /// Given up until a person replays it.
    Parked,
    /// Ended for good.
    Settled,
}

/// What happens to a task. The names are those of the table of moves in `txn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// A publisher creates it.
    Publish,
    /// The assigner gives it to a worker.
    Assign,
    /// Its worker records the outcome.
    Settle,
    /// Its worker failed, and it waits for the next attempt.
    Retry,
    /// Its handler asked to be run again later.
    Snooze,
    /// Its worker ends, and gives it back.
    HandBack,
    /// Its worker died.
    Lost,
    /// It is given up.
    Park,
    /// Somebody cancelled it.
    Cancel,
    /// It waited longer than it may.
    Expire,
    /// A person runs it again.
    Replay,
    /// A person removes it.
    Purge,
}

impl State {
    /// The state after a move, or `None` if the move is not legal here. `None` as the
    /// state before means that the task does not exist.
    pub fn after(before: Option<Self>, kind: MoveKind) -> Option<Self> {
        use MoveKind::{
            Assign, Cancel, Expire, HandBack, Lost, Park, Publish, Purge, Replay, Retry, Settle, Snooze,
        };
        match (before, kind) {
            (None, Publish) | (Some(Self::Assigned), Retry | Snooze | HandBack | Lost) => Some(Self::Waiting),
            (Some(Self::Parked), Replay) => Some(Self::Waiting),
            (Some(Self::Waiting), Assign) => Some(Self::Assigned),
            (Some(Self::Assigned), Park) => Some(Self::Parked),
            (Some(Self::Assigned), Settle | Cancel) => Some(Self::Settled),
            (Some(Self::Waiting), Cancel | Expire) => Some(Self::Settled),
            (Some(Self::Parked), Purge | Expire) => Some(Self::Settled),
            _ => None,
        }
    }
}
