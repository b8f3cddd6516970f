//! Which policy wins: pure.

use bellows_registry::record::{PolicyRecord, PolicyState};
use bellows_registry::spec::Policy;

/// What to do about the policy in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ours is news.
    Write,
    /// What is there is as new as ours, or newer.
    Keep,
}

/// A policy is written over a lower generation of the same definition, and over another
/// life of its name: that one's definition is gone, or this one could not exist. Within
/// a generation, a definition only moves on from active to deleted.
pub(super) fn decide(found: Option<&PolicyRecord>, wanted: &PolicyRecord) -> Verdict {
    let Some(found) = found else { return Verdict::Write };
    let newer = found.uid != wanted.uid
        || found.generation < wanted.generation
        || (found.generation == wanted.generation && stage(found.state) < stage(wanted.state));
    if newer { Verdict::Write } else { Verdict::Keep }
}

fn stage(state: PolicyState) -> u8 {
    match state {
        PolicyState::Active => 0,
        PolicyState::Retained | PolicyState::Draining | PolicyState::Purging => 1,
    }
}

/// Stands in for a record that does not parse: anything is written over it.
pub(super) fn unreadable() -> PolicyRecord {
    PolicyRecord { uid: String::new(), generation: -1, state: PolicyState::Active, policy: Policy::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, generation: i64, state: PolicyState) -> PolicyRecord {
        PolicyRecord { uid: uid.to_owned(), generation, state, policy: Policy::default() }
    }

    #[test]
    fn only_news_is_written() {
        use PolicyState::{Active, Purging, Retained};
        let found = record("a", 3, Active);
        for (wanted, verdict) in [
            (record("a", 4, Active), Verdict::Write),
            (record("a", 3, Active), Verdict::Keep),
            (record("a", 2, Active), Verdict::Keep),
            (record("a", 3, Retained), Verdict::Write),
            (record("b", 1, Active), Verdict::Write),
        ] {
            assert_eq!(decide(Some(&found), &wanted), verdict, "{wanted:?}");
        }
        assert_eq!(decide(None, &found), Verdict::Write);
        let deleted = record("a", 3, Purging);
        assert_eq!(decide(Some(&deleted), &found), Verdict::Keep, "the dead do not come back");
    }
}
