//! Moves of definitions, fence by fence: who has lost a policy changes nothing more.

use super::scene::{Scene, task};
use super::stage::{Outcome, Stage, holds, same};
use super::table;
use crate::backend::OpAnswer;
use crate::record::{OpenRecord, PolicyRecord, PolicyState};
use crate::spec::Policy;
use crate::txn;

pub(super) const CHECKS: &[super::Check] = table![
    who_lost_the_policy_neither_opens_nor_closes_nor_makes_a_singleton,
    a_singletons_task_is_made_once,
];

async fn who_lost_the_policy_neither_opens_nor_closes_nor_makes_a_singleton(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let seen = scene.policy_seen().await?;
    let next = PolicyRecord {
        uid: "v".into(),
        generation: 1,
        state: PolicyState::Active,
        policy: Policy::default(),
    };
    let now = scene.applied(txn::write_policy(&scene.space, &scene.def, seen, &next)).await?;
    let open = |at| txn::open_definition(&scene.space, &scene.def, at, &OpenRecord { uid: "w".into() });
    let close = |at| txn::close_definition(&scene.space, &scene.def, at);
    scene.refused("opened by an old life", open(seen)).await?;
    scene.refused("closed by an old life", close(seen)).await?;
    scene.refused("closed by one that saw no policy", close(0)).await?;
    scene.refused("made by an old life", txn::put_singleton(&scene.space, &scene.def, seen, &task())).await?;
    scene.applied(close(now)).await?;
    scene.applied(open(now)).await?;
    Ok(())
}

async fn a_singletons_task_is_made_once(stage: &Stage<'_>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let policy = scene.policy_seen().await?;
    let make = || txn::put_singleton(&scene.space, &scene.def, policy, &task());
    scene.applied(make()).await?;
    let again = scene.send(make()).await?;
    holds("nothing is made the second time", !again.succeeded)?;
    // The policy is as it was: so it is the task that is there.
    let found = again.answers.into_iter().find_map(|step| match step {
        OpAnswer::Get(found) => found.into_iter().next(),
        _ => None,
    });
    same("policy", &found.map(|entry| entry.mod_revision), &Some(policy))
}
