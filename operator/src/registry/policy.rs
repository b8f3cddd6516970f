//! Which policy wins: pure.

use std::cmp::Ordering;

use bellows_registry::record::{PolicyRecord, PolicyState};

/// What to do about the policy in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ours is news.
    Write,
    /// It says what we say.
    Same,
    /// What is there is newer than ours.
    Superseded {
        /// Its generation.
        generation: i64,
    },
}

/// A policy is written over a lower generation of the same definition, and over another
/// life of its name: that one's definition is gone, or this one could not exist. Within
/// a generation, a definition only moves on from active to deleted; and what a version that
/// knew less made of the same generation is written anew.
pub(super) fn decide(found: Option<&PolicyRecord>, wanted: &PolicyRecord) -> Verdict {
    let Some(found) = found else { return Verdict::Write };
    if found.uid != wanted.uid {
        return Verdict::Write;
    }
    let age = |record: &PolicyRecord| (record.generation, stage(record.state));
    match age(found).cmp(&age(wanted)) {
        Ordering::Less => Verdict::Write,
        Ordering::Equal if found == wanted => Verdict::Same,
        Ordering::Equal => Verdict::Write,
        Ordering::Greater => Verdict::Superseded { generation: found.generation },
    }
}

fn stage(state: PolicyState) -> u8 {
    match state {
        PolicyState::Active => 0,
        PolicyState::Retained | PolicyState::Draining | PolicyState::Purging => 1,
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::spec::{Mode, Policy};

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
            (record("a", 3, Active), Verdict::Same),
            (record("a", 2, Active), Verdict::Superseded { generation: 3 }),
            (record("a", 2, Purging), Verdict::Superseded { generation: 3 }),
            (record("a", 3, Retained), Verdict::Write),
            (record("b", 1, Active), Verdict::Write),
        ] {
            assert_eq!(decide(Some(&found), &wanted), verdict, "{wanted:?}");
        }
        assert_eq!(decide(None, &found), Verdict::Write);
        let deleted = record("a", 3, Purging);
        let dead = Verdict::Superseded { generation: 3 };
        assert_eq!(decide(Some(&deleted), &found), dead, "the dead do not come back");
    }

    #[test]
    fn what_an_older_version_left_out_of_a_generation_is_added() {
        let found = record("a", 3, PolicyState::Active);
        let mut wanted = found.clone();
        wanted.policy.mode = Mode::Hold; // stands for a field that the older version does not know
        assert_eq!(decide(Some(&found), &wanted), Verdict::Write);
    }
}
