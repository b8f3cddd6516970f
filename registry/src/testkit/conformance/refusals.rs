//! What is refused: whole, equally by every backend, and without a trace.

use bytes::Bytes;

use super::stage::{Outcome, Stage, fails, same};
use super::table;
use crate::backend::{Class, Is, LeaseId, Op, PutLease, Txn, limits};
use crate::key::KeyRange;

pub(super) const CHECKS: &[super::Check] = table![
    a_key_is_put_once_in_a_request,
    a_put_and_a_delete_of_one_key_do_not_meet,
    the_steps_of_a_request_are_limited,
    a_request_too_large_is_refused,
    an_empty_key_is_refused_wherever_it_stands,
    keeping_the_lease_of_an_absent_key_is_refused,
    a_put_on_a_lease_that_is_gone_is_refused,
    only_the_branch_taken_is_judged_by_the_state,
];

fn nested(then: Vec<Op>, otherwise: Vec<Op>) -> Op {
    Op::Txn(Txn { compares: vec![], then, otherwise })
}

/// Sends steps which are taken or refused whole, without a trace.
async fn judged(stage: &Stage<'_>, what: &str, steps: Vec<Op>, taken: bool) -> Outcome {
    let before = stage.revision().await?;
    let answer = stage.does(steps).await;
    if taken {
        answer?;
        return Ok(());
    }
    fails(what, answer, Class::Invalid)?;
    same("a refused request takes no revision", &stage.revision().await?, &before)
}

async fn a_key_is_put_once_in_a_request(stage: &Stage<'_>) -> Outcome {
    let put = |name: &str| stage.put(name, "");
    judged(stage, "different keys", vec![put("a"), put("b")], true).await?;
    judged(stage, "twice", vec![put("a"), put("a")], false).await?;
    let siblings = vec![nested(vec![put("a")], vec![]), nested(vec![put("a")], vec![])];
    judged(stage, "in two siblings", siblings, false).await?;
    let untaken = vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])];
    judged(stage, "in a branch not taken", untaken, false).await?;
    let branches = vec![nested(vec![put("a")], vec![put("a")])];
    judged(stage, "in branches that exclude each other", branches, true).await?;
    let deeper = vec![put("a"), nested(vec![nested(vec![put("a")], vec![])], vec![])];
    judged(stage, "on two levels", deeper, false).await
}

async fn a_put_and_a_delete_of_one_key_do_not_meet(stage: &Stage<'_>) -> Outcome {
    let (put, delete) = (|| stage.put("a/1", ""), || stage.delete("a/1"));
    let prefix = || Op::Delete(KeyRange::prefix(stage.key("a/")));
    judged(stage, "put, delete", vec![put(), delete()], false).await?;
    judged(stage, "delete, put", vec![delete(), put()], false).await?;
    judged(stage, "put, delete range", vec![put(), prefix()], false).await?;
    judged(stage, "delete twice", vec![delete(), prefix(), delete()], true).await?;
    judged(stage, "range beside it", vec![prefix(), stage.put("a", "")], true).await?;
    let after = vec![nested(vec![put()], vec![]), nested(vec![delete()], vec![])];
    judged(stage, "put, then a sibling deletes", after, true).await?;
    let before = vec![nested(vec![delete()], vec![]), nested(vec![put()], vec![])];
    judged(stage, "deleted, then a sibling puts", before, false).await?;
    judged(stage, "branches", vec![nested(vec![delete()], vec![put()])], true).await?;
    let above = vec![nested(vec![put()], vec![]), delete()];
    judged(stage, "nested put under a delete", above, false).await?;
    judged(stage, "nested delete under a put", vec![nested(vec![delete()], vec![]), put()], false).await
}

async fn the_steps_of_a_request_are_limited(stage: &Stage<'_>) -> Outcome {
    let puts = |count: usize| (0..count).map(|n| stage.put(&n.to_string(), "")).collect::<Vec<_>>();
    judged(stage, "128 steps", puts(limits::OPS), true).await?;
    judged(stage, "129 steps", puts(limits::OPS + 1), false).await?;
    let batch = |count: usize, compares: usize, steps: usize| {
        let inner = |n: usize| Txn {
            compares: (0..compares).map(|_| stage.is("0", Is::Present)).collect(),
            then: (0..steps).map(|step| stage.put(&format!("{n}-{step}"), "")).collect(),
            otherwise: vec![],
        };
        (0..count).map(|n| Op::Txn(inner(n))).collect::<Vec<_>>()
    };
    for (count, compares, steps, taken) in [
        (125, 1, 3, true),
        (126, 1, 3, false),
        (124, 1, 4, true),
        (123, 5, 5, true),
        (125, 3, 3, true),
        (125, 4, 3, false),
        (1, 128, 0, false),
        (1, 127, 0, true),
    ] {
        let what = format!("{count} × (compares {compares}, steps {steps})");
        judged(stage, &what, batch(count, compares, steps), taken).await?;
    }
    Ok(())
}

async fn a_request_too_large_is_refused(stage: &Stage<'_>) -> Outcome {
    for (bytes, taken) in [(1_000_000, true), (1_499_000, true), (1_500_001, false), (3_000_000, false)] {
        let value = Bytes::from(vec![b'v'; bytes]);
        let put = Op::Put { key: stage.key("a"), value, lease: PutLease::None };
        judged(stage, &format!("{bytes} bytes"), vec![put], taken).await?;
    }
    Ok(())
}

async fn an_empty_key_is_refused_wherever_it_stands(stage: &Stage<'_>) -> Outcome {
    let put = || Op::Put { key: Bytes::new(), value: Bytes::new(), lease: PutLease::None };
    judged(stage, "put", vec![put()], false).await?;
    judged(stage, "nested put", vec![nested(vec![], vec![put()])], false).await?;
    judged(stage, "get", vec![Op::Get(KeyRange::one(Bytes::new()))], false).await?;
    judged(stage, "delete", vec![Op::Delete(KeyRange::one(Bytes::new()))], false).await
}

async fn keeping_the_lease_of_an_absent_key_is_refused(stage: &Stage<'_>) -> Outcome {
    let keep = |name: &str| stage.put_on(name, "", PutLease::Keep);
    judged(stage, "keep", vec![stage.put("other", ""), keep("a")], false).await?;
    same("nothing was applied", &stage.names().await?.len(), &0)?;
    stage.write("a", "").await?;
    judged(stage, "keep of a key without a lease", vec![keep("a")], true).await?;
    same("no lease", &stage.find("a").await?.and_then(|entry| entry.lease), &None)
}

async fn a_put_on_a_lease_that_is_gone_is_refused(stage: &Stage<'_>) -> Outcome {
    let gone = LeaseId(0x1234_5678_9abc);
    let steps = vec![stage.put("other", ""), stage.put_on("a", "", PutLease::On(gone))];
    let before = stage.revision().await?;
    fails("a lease nobody granted", stage.does(steps).await, Class::LeaseLost)?;
    same("nothing was applied", &stage.names().await?.len(), &0)?;
    same("no revision was taken", &stage.revision().await?, &before)
}

async fn only_the_branch_taken_is_judged_by_the_state(stage: &Stage<'_>) -> Outcome {
    let gone = LeaseId(0x1234_5678_9abc);
    let txn = Txn {
        compares: vec![stage.is("a", Is::Present)],
        then: vec![stage.put_on("a", "", PutLease::On(gone)), stage.put_on("b", "", PutLease::Keep)],
        otherwise: vec![stage.put("c", "")],
    };
    stage.txn(txn).await?;
    same("keys", &stage.names().await?.join(" "), &"c".to_owned())
}
