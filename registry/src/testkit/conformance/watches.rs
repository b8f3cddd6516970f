//! Watches: whole revisions, in order, none skipped, or an error.

use bytes::Bytes;
use futures::StreamExt;

use super::stage::{Flaw, Outcome, Stage, fails, first_error, holds, next, same};
use super::table;
use crate::backend::{Change, Changes, Class, Op, PutLease, Revision, Txn, WatchRequest};
use crate::key::KeyRange;

pub(super) const CHECKS: &[super::Check] = table![
    a_watch_replays_from_a_past_revision,
    a_watch_hears_of_what_happens_next,
    a_watch_tells_only_its_range,
    a_watch_of_one_key_tells_only_that_key,
    a_watch_from_the_future_skips_what_comes_before,
    a_revision_of_many_keys_comes_in_one_item,
    a_key_put_and_deleted_in_one_request_is_told_twice,
    several_watches_are_told_the_same,
    a_watch_from_a_compacted_revision_asks_for_a_relist,
    a_watch_from_the_compacted_revision_itself_misses_nothing,
    a_watch_that_was_away_while_history_was_compacted_must_relist,
    resuming_between_large_revisions_misses_nothing,
    resuming_a_long_catch_up_misses_nothing,
    a_revision_too_large_for_one_message_comes_whole,
    a_watch_without_keys_is_refused,
];

async fn a_watch_replays_from_a_past_revision(stage: &Stage<'_>) -> Outcome {
    stage.write("a", "0").await?;
    let from = stage.write("a", "1").await?;
    stage.write("b", "1").await?;
    stage.does(vec![stage.delete("a")]).await?;
    let last = stage.write("a", "2").await?;
    let mut watch = stage.watch_from(from).await?;
    let told = stage.told(&mut watch, last).await?;
    let expected = ["+a=1", "+b=1", "-a", "+a=2"].into_iter().zip(from..);
    same("told", &told, &expected.map(|(text, revision)| (revision, text.to_owned())).collect())
}

async fn a_watch_hears_of_what_happens_next(stage: &Stage<'_>) -> Outcome {
    let before = stage.revision().await?;
    let mut watch = stage.watch_from(before + 1).await?;
    for n in 1..=20 {
        let revision = stage.write("a", &n.to_string()).await?;
        let told = stage.told(&mut watch, revision).await?;
        same("told", &told, &vec![(revision, format!("+a={n}"))])?;
    }
    Ok(())
}

async fn a_watch_tells_only_its_range(stage: &Stage<'_>) -> Outcome {
    let from = stage.write("a", "").await?;
    for name in ["b", "b/1", "b0", "c"] {
        stage.write(name, "").await?;
    }
    let prefix = KeyRange::prefix(stage.key("b"));
    let mut watch = stage.watch(WatchRequest { range: prefix, from }).await?;
    let told = stage.told(&mut watch, from + 3).await?;
    let told: Vec<_> = told.into_iter().map(|(_, text)| text).collect();
    same("told", &told.join(" "), &"+b= +b/1= +b0=".to_owned())
}

async fn a_watch_of_one_key_tells_only_that_key(stage: &Stage<'_>) -> Outcome {
    let from = stage.write("b", "").await?;
    let last = stage.does(vec![stage.put("b", "2"), stage.put("bb", ""), stage.put("a", "")]).await?.revision;
    let mut watch = stage.watch(WatchRequest { range: stage.one("b"), from }).await?;
    let told = stage.told(&mut watch, last).await?;
    same("told", &told, &vec![(from, "+b=".to_owned()), (last, "+b=2".to_owned())])
}

async fn a_watch_from_the_future_skips_what_comes_before(stage: &Stage<'_>) -> Outcome {
    let now = stage.revision().await?;
    let mut watch = stage.watch_from(now + 3).await?;
    for n in 1..=4 {
        stage.write("a", &n.to_string()).await?;
    }
    let told = stage.told(&mut watch, now + 4).await?;
    same("told", &told, &vec![(now + 3, "+a=3".to_owned()), (now + 4, "+a=4".to_owned())])
}

async fn a_revision_of_many_keys_comes_in_one_item(stage: &Stage<'_>) -> Outcome {
    let before = stage.revision().await?;
    let mut live = stage.watch_from(before + 1).await?;
    let puts: Vec<_> = (0..100).map(|n| stage.put(&format!("{n:03}"), "")).collect();
    let revision = stage.does(puts).await?.revision;
    for watch in [&mut live, &mut stage.watch_from(before + 1).await?] {
        let told = next(watch).await?;
        same("item", &(told.complete, told.changes.len()), &(revision, 100))?;
    }
    Ok(())
}

async fn a_key_put_and_deleted_in_one_request_is_told_twice(stage: &Stage<'_>) -> Outcome {
    let inner = |op| Op::Txn(Txn { then: vec![op], ..Txn::default() });
    let steps = vec![inner(stage.put("a", "1")), inner(stage.delete("a"))];
    let revision = stage.does(steps).await?.revision;
    let mut watch = stage.watch_from(revision).await?;
    let told = stage.told(&mut watch, revision).await?;
    same("told", &told, &vec![(revision, "+a=1".to_owned()), (revision, "-a".to_owned())])?;
    same("gone", &stage.find("a").await?, &None)
}

async fn several_watches_are_told_the_same(stage: &Stage<'_>) -> Outcome {
    let before = stage.revision().await?;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(stage.watch_from(before + 1).await?);
    }
    let mut last = before;
    for n in 0..30 {
        last = stage.write(&format!("{}", n % 7), &n.to_string()).await?;
    }
    let mut all = Vec::new();
    for watch in &mut watches {
        all.push(stage.told(watch, last).await?);
    }
    same("count", &all[0].len(), &30)?;
    holds("all are equal", all.iter().all(|told| *told == all[0]))
}

async fn a_watch_from_a_compacted_revision_asks_for_a_relist(stage: &Stage<'_>) -> Outcome {
    let old = stage.write("a", "1").await?;
    let newer = stage.write("a", "2").await?;
    stage.host.compact(newer).await?;
    fails("watch", first_error(stage.watch_from(old).await).await, Class::Relist)?;
    let mut watch = stage.watch_from(old).await?;
    let _ = watch.next().await;
    holds("the watch ends after its error", watch.next().await.is_none())
}

async fn a_watch_from_the_compacted_revision_itself_misses_nothing(stage: &Stage<'_>) -> Outcome {
    stage.does(vec![stage.put("a", "1"), stage.put("b", "1")]).await?;
    let at = stage.does(vec![stage.delete("a"), stage.put("b", "2")]).await?.revision;
    let last = stage.write("b", "3").await?;
    stage.host.compact(at).await?;
    let mut watch = stage.watch_from(at).await?;
    let told = stage.told(&mut watch, last).await?;
    let expected = [(at, "-a"), (at, "+b=2"), (last, "+b=3")];
    same("told", &told, &expected.map(|(revision, text)| (revision, text.to_owned())).to_vec())
}

async fn a_watch_that_was_away_while_history_was_compacted_must_relist(stage: &Stage<'_>) -> Outcome {
    let first = stage.write("a", "1").await?;
    let mut watch = stage.watch_from(first).await?;
    let complete = next(&mut watch).await?.complete;
    drop(watch);
    stage.does(vec![stage.delete("a")]).await?;
    let last = stage.write("b", "").await?;
    stage.host.compact(last).await?;
    let resumed = first_error(stage.watch_from(complete + 1).await).await;
    fails("resumed", resumed, Class::Relist)?;
    let mut fresh = stage.watch_from(stage.revision().await? + 1).await?;
    let newest = stage.write("c", "").await?;
    same("after a list", &stage.told(&mut fresh, newest).await?, &vec![(newest, "+c=".to_owned())])
}

/// Reads history in as many watches as there are items: each is dropped after one item,
/// and the next one begins after that item's `complete`. Gives (revision, changes told).
async fn resumed_after_every_item(
    stage: &Stage<'_>,
    from: Revision,
    last: Revision,
) -> Result<Vec<(Revision, usize)>, Flaw> {
    let mut counts: Vec<(Revision, usize)> = Vec::new();
    let mut complete = from - 1;
    while complete < last {
        let mut watch = stage.watch_from(complete + 1).await?;
        let Changes { complete: now, changes } = next(&mut watch).await?;
        holds("a watch moves on", now > complete)?;
        let outside = |change: &Change| change.revision() <= complete || change.revision() > now;
        holds("an item holds only what it completes", !changes.iter().any(outside))?;
        for change in &changes {
            match counts.last_mut() {
                Some((revision, count)) if *revision == change.revision() => *count += 1,
                _ => counts.push((change.revision(), 1)),
            }
        }
        complete = now;
    }
    Ok(counts)
}

async fn resuming_between_large_revisions_misses_nothing(stage: &Stage<'_>) -> Outcome {
    // 1.4 MB a revision: etcd cuts its catch-up message inside of some of them.
    let value = Bytes::from(vec![b'v'; 14_000]);
    let mut written = Vec::new();
    for _ in 0..7 {
        let put =
            |n| Op::Put { key: stage.key(&format!("{n:03}")), value: value.clone(), lease: PutLease::None };
        written.push((stage.does((0..100).map(put).collect()).await?.revision, 100));
    }
    let (first, last) = (written[0].0, written[6].0);
    let resumed = resumed_after_every_item(stage, first, last).await?;
    same("revisions and their changes", &resumed, &written)?;
    let mut watch = stage.watch_from(first).await?;
    let told = stage.told(&mut watch, last).await?;
    same("in one watch", &told.len(), &700)
}

async fn resuming_a_long_catch_up_misses_nothing(stage: &Stage<'_>) -> Outcome {
    // More revisions than etcd sends in one go, while its header names the newest.
    let mut written = Vec::new();
    for n in 0..2500 {
        written.push((stage.write(&format!("{}", n % 10), "").await?, 1));
    }
    let (first, last) = (written[0].0, written[2499].0);
    same("revisions", &resumed_after_every_item(stage, first, last).await?, &written)
}

async fn a_revision_too_large_for_one_message_comes_whole(stage: &Stage<'_>) -> Outcome {
    // Deletes of long keys: one small request whose revision fills several messages.
    const KEYS: usize = 6_000;
    let long = "k".repeat(700);
    let names: Vec<_> = (0..KEYS).map(|n| format!("{n:05}{long}")).collect();
    let mut last = 0;
    for chunk in names.chunks(128) {
        last = stage.does(chunk.iter().map(|name| stage.put(name, "")).collect()).await?.revision;
    }
    let mut live = stage.watch_from(last + 1).await?;
    let deleted = stage.does(vec![Op::Delete(stage.all())]).await?.revision;
    for watch in [&mut live, &mut stage.watch_from(deleted).await?] {
        let mut told = next(watch).await?;
        while told.changes.is_empty() {
            told = next(watch).await?;
        }
        same("item", &(told.complete, told.changes.len()), &(deleted, KEYS))?;
    }
    Ok(())
}

async fn a_watch_without_keys_is_refused(stage: &Stage<'_>) -> Outcome {
    let request = WatchRequest { range: KeyRange::one(Bytes::new()), from: 1 };
    fails("an empty key", first_error(stage.watch(request).await).await, Class::Invalid)
}
