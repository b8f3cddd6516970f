//! Leases: what hangs on them, and what their end does.

use std::time::Duration;

use super::stage::{Outcome, Stage, fails, holds, next, same};
use super::table;
use crate::backend::{Class, PutLease};
use crate::clock;

pub(super) const CHECKS: &[super::Check] = table![
    a_lease_lives_at_least_as_long_as_asked,
    the_keys_of_a_revoked_lease_go_in_one_revision,
    the_keys_of_an_expired_lease_go_in_one_revision,
    a_renewed_lease_lives_on,
    an_ended_lease_is_lost_for_everyone,
    a_put_moves_its_key_to_another_lease_or_none,
    keep_keeps_the_lease,
    a_key_created_again_does_not_hang_on_the_old_lease,
    a_lease_without_keys_ends_without_a_revision,
];

const LONG: Duration = Duration::from_secs(60);

async fn a_lease_lives_at_least_as_long_as_asked(stage: &Stage<'_>) -> Outcome {
    for asked in [Duration::from_millis(1500), Duration::from_secs(7), LONG] {
        let lease = stage.grant(asked).await?;
        holds("granted at least what was asked", lease.ttl >= asked)?;
        same("a renewal grants the same", &stage.keep_alive(lease.id).await?, &lease.ttl)?;
        stage.revoke(lease.id).await?;
    }
    Ok(())
}

async fn the_keys_of_a_revoked_lease_go_in_one_revision(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(LONG).await?;
    for name in ["b", "a", "c"] {
        stage.write_on(name, lease.id).await?;
    }
    let last = stage.write("stays", "").await?;
    let mut watch = stage.watch_from(last + 1).await?;
    stage.revoke(lease.id).await?;
    let told = stage.told(&mut watch, last + 1).await?;
    let expected = ["-a", "-b", "-c"].map(|text| (last + 1, text.to_owned()));
    same("told", &told, &expected.to_vec())?;
    same("keys", &stage.names().await?.join(" "), &"stays".to_owned())
}

async fn the_keys_of_an_expired_lease_go_in_one_revision(stage: &Stage<'_>) -> Outcome {
    let granted = clock::instant();
    let lease = stage.grant(Duration::from_secs(2)).await?;
    stage.write_on("a", lease.id).await?;
    let last = stage.write_on("b", lease.id).await?;
    let mut watch = stage.watch_from(last + 1).await?;
    let told = next(&mut watch).await?;
    holds("not before its time", clock::instant() - granted >= lease.ttl)?;
    let told: Vec<_> = told.changes.iter().map(|change| stage.tell(change)).collect();
    let expected = ["-a", "-b"].map(|text| (last + 1, text.to_owned()));
    same("told", &told, &expected.to_vec())?;
    fails("a renewal", stage.keep_alive(lease.id).await, Class::LeaseLost)
}

async fn a_renewed_lease_lives_on(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(Duration::from_secs(3)).await?;
    stage.write_on("a", lease.id).await?;
    for _ in 0..9 {
        tokio::time::sleep(lease.ttl / 4).await;
        stage.keep_alive(lease.id).await?;
    }
    holds("still there after twice its time", stage.find("a").await?.is_some())?;
    Ok(stage.revoke(lease.id).await?)
}

async fn an_ended_lease_is_lost_for_everyone(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(LONG).await?;
    stage.keep_alive(lease.id).await?;
    stage.revoke(lease.id).await?;
    fails("a renewal", stage.keep_alive(lease.id).await, Class::LeaseLost)?;
    fails("a renewal again", stage.keep_alive(lease.id).await, Class::LeaseLost)?;
    fails("a revocation", stage.revoke(lease.id).await, Class::LeaseLost)?;
    fails("a put", stage.write_on("a", lease.id).await, Class::LeaseLost)
}

async fn a_put_moves_its_key_to_another_lease_or_none(stage: &Stage<'_>) -> Outcome {
    let (first, second) = (stage.grant(LONG).await?, stage.grant(LONG).await?);
    for name in ["freed", "moved", "left"] {
        stage.write_on(name, first.id).await?;
    }
    stage.write("freed", "").await?;
    stage.write_on("moved", second.id).await?;
    same("lease", &stage.find("moved").await?.and_then(|entry| entry.lease), &Some(second.id))?;
    stage.revoke(first.id).await?;
    same("after the first", &stage.names().await?.join(" "), &"freed moved".to_owned())?;
    stage.revoke(second.id).await?;
    same("after the second", &stage.names().await?.join(" "), &"freed".to_owned())
}

async fn keep_keeps_the_lease(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(LONG).await?;
    stage.write_on("a", lease.id).await?;
    stage.does(vec![stage.put_on("a", "new", PutLease::Keep)]).await?;
    let entry = stage.find("a").await?;
    same("lease", &entry.as_ref().and_then(|entry| entry.lease), &Some(lease.id))?;
    same("value", &entry.map(|entry| entry.value.to_vec()), &Some(b"new".to_vec()))?;
    stage.revoke(lease.id).await?;
    same("went with its lease", &stage.names().await?.len(), &0)
}

async fn a_key_created_again_does_not_hang_on_the_old_lease(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(LONG).await?;
    stage.write_on("a", lease.id).await?;
    stage.does(vec![stage.delete("a")]).await?;
    stage.write("a", "").await?;
    stage.revoke(lease.id).await?;
    same("keys", &stage.names().await?.join(" "), &"a".to_owned())
}

async fn a_lease_without_keys_ends_without_a_revision(stage: &Stage<'_>) -> Outcome {
    let lease = stage.grant(LONG).await?;
    let before = stage.revision().await?;
    stage.revoke(lease.id).await?;
    same("revision", &stage.revision().await?, &before)
}
