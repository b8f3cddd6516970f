//! Packing moves into one request, by etcd's rules.
//!
//! Nested transactions, one a move, under at most one outer compare: each move is
//! fenced alone. Two rules decide what fits:
//!
//! * per level max(compares, then, otherwise), summed over the deepest path, is at
//!   most 128: so a batch holds 128 − (the largest move) moves;
//! * all compares see the state **before** the request, and a key is put only once in
//!   it: a move that touches what another wrote must wait for that batch's answer.

use std::collections::HashSet;

use bytes::Bytes;

use super::Move;
use crate::backend::{Compare, Op, OpAnswer, Txn, TxnAnswer, limits};

/// The keys that moves depend on and write.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    compared: HashSet<Bytes>,
    written: HashSet<Bytes>,
}

impl Touched {
    /// Adds a move's keys.
    pub fn add(&mut self, row: &Move) {
        self.compared.extend(row.compares.iter().map(|c| c.key.clone()));
        self.written.extend(written(row).cloned());
    }

    /// Removes a move's keys. Written keys belong to one move at a time; compared ones
    /// may be shared and are rebuilt by the caller if that matters.
    pub fn conflicts(&self, row: &Move) -> bool {
        written(row).any(|key| self.written.contains(key) || self.compared.contains(key))
            || row.compares.iter().any(|c| self.written.contains(&c.key))
    }

    /// Joins the keys of another set.
    pub fn merge(&mut self, other: &Self) {
        self.compared.extend(other.compared.iter().cloned());
        self.written.extend(other.written.iter().cloned());
    }
}

fn written(row: &Move) -> impl Iterator<Item = &Bytes> {
    row.then.iter().filter_map(|op| match op {
        Op::Put { key, .. } => Some(key),
        Op::Delete(range) => Some(&range.start), // moves delete single keys only
        Op::Get(_) | Op::Keys(_) | Op::Txn(_) => None,
    })
}

/// Why a move was not taken into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The batch is full: send it, and begin another.
    Full,
    /// The move touches what another move of this batch writes: send it after that
    /// batch's answer.
    Conflict,
}

/// Moves that go out in one request.
#[derive(Debug, Default)]
pub struct Batch {
    moves: Vec<Move>,
    touched: Touched,
    widest: usize,
    bytes: usize,
}

impl Batch {
    /// Takes a move, or says why not.
    pub fn push(&mut self, row: Move) -> Result<(), (Move, Rejected)> {
        let widest = self.widest.max(width(&row));
        let bytes = self.bytes + size(&row);
        let over = self.moves.len() + 1 + widest > limits::OPS || bytes > limits::FLUSH_BYTES;
        if over && !self.moves.is_empty() {
            return Err((row, Rejected::Full));
        }
        if self.touched.conflicts(&row) {
            return Err((row, Rejected::Conflict));
        }
        self.touched.add(&row);
        (self.widest, self.bytes) = (widest, bytes);
        self.moves.push(row);
        Ok(())
    }

    /// How many moves it holds.
    pub fn len(&self) -> usize {
        self.moves.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// The keys it touches: in flight until its answer.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// The request: one nested transaction a move, under the outer compare.
    pub fn into_txn(self, outer: Option<Compare>) -> Txn {
        let then = self
            .moves
            .into_iter()
            .map(|row| Op::Txn(Txn { compares: row.compares, then: row.then, otherwise: row.otherwise }));
        Txn { compares: outer.into_iter().collect(), then: then.collect(), otherwise: Vec::new() }
    }

    /// The answers, one a move, in order; `None` if the outer compare did not hold.
    pub fn answers(answer: TxnAnswer) -> Option<Vec<TxnAnswer>> {
        let revision = answer.revision;
        answer.succeeded.then(|| {
            answer
                .answers
                .into_iter()
                .filter_map(|step| match step {
                    OpAnswer::Txn(inner) => Some(TxnAnswer { revision, ..inner }),
                    _ => None,
                })
                .collect()
        })
    }
}

/// How much of the 128 steps a move takes at its level.
fn width(row: &Move) -> usize {
    row.compares.len().max(row.then.len()).max(row.otherwise.len())
}

fn size(row: &Move) -> usize {
    const OVERHEAD: usize = 16;
    let op = |op: &Op| match op {
        Op::Put { key, value, .. } => key.len() + value.len() + OVERHEAD,
        Op::Get(range) | Op::Keys(range) | Op::Delete(range) => {
            range.start.len() + range.end.len() + OVERHEAD
        }
        Op::Txn(_) => OVERHEAD, // moves are flat
    };
    row.compares.iter().map(|c| c.key.len() + OVERHEAD).sum::<usize>()
        + row.then.iter().chain(&row.otherwise).map(op).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Is, PutLease};

    fn put(key: &str, compare: &str) -> Move {
        Move {
            compares: vec![Compare { key: Bytes::from(compare.to_owned()), is: Is::Present }],
            then: vec![Op::Put {
                key: Bytes::from(key.to_owned()),
                value: Bytes::new(),
                lease: PutLease::None,
            }],
            otherwise: Vec::new(),
        }
    }

    #[test]
    fn a_batch_of_moves_of_three_steps_holds_125() {
        let mut batch = Batch::default();
        let wide = |n: usize| Move {
            then: (0..3)
                .map(|i| Op::Put {
                    key: Bytes::from(format!("{n}/{i}")),
                    value: Bytes::new(),
                    lease: PutLease::None,
                })
                .collect(),
            ..Move::default()
        };
        let taken = (0..200).take_while(|n| batch.push(wide(*n)).is_ok()).count();
        assert_eq!(taken, 125);
        assert_eq!(batch.push(wide(500)).unwrap_err().1, Rejected::Full);
    }

    #[test]
    fn a_move_that_depends_on_a_written_key_waits_for_the_answer() {
        let mut batch = Batch::default();
        batch.push(put("a", "w")).unwrap();
        batch.push(put("b", "w")).expect("a compared key may be shared");
        assert_eq!(batch.push(put("a", "z")).unwrap_err().1, Rejected::Conflict, "written twice");
        assert_eq!(batch.push(put("c", "a")).unwrap_err().1, Rejected::Conflict, "compared after written");
        assert_eq!(batch.push(put("w", "q")).unwrap_err().1, Rejected::Conflict, "written after compared");
    }

    #[test]
    fn a_full_batch_is_judged_by_bytes_too_but_takes_one_large_move() {
        let mut batch = Batch::default();
        let mut large = put("a", "w");
        large.then.push(Op::Put {
            key: Bytes::from_static(b"body"),
            value: Bytes::from(vec![0; limits::FLUSH_BYTES + 1]),
            lease: PutLease::None,
        });
        batch.push(large).unwrap();
        assert_eq!(batch.push(put("b", "x")).unwrap_err().1, Rejected::Full);
    }
}
