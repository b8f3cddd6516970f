//! Where random bits come from: the only file that asks the system for them.
//!
//! Ids are made from 128 or 64 bits of the system's own generator in production,
//! and from a seed in simulation, where the same seed must give the same history.

use std::sync::Mutex;

use crate::id::{AttemptId, ResultSlot, TaskId};

/// A source of random bits for ids. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Entropy(Source);

#[derive(Debug)]
enum Source {
    System,
    Seeded(Mutex<u64>),
}

impl Entropy {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A repeatable sequence, for simulation and tests only.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Mutex::new(seed)))
    }

    /// 64 random bits.
    ///
    /// # Panics
    /// If the operating system has no random numbers to give, which leaves no way to
    /// make an id that is safe to use.
    pub fn bits64(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
                u64::from_le_bytes(bytes)
            }
            Source::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                split_mix(&mut state)
            }
        }
    }

    /// A new task's id.
    pub fn task_id(&self) -> TaskId {
        let bits = (u128::from(self.bits64()) << 64) | u128::from(self.bits64());
        TaskId::from_bits(bits.max(1)) // zero is the singleton's
    }

    /// A new attempt's id.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId::from_bits(self.bits64())
    }

    /// A publishing process's slice of the result space.
    pub fn result_slot(&self) -> ResultSlot {
        ResultSlot::from_bits(self.bits64() as u16)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, and its whole state is the seed.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
