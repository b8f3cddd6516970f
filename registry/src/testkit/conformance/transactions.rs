//! Transactions: revisions, compares, nesting, what a step sees.

use futures::future::join_all;

use super::stage::{Flaw, Outcome, Stage, holds, same};
use super::table;
use crate::backend::{Entry, Is, Op, OpAnswer, Txn, TxnAnswer};

pub(super) const CHECKS: &[super::Check] = table![
    a_transaction_that_writes_takes_one_revision,
    a_transaction_that_writes_nothing_takes_no_revision,
    compares_choose_the_branch,
    nested_compares_see_the_state_before_the_request,
    a_lost_fence_does_not_disturb_its_neighbours,
    a_failed_outer_compare_does_nothing,
    steps_see_the_writes_before_them,
    answers_have_the_shape_of_the_branch_taken,
    a_delete_counts_the_keys_that_were_there,
    keys_are_read_without_their_values,
    transactions_sent_together_take_a_revision_each,
];

fn nested(compares: Vec<crate::backend::Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> Op {
    Op::Txn(Txn { compares, then, otherwise })
}

async fn a_transaction_that_writes_takes_one_revision(stage: &Stage<'_>) -> Outcome {
    stage.write("gone", "").await?;
    let before = stage.revision().await?;
    let inner = nested(vec![], vec![stage.put("c", "")], vec![]);
    let steps = vec![stage.put("a", ""), stage.put("b", ""), stage.delete("gone"), inner];
    let answer = stage.does(steps).await?;
    same("revision", &answer.revision, &(before + 1))?;
    for name in ["a", "b", "c"] {
        let entry = stage.find(name).await?.ok_or_else(|| Flaw::new("a key is missing"))?;
        same("mod revision", &entry.mod_revision, &answer.revision)?;
    }
    same("store", &stage.revision().await?, &answer.revision)
}

async fn a_transaction_that_writes_nothing_takes_no_revision(stage: &Stage<'_>) -> Outcome {
    let before = stage.write("a", "").await?;
    let untaken = vec![stage.is("a", Is::Absent)];
    for (what, steps) in [
        ("nothing at all", vec![]),
        ("a read", vec![stage.get_one("a")]),
        ("deleting nothing", vec![stage.delete("b"), stage.get_one("a")]),
        ("a branch not taken", vec![nested(untaken, vec![stage.put("b", "")], vec![])]),
    ] {
        same(what, &stage.does(steps).await?.revision, &before)?;
        same(what, &stage.revision().await?, &before)?;
    }
    Ok(())
}

async fn compares_choose_the_branch(stage: &Stage<'_>) -> Outcome {
    let written = stage.write("a", "").await?;
    for (name, is, held) in [
        ("a", Is::Present, true),
        ("a", Is::Absent, false),
        ("a", Is::At(written), true),
        ("a", Is::At(written - 1), false),
        ("a", Is::At(0), false),
        ("b", Is::Present, false),
        ("b", Is::Absent, true),
        ("b", Is::At(written), false),
        ("b", Is::At(0), true),
    ] {
        let txn = Txn { compares: vec![stage.is(name, is)], then: vec![], otherwise: vec![] };
        same(&format!("{name} {is:?}"), &stage.txn(txn).await?.succeeded, &held)?;
    }
    let both = vec![stage.is("a", Is::Present), stage.is("b", Is::Present)];
    let txn = Txn { compares: both, then: vec![stage.put("t", "")], otherwise: vec![stage.put("e", "")] };
    same("all must hold", &stage.txn(txn).await?.succeeded, &false)?;
    same("else was done", &stage.names().await?.join(" "), &"a e".to_owned())
}

async fn nested_compares_see_the_state_before_the_request(stage: &Stage<'_>) -> Outcome {
    stage.write("gone", "").await?;
    let steps = vec![
        nested(vec![], vec![stage.put("a", ""), stage.delete("gone")], vec![]),
        nested(vec![stage.is("a", Is::Absent)], vec![stage.put("b", "")], vec![]),
        nested(vec![stage.is("gone", Is::Present)], vec![stage.put("c", "")], vec![]),
        nested(
            vec![],
            vec![nested(vec![stage.is("a", Is::Present)], vec![stage.put("d", "")], vec![])],
            vec![],
        ),
    ];
    stage.does(steps).await?;
    same("keys", &stage.names().await?.join(" "), &"a b c".to_owned())
}

async fn a_lost_fence_does_not_disturb_its_neighbours(stage: &Stage<'_>) -> Outcome {
    stage.write("term", "").await?;
    stage.write("taken", "").await?;
    let take = |name: &str| nested(vec![stage.is(name, Is::Absent)], vec![stage.put(name, "")], vec![]);
    let batch = Txn {
        compares: vec![stage.is("term", Is::Present)],
        then: vec![take("x"), take("taken"), take("y")],
        otherwise: vec![],
    };
    let answer = stage.txn(batch).await?;
    let fences: Vec<_> = inner(&answer).map(|inner| inner.succeeded).collect();
    same("fences", &fences, &vec![true, false, true])?;
    same("keys", &stage.names().await?.join(" "), &"taken term x y".to_owned())
}

async fn a_failed_outer_compare_does_nothing(stage: &Stage<'_>) -> Outcome {
    let before = stage.write("a", "").await?;
    let batch = Txn {
        compares: vec![stage.is("a", Is::At(before - 1))],
        then: vec![nested(vec![], vec![stage.put("b", "")], vec![])],
        otherwise: vec![],
    };
    let answer = stage.txn(batch).await?;
    same("answer", &answer, &TxnAnswer { revision: before, succeeded: false, answers: vec![] })
}

fn inner(answer: &TxnAnswer) -> impl Iterator<Item = &TxnAnswer> {
    answer.answers.iter().filter_map(|step| match step {
        OpAnswer::Txn(inner) => Some(inner),
        _ => None,
    })
}

async fn steps_see_the_writes_before_them(stage: &Stage<'_>) -> Outcome {
    let old = stage.write("a", "old").await?;
    stage.write("gone", "").await?;
    let all = || Op::Get(stage.all());
    let steps = vec![
        all(),
        nested(vec![], vec![stage.put("a", "new"), all()], vec![]),
        stage.delete("gone"),
        stage.put("b", ""),
        all(),
    ];
    let answer = stage.does(steps).await?;
    let seen = |step: &OpAnswer| match step {
        OpAnswer::Get(entries) => {
            let short = entries.iter().map(|entry| (entry.key.last().copied(), entry.mod_revision));
            short.collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    let (a, b, gone, now) = (Some(b'a'), Some(b'b'), Some(b'e'), answer.revision);
    same("before", &seen(&answer.answers[0]), &vec![(a, old), (gone, now - 1)])?;
    let within = inner(&answer).next().map(|inner| seen(&inner.answers[1]));
    same("within", &within, &Some(vec![(a, now), (gone, now - 1)]))?;
    same("after", &seen(&answer.answers[4]), &vec![(a, now), (b, now)])
}

async fn answers_have_the_shape_of_the_branch_taken(stage: &Stage<'_>) -> Outcome {
    stage.write("a", "").await?;
    let otherwise = vec![stage.delete("a"), nested(vec![], vec![stage.put("b", "")], vec![])];
    let txn = Txn { compares: vec![stage.is("a", Is::Absent)], then: vec![stage.put("c", "")], otherwise };
    let answer = stage.txn(txn).await?;
    let revision = stage.revision().await?;
    let nested = TxnAnswer { revision, succeeded: true, answers: vec![OpAnswer::Put] };
    let answers = vec![OpAnswer::Delete(1), OpAnswer::Txn(nested)];
    same("answer", &answer, &TxnAnswer { revision, succeeded: false, answers })
}

async fn a_delete_counts_the_keys_that_were_there(stage: &Stage<'_>) -> Outcome {
    for name in ["a/1", "a/2", "b"] {
        stage.write(name, "").await?;
    }
    let prefix = crate::key::KeyRange::prefix(stage.key("a/"));
    let steps = vec![Op::Delete(prefix.clone()), Op::Delete(prefix), stage.delete("b"), stage.delete("c")];
    let answer = stage.does(steps).await?;
    let counts = [2, 0, 1, 0].map(OpAnswer::Delete).to_vec();
    same("counts", &answer.answers, &counts)?;
    same("nothing is left", &stage.names().await?.len(), &0)
}

async fn transactions_sent_together_take_a_revision_each(stage: &Stage<'_>) -> Outcome {
    let before = stage.revision().await?;
    let take = |n: usize| {
        let name = format!("{}", n % 16);
        let compares = vec![stage.is(&name, Is::Absent)];
        stage.txn(Txn { compares, then: vec![stage.put(&name, "")], otherwise: vec![] })
    };
    let answers = join_all((0..64).map(take)).await;
    let mut won = Vec::new();
    for answer in answers {
        let answer = answer?;
        if answer.succeeded {
            won.push(answer.revision);
        }
    }
    won.sort_unstable();
    holds(
        "one of four wins each key, at a revision of its own",
        won == (before + 1..=before + 16).collect::<Vec<_>>(),
    )
}

async fn keys_are_read_without_their_values(stage: &Stage<'_>) -> Outcome {
    stage.does(vec![stage.put("a", "one"), stage.put("b", "two")]).await?;
    let steps = vec![stage.put("c", "three"), Op::Keys(stage.all()), Op::Get(stage.all())];
    let answer = stage.does(steps).await?;
    let [_, OpAnswer::Get(keys), OpAnswer::Get(whole)] = &answer.answers[..] else {
        return Err(Flaw::new(format!("not two reads: {answer:?}")));
    };
    let bare = |entry: &Entry| Entry { value: bytes::Bytes::new(), ..entry.clone() };
    same("as many", &keys.len(), &3)?;
    same("all but the values", keys, &whole.iter().map(bare).collect())
}
