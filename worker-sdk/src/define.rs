//! Definitions in a registry that this process hosts: the records that the operator
//! writes for a `TaskDefinition` on a cluster.

use bellows_registry::backend::{BackendError, Entry, RangeRequest, Revision};
use bellows_registry::id::{DefinitionId, IdError};
use bellows_registry::key::{Key, KeyRange};
use bellows_registry::record::{OpenRecord, PolicyRecord, PolicyState, Record};
use bellows_registry::spec::{Mode, Policy, PolicyError, Trigger};
use bellows_registry::txn::{self, Batch, Move};
use bytes::Bytes;

use crate::client::Bellows;
use crate::definition::{ActivationStrategy, TaskDefinition};
use crate::tasks::Kind;

/// Why a definition could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefineError {
    /// Its name is not allowed.
    #[error("{0}")]
    Name(#[from] IdError),
    /// Its policy contradicts itself.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// Others write the same policy again and again.
    #[error("the policy of {0} is being written by others all the time")]
    Contended(DefinitionId),
    /// The registry does not answer.
    #[error("the registry could not be told")]
    Backend(#[from] BackendError),
}

/// The UID of definitions that no Kubernetes object stands for.
const IN_PROCESS: &str = "in-process";

/// How often a policy is written over one that changed meanwhile.
const TRIES: usize = 5;

impl Bellows {
    /// Defines a kind of work, as the operator does for a `TaskDefinition`. For registries
    /// that this process hosts: on a cluster the operator would write its own over it.
    ///
    /// # Cancel safety
    /// May be half done, and is completed by doing it again.
    pub async fn define<T: TaskDefinition>(&self, policy: Policy) -> Result<(), DefineError> {
        let policy = Policy { trigger: T::Trigger::TRIGGER, ..policy };
        self.define_as(&self.definition::<T>()?, &policy).await
    }

    /// Only where this process hosts the registry. Of a definition that is there already,
    /// what the code states is brought up to date, and the rest stays, if it does not state
    /// the whole.
    pub(crate) async fn define_if_hosted(&self, def: &DefinitionId, kind: &Kind) -> Result<(), DefineError> {
        if self.shared.assigner.is_none() {
            return Ok(());
        }
        let Some(entry) = self.policy_entry(def).await? else {
            return self.define_as(def, &kind.policy).await;
        };
        match PolicyRecord::decode(&entry.value) {
            Ok(standing) if standing.uid == IN_PROCESS => {
                let stated = match kind.is_whole {
                    true => kind.policy.clone(),
                    false => kind.stated.over(&standing.policy, standing.policy.trigger),
                };
                if stated == standing.policy { Ok(()) } else { self.define_as(def, &stated).await }
            }
            // An operator's, or a newer version's: theirs to say.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether this process hosts the registry, and the definition is there.
    pub(crate) async fn hosts(&self, def: &DefinitionId) -> Result<bool, BackendError> {
        Ok(self.shared.assigner.is_some() && self.policy_revision(def).await? > 0)
    }

    async fn define_as(&self, def: &DefinitionId, policy: &Policy) -> Result<(), DefineError> {
        policy.check()?;
        let space = &self.shared.space;
        let uid = IN_PROCESS.to_owned();
        let seen = self.write_policy(def, &uid, policy).await?;
        match policy.mode {
            Mode::Active | Mode::Hold => {
                self.write(txn::open_definition(space, def, seen, &OpenRecord { uid })).await?;
            }
            Mode::HoldAndDrain => {
                self.write(txn::close_definition(space, def, seen)).await?;
            }
        }
        if policy.trigger == Trigger::Singleton {
            self.write(txn::put_singleton(space, def, seen, &self.task_record(Bytes::new()))).await?;
        }
        Ok(())
    }

    /// Answers the revision that wrote it: what follows is fenced by it.
    async fn write_policy(
        &self,
        def: &DefinitionId,
        uid: &str,
        policy: &Policy,
    ) -> Result<Revision, DefineError> {
        for _ in 0..TRIES {
            let seen = self.policy_revision(def).await?;
            let record = PolicyRecord {
                uid: uid.to_owned(),
                generation: seen + 1, // grows with each write
                state: PolicyState::Active,
                policy: policy.clone(),
            };
            let row = txn::write_policy(&self.shared.space, def, seen, &record);
            if let Some(revision) = self.write(row).await? {
                return Ok(revision);
            }
        }
        Err(DefineError::Contended(def.clone()))
    }

    /// The policy's mod-revision; 0 if the definition does not exist.
    pub(crate) async fn policy_revision(&self, def: &DefinitionId) -> Result<Revision, BackendError> {
        Ok(self.policy_entry(def).await?.map_or(0, |entry| entry.mod_revision))
    }

    /// The policy as it is stored.
    async fn policy_entry(&self, def: &DefinitionId) -> Result<Option<Entry>, BackendError> {
        let path = self.shared.space.path(&Key::Policy(def.clone()));
        let found = self.shared.backend.range(RangeRequest::new(KeyRange::one(path))).await?;
        Ok(found.entries.into_iter().next())
    }

    /// The revision of the write, if the move's compares held.
    async fn write(&self, row: Move) -> Result<Option<Revision>, BackendError> {
        let mut batch = Batch::default();
        if batch.push(row).is_err() {
            return Ok(None); // an empty batch takes any move
        }
        let answer = self.shared.backend.txn(batch.into_txn(None)).await?;
        let revision = answer.revision;
        let applied = Batch::answers(answer).is_some_and(|all| all.iter().all(|one| one.succeeded));
        Ok(applied.then_some(revision))
    }
}
