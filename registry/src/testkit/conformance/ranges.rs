//! Ranges: bounds, order, limits, old revisions.

use bytes::Bytes;

use super::stage::{Outcome, Stage, fails, holds, same};
use super::table;
use crate::backend::{Class, Entry, Op, PutLease, RangeRequest};
use crate::key::KeyRange;

pub(super) const CHECKS: &[super::Check] = table![
    a_range_is_half_open_and_in_the_order_of_bytes,
    a_limit_cuts_the_answer_and_says_so,
    an_old_revision_reads_as_it_was,
    a_revision_to_come_cannot_be_read,
    a_compacted_revision_asks_for_a_relist,
    an_entry_tells_its_revisions,
    a_key_that_was_deleted_begins_a_new_life,
    any_bytes_make_a_key_and_a_value,
    a_range_without_keys_is_refused,
    a_read_sees_every_write_answered_before_it,
];

async fn a_range_is_half_open_and_in_the_order_of_bytes(stage: &Stage<'_>) -> Outcome {
    for name in ["b", "ab", "a", "c", "abc", "b/1"] {
        stage.write(name, "").await?;
    }
    same("all", &stage.names().await?.join(" "), &"a ab abc b b/1 c".to_owned())?;
    let range = KeyRange { start: stage.key("ab"), end: stage.key("b/1") };
    let found = stage.range(RangeRequest::new(range)).await?;
    same("half open", &stage.short(&found).join(" "), &"ab abc b".to_owned())?;
    let found = stage.range(RangeRequest::new(stage.one("a"))).await?;
    same("one key", &stage.short(&found).join(" "), &"a".to_owned())?;
    same("nothing", &stage.find("nothing").await?, &None)
}

async fn a_limit_cuts_the_answer_and_says_so(stage: &Stage<'_>) -> Outcome {
    for name in ["a", "b", "c"] {
        stage.write(name, "").await?;
    }
    for (limit, count, more) in [(0, 3, false), (1, 1, true), (2, 2, true), (3, 3, false), (9, 3, false)] {
        let request = RangeRequest { limit, ..RangeRequest::new(stage.all()) };
        let found = stage.range(request).await?;
        same(&format!("limit {limit}"), &(found.entries.len(), found.more), &(count, more))?;
    }
    Ok(())
}

async fn an_old_revision_reads_as_it_was(stage: &Stage<'_>) -> Outcome {
    let first = stage.write("a", "1").await?;
    let second = stage.write("b", "1").await?;
    let third = stage.does(vec![stage.delete("a"), stage.put("b", "2")]).await?.revision;
    for (revision, expected) in [(first, "a"), (second, "a b"), (third, "b")] {
        let request = RangeRequest { revision: Some(revision), ..RangeRequest::new(stage.all()) };
        let found = stage.range(request).await?;
        same("keys", &stage.short(&found).join(" "), &expected.to_owned())?;
        holds("the answer names the newest revision", found.revision >= third)?;
    }
    Ok(())
}

async fn a_revision_to_come_cannot_be_read(stage: &Stage<'_>) -> Outcome {
    let now = stage.revision().await?;
    let request = RangeRequest { revision: Some(now + 1000), ..RangeRequest::new(stage.all()) };
    fails("a future revision", stage.range(request).await, Class::Invalid)
}

async fn a_compacted_revision_asks_for_a_relist(stage: &Stage<'_>) -> Outcome {
    let old = stage.write("a", "1").await?;
    let newer = stage.write("a", "2").await?;
    stage.host.compact(newer).await?;
    let at = |revision| RangeRequest { revision: Some(revision), ..RangeRequest::new(stage.all()) };
    fails("before the compaction", stage.range(at(old)).await, Class::Relist)?;
    same("at the compaction", &stage.range(at(newer)).await?.entries.len(), &1)?;
    fails("compacted again", stage.host.compact(newer).await, Class::Relist)?;
    fails("compacted ahead", stage.host.compact(newer + 1000).await, Class::Invalid)
}

async fn an_entry_tells_its_revisions(stage: &Stage<'_>) -> Outcome {
    let created = stage.write("a", "1").await?;
    let written = stage.write("a", "2").await?;
    let expected = Entry {
        key: stage.key("a"),
        value: Bytes::from_static(b"2"),
        create_revision: created,
        mod_revision: written,
        lease: None,
    };
    same("entry", &stage.find("a").await?, &Some(expected))
}

async fn a_key_that_was_deleted_begins_a_new_life(stage: &Stage<'_>) -> Outcome {
    stage.write("a", "1").await?;
    stage.does(vec![stage.delete("a")]).await?;
    same("deleted", &stage.find("a").await?, &None)?;
    let again = stage.write("a", "2").await?;
    same("created again", &stage.find("a").await?.map(|entry| entry.create_revision), &Some(again))
}

async fn any_bytes_make_a_key_and_a_value(stage: &Stage<'_>) -> Outcome {
    let mut key = stage.key("").to_vec();
    key.extend([0, 255, b'\n', 0]);
    let (key, value) = (Bytes::from(key), Bytes::from((0..=255).collect::<Vec<u8>>()));
    stage.does(vec![Op::Put { key: key.clone(), value: value.clone(), lease: PutLease::None }]).await?;
    let found = stage.range(RangeRequest::new(KeyRange::one(key.clone()))).await?;
    let found: Vec<_> = found.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    same("read back", &found, &vec![(key, value)])
}

async fn a_range_without_keys_is_refused(stage: &Stage<'_>) -> Outcome {
    let empty = RangeRequest::new(KeyRange::one(Bytes::new()));
    fails("an empty key", stage.range(empty).await, Class::Invalid)?;
    let upside_down = KeyRange { start: stage.key("b"), end: stage.key("a") };
    fails("upside down", stage.range(RangeRequest::new(upside_down)).await, Class::Invalid)
}

async fn a_read_sees_every_write_answered_before_it(stage: &Stage<'_>) -> Outcome {
    for n in 0..50 {
        let written = stage.write("a", &n.to_string()).await?;
        let found = stage.find("a").await?;
        same("mod revision", &found.map(|entry| entry.mod_revision), &Some(written))?;
    }
    Ok(())
}
