//! The coalescing writer: packs whatever moves are waiting into one request.
//!
//! One per process and purpose. There is no timer: a lone move leaves at once, and
//! while requests are on their way the next batch gathers. Decides nothing about the
//! moves; what fits into a batch is [`Batch`]'s rule.
//!
//! # Guarantees
//! * Each move is fenced alone: one that loses its compares, or is refused, does not
//!   fail its neighbours.
//! * Moves that touch one key are sent in the order in which they came, the later one
//!   after the answer to the earlier one.
//! * Bounded: at most [`WriterConfig::queue`] moves wait twice over, and then senders do.
//!
//! # Errors
//! An unknown outcome of a request is told to every move in it.

use std::collections::VecDeque;
use std::fmt;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{BackendError, Class, Compare, DynBackend, TxnAnswer};
use crate::txn::{Batch, Move, Rejected, Touched};

/// What can be set of a [`Writer`].
#[derive(Debug, Clone, Copy)]
pub struct WriterConfig {
    /// Moves that may wait in the queue.
    pub queue: usize,
    /// Requests on their way at a time. Two give most of the throughput of many.
    pub in_flight: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { queue: 2048, in_flight: 2 }
    }
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Its own answer, as if it had been sent alone.
    Answer(TxnAnswer),
    /// The compare around the whole request did not hold: nothing of it was done.
    Deposed,
}

type Reply = oneshot::Sender<Result<Written, BackendError>>;

struct Waiting {
    row: Move,
    reply: Reply,
}

/// Sends moves, many in a request. Dropping it aborts what has not been answered.
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    run: JoinSet<()>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("room", &self.queue.capacity()).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer; `outer` is compared by every request, and a new one needs a new writer.
    pub fn new(backend: DynBackend, outer: Option<Compare>, config: WriterConfig) -> Self {
        let (queue, moves) = mpsc::channel(config.queue.max(1));
        let mut run = JoinSet::new();
        run.spawn(Run::new(backend, outer, config, moves).until_closed());
        Self { queue, run }
    }

    /// Sends one move and waits for its answer; waits for room in the queue before.
    ///
    /// # Cancel safety
    /// A future that is dropped leaves the outcome unknown: a move that is in the queue
    /// is sent.
    pub async fn send(&self, row: Move) -> Result<Written, BackendError> {
        let (reply, answer) = oneshot::channel();
        let gone = || BackendError::unknown("the writer has ended");
        self.queue
            .send(Waiting { row, reply })
            .await
            .map_err(|_| BackendError::NotApplied("the writer has ended".to_owned()))?;
        answer.await.map_err(|_| gone())?
    }

    /// Sends what is waiting, waits for the answers, and ends.
    pub async fn close(mut self) {
        drop(self.queue);
        while self.run.join_next().await.is_some() {}
    }
}

struct Run {
    backend: DynBackend,
    outer: Option<Compare>,
    config: WriterConfig,
    queue: mpsc::Receiver<Waiting>,
    waiting: VecDeque<Waiting>,
    /// Polled within this task: a task each would cost a lone move one more hop.
    requests: FuturesUnordered<BoxFuture<'static, u64>>,
    /// What the requests on their way touch, by number.
    in_flight: Vec<(u64, Touched)>,
    numbered: u64,
}

impl Run {
    fn new(
        backend: DynBackend,
        outer: Option<Compare>,
        config: WriterConfig,
        queue: mpsc::Receiver<Waiting>,
    ) -> Self {
        let (waiting, requests) = (VecDeque::new(), FuturesUnordered::new());
        Self { backend, outer, config, queue, waiting, requests, in_flight: Vec::new(), numbered: 0 }
    }

    async fn until_closed(mut self) {
        let mut open = true;
        while open || !self.waiting.is_empty() || !self.requests.is_empty() {
            while self.requests.len() < self.config.in_flight.max(1) && self.send_batch() {}
            let room = open && self.waiting.len() < self.config.queue.max(1);
            tokio::select! {
                next = self.queue.recv(), if room => match next {
                    Some(next) => self.take_in(next),
                    None => open = false,
                },
                Some(done) = self.requests.next() => {
                    self.in_flight.retain(|(number, _)| *number != done);
                }
            }
        }
    }

    /// Everything that is there goes into the next batch.
    fn take_in(&mut self, first: Waiting) {
        self.waiting.push_back(first);
        while self.waiting.len() < self.config.queue {
            let Ok(next) = self.queue.try_recv() else { break };
            self.waiting.push_back(next);
        }
    }

    /// Sends one request, if any waiting move may go now.
    fn send_batch(&mut self) -> bool {
        let (batch, replies) = self.pack();
        if batch.is_empty() {
            return false;
        }
        let number = self.numbered;
        self.numbered += 1;
        self.in_flight.push((number, batch.touched().clone()));
        let request = deliver(self.backend.clone(), self.outer.clone(), batch, replies);
        self.requests.push(request.map(move |()| number).boxed());
        true
    }

    /// Packs waiting moves in their order. One that touches what is on its way, or what
    /// an earlier move that stays behind touches, stays behind too.
    fn pack(&mut self) -> (Batch, Vec<Waiting>) {
        let mut batch = Batch::default();
        let (mut packed, mut stays) = (Vec::new(), VecDeque::new());
        let mut blocked = Touched::default();
        let on_its_way = |row: &Move| self.in_flight.iter().any(|(_, touched)| touched.conflicts(row));
        while let Some(next) = self.waiting.pop_front() {
            if blocked.conflicts(&next.row) || on_its_way(&next.row) {
                blocked.add(&next.row);
                stays.push_back(next);
                continue;
            }
            match batch.push(next.row.clone()) {
                Ok(()) => packed.push(next),
                Err((_, Rejected::Conflict)) => {
                    blocked.add(&next.row);
                    stays.push_back(next);
                }
                Err((_, Rejected::Full)) => {
                    self.waiting.push_front(next);
                    break;
                }
            }
        }
        stays.append(&mut self.waiting);
        self.waiting = stays;
        (batch, packed)
    }
}

/// One request, and the answers to its moves.
async fn deliver(backend: DynBackend, outer: Option<Compare>, batch: Batch, moves: Vec<Waiting>) {
    let result = backend.txn(batch.into_txn(outer.clone())).await;
    match result {
        Ok(answer) => answer_each(moves, Batch::answers(answer)),
        // Refused whole, and certainly not done: one of them is at fault.
        Err(error) if is_a_moves_fault(&error) && moves.len() > 1 => {
            for waiting in moves {
                let mut alone = Batch::default();
                // An empty batch takes any move.
                let _ = alone.push(waiting.row.clone());
                let result = backend.txn(alone.into_txn(outer.clone())).await;
                match result {
                    Ok(answer) => answer_each(vec![waiting], Batch::answers(answer)),
                    Err(error) => fail_each(vec![waiting], &error),
                }
            }
        }
        Err(error) => fail_each(moves, &error),
    }
}

fn is_a_moves_fault(error: &BackendError) -> bool {
    match error.class() {
        Class::Invalid | Class::LeaseLost => true,
        Class::NotApplied | Class::Unknown | Class::Relist => false,
    }
}

/// A sender that no longer waits is no reason to stop.
fn answer_each(moves: Vec<Waiting>, answers: Option<Vec<TxnAnswer>>) {
    let Some(answers) = answers else {
        for waiting in moves {
            let _ = waiting.reply.send(Ok(Written::Deposed));
        }
        return;
    };
    let mut answers = answers.into_iter();
    for waiting in moves {
        let answer = answers.next().map(Written::Answer);
        let _ = waiting.reply.send(answer.ok_or_else(|| BackendError::unknown("a move got no answer")));
    }
}

fn fail_each(moves: Vec<Waiting>, error: &BackendError) {
    for waiting in moves {
        let _ = waiting.reply.send(Err(told_again(error)));
    }
}

/// The same error for one more move; what the client library said stays with the log.
fn told_again(error: &BackendError) -> BackendError {
    match error {
        BackendError::Invalid(text) => BackendError::Invalid(text.clone()),
        BackendError::NotApplied(text) => BackendError::NotApplied(text.clone()),
        BackendError::Unknown { reason, .. } => BackendError::unknown(reason.clone()),
        BackendError::Compacted(revision) => BackendError::Compacted(*revision),
        BackendError::OutOfOrder => BackendError::OutOfOrder,
        BackendError::LeaseLost(lease) => BackendError::LeaseLost(*lease),
    }
}

#[cfg(test)]
mod tests;
