//! Faults at the waist: a backend that loses answers, drops requests, applies late and
//! cuts watches, by script or by seed.
//!
//! Adds no fault that etcd or a network could not make. Under paused time, on one
//! thread, the same seed gives the same faults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Host;
use crate::backend::{
    Backend, BackendError, Changes, Lease, LeaseId, Op, RangeAnswer, RangeRequest, Revision, Txn, TxnAnswer,
    WatchRequest, WatchStream,
};
use crate::entropy::Entropy;

/// What happens to one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Applied; the answer is lost.
    LoseAnswer,
    /// Not applied; the caller cannot know.
    Drop,
    /// The caller is told at once that the outcome is unknown; applied so much later.
    ApplyLate(Duration),
    /// Not applied, and the caller is told so.
    Refuse,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::LoseAnswer => "lose_answer",
            Self::Drop => "drop",
            Self::ApplyLate(_) => "apply_late",
            Self::Refuse => "refuse",
        }
    }
}

/// How often faults are drawn, in thousandths of all calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Transactions that are applied without an answer.
    pub lose_answer: u32,
    /// Transactions that vanish.
    pub drop: u32,
    /// Transactions applied after the caller gave up, up to [`Rates::late_by`] later.
    pub apply_late: u32,
    /// The longest delay of a late one.
    pub late_by: Duration,
    /// Transactions refused.
    pub refuse: u32,
    /// Reads and renewals that fail.
    pub fail_read: u32,
    /// Items of a watch instead of which the watch is cut.
    pub cut_watch: u32,
}

type Matches = Box<dyn Fn(&Txn) -> bool + Send>;

/// A condition for [`Faulty::next_txn`]: writes or reads a key that begins with `prefix`.
pub fn touches(prefix: impl Into<Bytes>) -> impl Fn(&Txn) -> bool + Send + 'static {
    any_op(prefix.into(), |op, prefix| match op {
        Op::Get(range) | Op::Keys(range) | Op::Delete(range) => range.start.starts_with(prefix),
        Op::Put { key, .. } => key.starts_with(prefix),
        Op::Txn(_) => false,
    })
}

/// A condition for [`Faulty::next_txn`]: may put a key that begins with `prefix`.
pub fn puts(prefix: impl Into<Bytes>) -> impl Fn(&Txn) -> bool + Send + 'static {
    any_op(prefix.into(), |op, prefix| matches!(op, Op::Put { key, .. } if key.starts_with(prefix)))
}

/// A condition for [`Faulty::next_txn`]: may delete a range that begins with `prefix`.
pub fn deletes(prefix: impl Into<Bytes>) -> impl Fn(&Txn) -> bool + Send + 'static {
    any_op(prefix.into(), |op, prefix| matches!(op, Op::Delete(range) if range.start.starts_with(prefix)))
}

fn any_op(prefix: Bytes, test: fn(&Op, &[u8]) -> bool) -> impl Fn(&Txn) -> bool + Send + 'static {
    fn any(txn: &Txn, prefix: &[u8], test: fn(&Op, &[u8]) -> bool) -> bool {
        txn.then.iter().chain(&txn.otherwise).any(|op| match op {
            Op::Txn(inner) => any(inner, prefix, test),
            plain => test(plain, prefix),
        })
    }
    move |txn| any(txn, &prefix, test)
}

/// A backend with faults. Clones share the script.
pub struct Faulty<B> {
    inner: Arc<B>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    entropy: Entropy,
    gate: watch::Sender<Gate>,
    /// Transactions on their way; aborted with the last clone.
    late: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    script: Vec<(Matches, Fault)>,
    hidden: Vec<Bytes>,
    rates: Rates,
    injected: BTreeMap<&'static str, u64>,
}

/// What lies between the caller and the backend.
#[derive(Debug, Clone, Copy, Default)]
struct Gate {
    /// Raised to cut every open watch.
    cuts: u64,
    stalled: bool,
    unreachable: bool,
}

impl<B> Clone for Faulty<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), shared: Arc::clone(&self.shared) }
    }
}

impl<B: fmt::Debug> fmt::Debug for Faulty<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<B: Backend> Faulty<B> {
    /// A backend whose faults are drawn from `seed`; none until asked for.
    pub fn new(inner: B, seed: u64) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            entropy: Entropy::seeded(seed),
            gate: watch::Sender::new(Gate::default()),
            late: Mutex::default(),
        };
        Self { inner: Arc::new(inner), shared: Arc::new(shared) }
    }

    /// The backend without faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The next transaction that matches suffers `fault`, once. Scripts go before rates,
    /// and an older script before a newer one.
    pub fn next_txn(&self, matches: impl Fn(&Txn) -> bool + Send + 'static, fault: Fault) {
        self.shared.state().script.push((Box::new(matches), fault));
    }

    /// The next change of a key that begins with `prefix` is not told to one watch.
    pub fn hide_next_change(&self, prefix: impl Into<Bytes>) {
        self.shared.state().hidden.push(prefix.into());
    }

    /// Draws faults at these rates from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.shared.state().rates = rates;
    }

    /// Ends every open watch with an error.
    pub fn cut_watches(&self) {
        self.shared.count("cut_watches");
        self.shared.gate.send_modify(|gate| gate.cuts += 1);
    }

    /// Holds back what watches have to tell, or lets it go.
    pub fn stall_watches(&self, stalled: bool) {
        self.shared.count("stall_watches");
        self.shared.gate.send_modify(|gate| gate.stalled = stalled);
    }

    /// Cuts the caller off, or lets it back: requests vanish, watches end.
    pub fn set_reachable(&self, reachable: bool) {
        self.shared.count("set_reachable");
        self.shared.gate.send_modify(|gate| {
            gate.unreachable = !reachable;
            gate.cuts += u64::from(!reachable);
        });
    }

    /// Whether the caller is not cut off.
    pub fn is_reachable(&self) -> bool {
        !self.shared.gate.borrow().unreachable
    }

    /// How many faults there were, by kind.
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state().injected.clone()
    }

    /// Scripted faults that have not met their transaction.
    pub fn pending(&self) -> usize {
        self.shared.state().script.len()
    }

    fn apply_late(&self, txn: Txn, after: Duration) {
        let inner = Arc::clone(&self.inner);
        let mut late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        while late.try_join_next().is_some() {}
        late.spawn(async move {
            tokio::time::sleep(after).await;
            // Nobody waits for this answer any more.
            let _ = inner.txn(txn).await;
        });
    }

    async fn read<T>(&self, what: BoxFuture<'_, Result<T, BackendError>>) -> Result<T, BackendError> {
        if self.shared.gate.borrow().unreachable {
            return Err(BackendError::unknown("the backend is out of reach"));
        }
        if self.shared.drawn(|rates| rates.fail_read) {
            self.shared.count("fail_read");
            return Err(BackendError::unknown("a fault was drawn"));
        }
        what.await
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, fault: &'static str) {
        *self.state().injected.entry(fault).or_default() += 1;
    }

    fn drawn(&self, rate: impl Fn(&Rates) -> u32) -> bool {
        let rate = rate(&self.state().rates);
        rate > 0 && self.entropy.bits64() % 1000 < u64::from(rate)
    }

    /// The fault this transaction suffers, if any.
    fn fault_for(&self, txn: &Txn) -> Option<Fault> {
        let mut state = self.state();
        if let Some(found) = state.script.iter().position(|(matches, _)| matches(txn)) {
            return Some(state.script.remove(found).1);
        }
        let rates = state.rates;
        let late = |bits: u64| {
            let longest = u64::try_from(rates.late_by.as_millis()).unwrap_or(u64::MAX).max(1);
            Fault::ApplyLate(Duration::from_millis(bits % longest))
        };
        let kinds = [rates.lose_answer, rates.drop, rates.refuse, rates.apply_late];
        if kinds == [0; 4] {
            return None;
        }
        let bits = self.entropy.bits64();
        let mut drawn = bits % 1000;
        for (kind, rate) in kinds.into_iter().enumerate() {
            if drawn < u64::from(rate) {
                let plain = [Fault::LoseAnswer, Fault::Drop, Fault::Refuse];
                return Some(plain.get(kind).copied().unwrap_or_else(|| late(bits / 1000)));
            }
            drawn -= u64::from(rate);
        }
        None
    }

    /// Removes what is to be hidden from one item of a watch.
    fn hide(&self, told: &mut Changes) {
        let mut state = self.state();
        let mut hidden = 0;
        told.changes.retain(|change| {
            let found = state.hidden.iter().position(|prefix| change.key().starts_with(prefix));
            found.map(|at| state.hidden.remove(at)).inspect(|_| hidden += 1).is_none()
        });
        if hidden > 0 {
            *state.injected.entry("hide_change").or_default() += hidden;
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        self.read(self.inner.range(request)).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        async move {
            if self.shared.gate.borrow().unreachable {
                return Err(BackendError::unknown("the backend is out of reach"));
            }
            let Some(fault) = self.shared.fault_for(&txn) else { return self.inner.txn(txn).await };
            self.shared.count(fault.name());
            match fault {
                Fault::LoseAnswer => {
                    // An error is an answer too, and is lost with it.
                    let _ = self.inner.txn(txn).await;
                }
                Fault::Drop => {}
                Fault::ApplyLate(after) => self.apply_late(txn, after),
                Fault::Refuse => return Err(BackendError::NotApplied("a fault was injected".to_owned())),
            }
            Err(BackendError::unknown("a fault was injected"))
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        async move {
            let gate = self.shared.gate.subscribe();
            let cuts = gate.borrow().cuts;
            let inner = self.read(self.inner.watch(request)).await?;
            let watcher = Watcher { inner, gate, cuts, shared: Arc::clone(&self.shared) };
            let items = stream::unfold(Some(watcher), |watcher| async move {
                let mut watcher = watcher?;
                let item = watcher.next().await?;
                let open = item.is_ok().then_some(watcher);
                Some((item, open))
            });
            Ok(items.boxed())
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        self.read(self.inner.grant(ttl)).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.read(self.inner.keep_alive(lease)).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.read(self.inner.revoke(lease)).boxed()
    }
}

struct Watcher {
    inner: WatchStream,
    gate: watch::Receiver<Gate>,
    cuts: u64,
    shared: Arc<Shared>,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Changes, BackendError>> {
        loop {
            let gate = *self.gate.borrow_and_update();
            if gate.cuts != self.cuts {
                return Some(Err(BackendError::unknown("the watch was cut")));
            }
            tokio::select! {
                // In this order, so that the same seed gives the same run.
                biased;
                _ = self.gate.changed() => {}
                item = self.inner.next(), if !gate.stalled => {
                    let mut item = item?;
                    if self.shared.drawn(|rates| rates.cut_watch) {
                        self.shared.count("cut_watch");
                        return Some(Err(BackendError::unknown("the watch was cut")));
                    }
                    if let Ok(told) = &mut item {
                        self.shared.hide(told);
                    }
                    return Some(item);
                }
            }
        }
    }
}

impl<B: Host> Host for Faulty<B> {
    fn backend(&self) -> &dyn Backend {
        self
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), BackendError>> {
        self.shared.count("compact");
        self.inner.compact(revision)
    }
}

#[cfg(test)]
mod tests;
