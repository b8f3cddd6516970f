//! Becoming the leader: wait for the leader key to be free, and take it.
//!
//! The key hangs on the candidate's lease, and its mod-revision is the term. A
//! candidate whose write went unanswered finds out from the mirror: the key names its
//! lease.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Assigner;
use crate::backend::{Change, Entry, Revision};
use crate::backoff::Waits;
use crate::clock;
use crate::key::{Key, KeyRange};
use crate::mirror::{Mirror, MirrorEvent};
use crate::record::LeaderRecord;
use crate::session::Session;
use crate::txn::{self, Batch};

/// Who holds the leader key, as far as is known.
enum Holder {
    Unknown,
    Nobody { since: Instant },
    Somebody,
    Us(Revision),
}

/// Campaigns until this session holds the leader key: answers the term. `None` if it
/// was stopped, or lost its lease.
pub(super) async fn campaign(
    assigner: &Assigner,
    session: &Session,
    stop: &CancellationToken,
) -> Option<Revision> {
    let key = assigner.space.path(&Key::Leader(assigner.config.shard));
    let mut mirror = Mirror::new(Arc::clone(&assigner.backend), KeyRange::one(key));
    let mut holder = Holder::Unknown;
    let lost = session.lost();
    // A registry that can be read may refuse writes, for as long as its disk is full: the
    // key is then free at each look.
    let mut waits = Waits::spread_by(assigner.config.identity.as_bytes());
    let mut not_before = clock::instant();
    loop {
        session.tick();
        if let Holder::Us(term) = holder {
            return Some(term);
        }
        if may_take(&holder, assigner) && clock::instant() >= not_before {
            holder = take(assigner, session).await;
            if matches!(holder, Holder::Unknown) {
                not_before = clock::instant() + waits.after_failure();
                // If it was not applied, no change will ever tell: look at the key.
                mirror.relist();
            } else {
                waits.succeeded();
            }
            continue;
        }
        let wake = wake_at(&holder, assigner).max(not_before).min(clock::instant() + session.ttl() / 4);
        tokio::select! {
            () = stop.cancelled() => return None,
            () = lost.cancelled() => return None,
            event = mirror.next() => holder = told(holder, event, session),
            () = sleep_until(wake) => {}
        }
    }
}

fn is_preferred(assigner: &Assigner) -> bool {
    assigner.config.preferred.as_ref().is_none_or(|preferred| *preferred.borrow())
}

/// When a free key may be taken: at once by the preferred candidate, after a while by
/// any other.
fn wake_at(holder: &Holder, assigner: &Assigner) -> Instant {
    match holder {
        Holder::Nobody { since } if is_preferred(assigner) => *since,
        Holder::Nobody { since } => {
            // Look at `preferred` again and again: its change does not wake us.
            (clock::instant() + assigner.config.deference / 20).min(*since + assigner.config.deference)
        }
        Holder::Unknown | Holder::Somebody | Holder::Us(_) => clock::instant() + clock::FAR,
    }
}

fn may_take(holder: &Holder, assigner: &Assigner) -> bool {
    match holder {
        Holder::Nobody { since } => {
            is_preferred(assigner) || clock::instant() >= *since + assigner.config.deference
        }
        _ => false,
    }
}

/// One try to take the free key.
async fn take(assigner: &Assigner, session: &Session) -> Holder {
    let record = LeaderRecord { identity: assigner.config.identity.clone() };
    let mut batch = Batch::default();
    let row = txn::campaign(&assigner.space, assigner.config.shard, session.lease(), &record);
    if batch.push(row).is_err() {
        return Holder::Unknown;
    }
    match assigner.backend.txn(batch.into_txn(None)).await {
        Ok(answer) => {
            let revision = answer.revision;
            let taken = Batch::answers(answer).is_some_and(|all| all.iter().all(|one| one.succeeded));
            if taken { Holder::Us(revision) } else { Holder::Somebody }
        }
        // Whether it was applied, the mirror will tell: if so, the key names our lease.
        Err(error) => {
            tracing::debug!(%error, "a campaign went unanswered");
            Holder::Unknown
        }
    }
}

fn told(before: Holder, event: MirrorEvent, session: &Session) -> Holder {
    let held = |entry: &Entry| match entry.lease == Some(session.lease()) {
        true => Holder::Us(entry.mod_revision),
        false => Holder::Somebody,
    };
    let nobody = || Holder::Nobody { since: clock::instant() };
    match event {
        MirrorEvent::Listed { entries, .. } => entries.first().map_or_else(nobody, held),
        MirrorEvent::Changed(changes) => match changes.changes.last() {
            Some(Change::Put(entry)) => held(entry),
            Some(Change::Delete { .. }) => nobody(),
            None => before,
        },
        // The mirror goes on where it was: nothing of what is known becomes wrong unseen.
        MirrorEvent::Interrupted(_) | MirrorEvent::Resumed => before,
    }
}
