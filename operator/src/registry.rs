//! What the controller writes to the registry: the owner, and definitions' policies.
//!
//! It never touches a task that runs; that is the assigner's (law 7). It creates the
//! one task of a singleton, and removes tasks only where a deleted definition asked
//! for that (`purge.rs`).

mod policy;
mod purge;

use bellows_registry::backend::{DynBackend, Is, Op, OpAnswer, PutLease, RangeRequest, Revision, Txn};
use bellows_registry::clock;
use bellows_registry::entropy::Entropy;
use bellows_registry::id::DefinitionId;
use bellows_registry::key::{Key, KeyRange, Keyspace};
use bellows_registry::record::{
    DecodeError, FORMAT, MetaRecord, OpenRecord, PolicyRecord, PolicyState, Record, TaskRecord,
};
use bellows_registry::spec::{Mode, Trigger};
use bellows_registry::txn::{Move, close_definition, open_definition, put_singleton, write_policy};
use bytes::Bytes;

pub use bellows_registry::backend::{BackendError, Class};
pub use purge::{Left, Running};

/// The registry could not be told.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// etcd did not do it, or did not answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The prefix belongs to another cluster.
    #[error(
        "the registry under {prefix} belongs to another Kubernetes cluster (its kube-system has UID {owner}, ours {ours}): give this installation a prefix or an etcd of its own"
    )]
    Owner {
        /// The prefix.
        prefix: String,
        /// The owner in the registry.
        owner: String,
        /// This cluster.
        ours: String,
    },
    /// Written by a newer version, and therefore left alone.
    #[error("the registry has a record of a newer version of Bellows; it is left as it is")]
    Newer(#[source] DecodeError),
    /// Somebody else kept writing the same key.
    #[error("the policy of {0} kept changing under our hands")]
    Contended(DefinitionId),
}

impl RegistryError {
    /// The word for metric labels and condition reasons.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.class().as_str(),
            Self::Owner { .. } => "foreign_owner",
            Self::Newer(_) => "newer_format",
            Self::Contended(_) => "contended",
        }
    }
}

/// The registry, as the controller uses it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    backend: DynBackend,
    space: Keyspace,
}

/// How often a lost race for a policy is run again before it is an error.
const TRIES: usize = 4;

impl Registry {
    /// The registry under `space`.
    pub fn new(backend: DynBackend, space: Keyspace) -> Self {
        Self { backend, space }
    }

    /// Makes `owner` (the UID of this cluster's `kube-system`) the owner of the
    /// registry, or finds that it is already; another owner is an error.
    pub async fn claim(&self, owner: &str) -> Result<(), RegistryError> {
        let key = self.space.path(&Key::Meta);
        let fresh = MetaRecord { format: FORMAT, owner: owner.to_owned(), generation: 0 };
        let get = || vec![Op::Get(KeyRange::one(key.clone()))];
        let put = Op::Put { key: key.clone(), value: fresh.encode(), lease: PutLease::None };
        let absent = bellows_registry::backend::Compare { key: key.clone(), is: Is::Absent };
        let answer =
            self.backend.txn(Txn { compares: vec![absent], then: vec![put], otherwise: get() }).await?;
        let Some(found) = first(&answer.answers).filter(|_| !answer.succeeded) else { return Ok(()) };
        let meta = MetaRecord::decode(&found.value).map_err(RegistryError::Newer)?;
        if meta.owner == owner {
            return Ok(());
        }
        let prefix = self.space.prefix().to_owned();
        Err(RegistryError::Owner { prefix, owner: meta.owner, ours: owner.to_owned() })
    }

    /// Whether the registry answers. Costs one read of one key.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        let meta = KeyRange::one(self.space.path(&Key::Meta));
        self.backend.range(RangeRequest::new(meta)).await?;
        Ok(())
    }

    /// Makes the registry say what the definition says: its policy, whether it accepts
    /// tasks, and a singleton's task. Idempotent.
    pub async fn establish(&self, def: &DefinitionId, wanted: &PolicyRecord) -> Result<(), RegistryError> {
        self.put_policy(def, wanted).await?;
        match wanted.policy.mode {
            Mode::Active | Mode::Hold => self.open(def, &wanted.uid).await?,
            Mode::HoldAndDrain => self.send(close_definition(&self.space, def)).await?,
        }
        if wanted.policy.trigger == Trigger::Singleton {
            let record = TaskRecord {
                slot: Entropy::system().result_slot(),
                published: clock::wall(),
                delay: None,
                headers: std::collections::BTreeMap::new(),
                options: bellows_registry::record::TaskOptions::default(),
                payload: Bytes::new(),
            };
            self.send(put_singleton(&self.space, def, &record)).await?;
        }
        Ok(())
    }

    /// Says that the definition was deleted, and in which state it leaves its tasks. No
    /// task is accepted from then on.
    pub async fn retire(&self, def: &DefinitionId, wanted: &PolicyRecord) -> Result<(), RegistryError> {
        // Closed first: whoever reads the state sees no open definition any more.
        let (policy, _) = self.read(def).await?;
        if policy.as_ref().is_some_and(|(record, _)| record.uid != wanted.uid) {
            return Ok(()); // the name has begun another life, which is not ours to close
        }
        self.send(close_definition(&self.space, def)).await?;
        self.put_policy(def, wanted).await
    }

    async fn put_policy(&self, def: &DefinitionId, wanted: &PolicyRecord) -> Result<(), RegistryError> {
        for _ in 0..TRIES {
            let (found, _) = self.read(def).await?;
            let (record, seen) = found.map_or((None, 0), |(record, seen)| (Some(record), seen));
            if policy::decide(record.as_ref(), wanted) == policy::Verdict::Keep {
                return Ok(());
            }
            let row = write_policy(&self.space, def, seen, wanted);
            if self.backend.txn(txn(row)).await?.succeeded {
                return Ok(());
            }
        }
        Err(RegistryError::Contended(def.clone()))
    }

    async fn open(&self, def: &DefinitionId, uid: &str) -> Result<(), RegistryError> {
        let (_, open) = self.read(def).await?;
        if open.is_some_and(|open| open.uid == uid) {
            return Ok(()); // a write that changes nothing would still wake every watcher
        }
        self.send(open_definition(&self.space, def, &OpenRecord { uid: uid.to_owned() })).await
    }

    /// The policy with its mod-revision, and the `open` record, at one moment.
    #[allow(clippy::type_complexity, reason = "two records and a revision, read together")]
    async fn read(
        &self,
        def: &DefinitionId,
    ) -> Result<(Option<(PolicyRecord, Revision)>, Option<OpenRecord>), RegistryError> {
        let keys = [Key::Policy(def.clone()), Key::Open(def.clone())];
        let then = keys.iter().map(|key| Op::Get(KeyRange::one(self.space.path(key)))).collect();
        let answer = self.backend.txn(Txn { then, ..Txn::default() }).await?;
        let policy = first(&answer.answers[..1]);
        let policy = match policy.map(|entry| (PolicyRecord::decode(&entry.value), entry.mod_revision)) {
            None => None,
            Some((Ok(record), revision)) => Some((record, revision)),
            Some((Err(newer @ DecodeError::Newer(_)), _)) => return Err(RegistryError::Newer(newer)),
            // Damaged: the definition is the truth, and writes over it.
            Some((Err(_), revision)) => Some((policy::unreadable(), revision)),
        };
        let open = first(&answer.answers[1..]).and_then(|entry| OpenRecord::decode(&entry.value).ok());
        Ok((policy, open))
    }

    async fn send(&self, row: Move) -> Result<(), RegistryError> {
        self.backend.txn(txn(row)).await?;
        Ok(())
    }
}

/// The record of a definition.
pub fn policy_record(
    uid: &str,
    generation: i64,
    state: PolicyState,
    policy: bellows_registry::spec::Policy,
) -> PolicyRecord {
    PolicyRecord { uid: uid.to_owned(), generation, state, policy }
}

fn txn(row: Move) -> Txn {
    Txn { compares: row.compares, then: row.then, otherwise: row.otherwise }
}

fn first(answers: &[OpAnswer]) -> Option<&bellows_registry::backend::Entry> {
    answers.iter().find_map(|answer| match answer {
        OpAnswer::Get(found) => found.first(),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
