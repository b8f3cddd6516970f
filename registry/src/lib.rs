//! What Bellows' operator and worker SDK must agree on.
//!
//! The registry is a small ledger in etcd: tasks, who runs them, and what became of
//! them. This crate has its keys, its records, the table of moves, the assigner that
//! gives tasks to workers, and the laws that all of it obeys. Deciding code here is
//! plain and synchronous: no async, no clock, no randomness, no client. Acting code
//! (`mirror`, `session`, `assigner`, `upkeep`, the backends) is a thin rim around it.
//!
//! # The laws
//!
//! 1. A task has at most one standing assignment. An assignment implies its task; a
//!    terminal record implies no task.
//! 2. The attempt id, random, is part of the assignment's key. "This key exists" is the
//!    only fence a worker needs. Revisions are no tokens for workers: a restore from
//!    backup hands them out again.
//! 3. Settling writes the outcome and removes task and assignment in one transaction,
//!    or does nothing.
//! 4. The assigner's fence is its term: the mod-revision of the leader key, compared by
//!    every transaction it sends. A worker's key is compared by mod-revision as seen.
//! 5. After an unknown outcome the assigner first raises its term, then lists at a
//!    revision not below it, then plans. A new leader plans only from such a view too.
//! 6. An assumption ends only when the view has passed the revision of the answer; a
//!    task with an unanswered request is not planned, cancelled or moved.
//! 7. Three writers: a publisher creates a task, a worker settles its own assignment,
//!    everything else is done by the assigner.
//! 8. Only the liveness key hangs on a lease. Assignments must not vanish unseen.
//! 9. Published means durable. Task ids are made by the publisher, and a publish compares
//!    task, parked task and terminal record absent, so that a repeated publish is the
//!    same task, and a finished one is not revived.
//! 10. Timeout, unavailable, leader changed and no space mean *unknown*; the class of an
//!     error comes from etcd's message, not from the gRPC code.
//! 11. Delivery is at least once; at most one attempt can commit, per task and life. The
//!     attempt id is given to user code.
//! 12. A watch is a hint, a list is the truth: list at one revision, watch from the next,
//!     fold whole revisions only, relist when history is compacted.
//! 13. Subscribe before you look; look at all keys of a task in one transaction.
//! 14. A lost session starts nothing, cancels its handlers and hands nothing back; an
//!     outcome already in hand is sent, and its fence decides.
//! 15. The keep-alive stops when the dispatcher's loop has not ticked for half the TTL,
//!     and the assigner takes back what was held beyond every bound. Nothing is claimed
//!     for ever.
//! 16. Decisions about lease, retry and order never come from a publisher's or worker's
//!     wall clock, except for what was listed rather than seen live.
//! 17. Infrastructure is not the task's fault: hand-backs and losses are no attempts. A
//!     task with two losses is suspect and runs alone; only losses suffered alone park it.
//! 18. Planning is idempotent, and every plan carries its reasons.
//! 19. No signal, no scaling: without a fresh view the replica count is frozen.
//! 20. A worker id is new for each session and never reused: a restarted container never
//!     runs its dead self's tasks.
//! 21. A limit is never exceeded. Everything sent counts, seen or not; what a new leader
//!     cannot know of a rate counts as used up. What a limit holds back holds up nothing
//!     else, and nothing that may run waits for ever.
//! 22. A unique key is held by the one task that names it: taken in the transaction that
//!     publishes it, let go of in the one that ends it, or, for a key held until its task
//!     has begun, in the one that first assigns it. Until then such a task may be replaced.
//!
//! [`check`] has those that a machine can judge; tests quote the numbers.
//!
//! # The rooms, in the order in which to read them
//!
//! [`id`], [`spec`], [`key`], [`record`], [`state`] say what there is; [`txn`] is the
//! table of moves; [`view`] folds changes, [`plan`] decides from it, [`demand`] counts
//! it; [`backend`] is the narrow waist; [`mirror`], [`session`] and [`assigner`] act.

pub mod assigner;
pub mod backend;
pub mod backoff;
pub mod check;
pub mod clock;
pub mod demand;
pub mod entropy;
pub mod id;
pub mod key;
pub mod mirror;
pub mod plan;
pub mod record;
pub mod session;
pub mod spec;
pub mod state;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod txn;
mod upkeep;
pub mod view;
