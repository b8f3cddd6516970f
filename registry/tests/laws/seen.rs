//! What happened, by name: a history in which nothing goes wrong shows nothing.

use std::collections::BTreeMap;

/// How often each thing happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen(BTreeMap<&'static str, u64>);

/// What has to happen, and at least how often in a hundred histories.
const EXPECTED: &[(&str, u64)] = &[
    ("answers lost", 100),
    ("changes of leaders", 80),
    ("watches lost", 60),
    ("steps refused", 400),
    ("plans that a limit held back", 6000),
    ("given", 1000),
    ("lost", 90),
    ("taken back", 10),
    ("lost for good", 2),
    ("parked", 100),
    ("asked", 500),
    ("asked beside another", 30),
    ("asked of what has ended", 60),
    ("requests dropped", 100),
    ("cancelled", 300),
    ("told to cancel", 10),
    ("expired", 300),
    ("replayed", 30),
    ("purged", 40),
    ("keys held", 800),
    ("replaced", 300),
    ("publishes refused", 500),
    ("follow-ups published", 100),
    ("follow-ups refused", 100),
    ("ends refused by a closed definition", 30),
    ("late ends taken", 30),
    ("late ends refused", 500),
    ("came twice", 300),
    ("progress shown", 100),
    ("progress refused", 200),
    ("checkpoints kept", 100),
    ("checkpoints refused", 200),
    ("checkpoints overtaken", 4),
];

impl Seen {
    pub(crate) fn note(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub(crate) fn merge(&mut self, more: &Self) {
        more.0.iter().for_each(|(what, times)| self.add(what, *times));
    }

    pub(crate) fn times(&self, what: &'static str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Judges whether enough happened in so many histories.
    pub(crate) fn judge(&self, histories: u64) {
        for (what, least) in EXPECTED {
            let times = self.times(what);
            assert!(times * 100 >= least * histories, "hardly anything: {what}, {times} times in {self:?}");
        }
    }
}
