//! What the controller writes to the registry: the owner, and definitions' policies.
//!
//! It never touches a task that runs; that is the assigner's (law 7). It creates the
//! one task of a singleton, and removes tasks only where a deleted definition asked
//! for that (`purge.rs`).

mod pages;
mod policy;
mod purge;

use std::sync::Arc;

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
use tokio::sync::watch;

pub use bellows_registry::backend::{BackendError, Class};
use policy::Verdict;
pub use purge::{Left, Pass, Running};

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
    /// Nobody knows yet whose registry it is.
    #[error(
        "the registry was not reached since the operator started: it may be another cluster's, and nothing is written to it"
    )]
    NotClaimed,
    /// What the registry says of itself was written by a newer version.
    #[error("the registry was written by a newer version of Bellows; it is left as it is")]
    Newer(#[source] DecodeError),
    /// A policy that this version cannot read, and therefore leaves alone.
    #[error(
        "the policy of {definition} in the registry is not readable by this version of Bellows ({why}), and is left as it is: run the version that wrote it, or delete its key in etcd, {key}"
    )]
    Unreadable {
        /// Whose policy.
        definition: DefinitionId,
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: DecodeError,
    },
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
            Self::NotClaimed => "not_claimed",
            Self::Newer(_) => "newer_format",
            Self::Unreadable { .. } => "unreadable",
            Self::Contended(_) => "contended",
        }
    }
}

/// The registry, as the controller uses it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    backend: DynBackend,
    space: Keyspace,
    /// Whose registry this is, once it was claimed. Nothing else is written before.
    owner: Arc<watch::Sender<Option<String>>>,
}

/// How often a lost race for a policy is run again before it is an error.
const TRIES: usize = 4;

/// How the registry took what a definition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Established {
    /// It says the same now.
    Said,
    /// It knows a newer generation, or that this one was deleted: nothing was changed.
    Superseded {
        /// The registry's generation.
        generation: i64,
    },
}

/// How the registry took that a definition was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It says so, by the policy that was written at this revision.
    At(Revision),
    /// The name has another life, or what is there is newer: nothing was changed, and
    /// nothing there is ours to remove.
    Superseded,
}

/// A policy and `open`, as read at one moment.
struct Found {
    policy: Option<PolicyRecord>,
    /// The policy's mod-revision; 0 if there is none.
    seen: Revision,
    open: Option<OpenRecord>,
}

impl Registry {
    /// The registry under `space`.
    pub fn new(backend: DynBackend, space: Keyspace) -> Self {
        Self { backend, space, owner: Arc::default() }
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
        if let Some(found) = first(&answer.answers).filter(|_| !answer.succeeded) {
            self.owned_by(&found.value, owner)?;
        }
        self.owner.send_if_modified(|known| known.replace(owner.to_owned()).is_none());
        Ok(())
    }

    /// Waits until the registry was claimed.
    pub async fn claimed(&self) {
        // The sender is ours, so it does not end before we do.
        let _ = self.owner.subscribe().wait_for(Option::is_some).await;
    }

    /// The owner, without which nothing is written.
    fn ours(&self) -> Result<String, RegistryError> {
        self.owner.borrow().clone().ok_or(RegistryError::NotClaimed)
    }

    /// Whether the registry is `owner`'s, or nobody's yet; another's is an error. Writes
    /// nothing.
    pub async fn belongs_to(&self, owner: &str) -> Result<(), RegistryError> {
        let meta = KeyRange::one(self.space.path(&Key::Meta));
        let found = self.backend.range(RangeRequest::new(meta)).await?.entries;
        let Some(entry) = found.first() else { return Ok(()) };
        self.owned_by(&entry.value, owner)
    }

    fn owned_by(&self, meta: &Bytes, ours: &str) -> Result<(), RegistryError> {
        let MetaRecord { owner, .. } = MetaRecord::decode(meta).map_err(RegistryError::Newer)?;
        if owner == ours {
            return Ok(());
        }
        Err(RegistryError::Owner { prefix: self.space.prefix().to_owned(), owner, ours: ours.to_owned() })
    }

    /// Whether the registry answers. Costs one read of one key.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        let meta = KeyRange::one(self.space.path(&Key::Meta));
        self.backend.range(RangeRequest::new(meta)).await?;
        Ok(())
    }

    /// Makes the registry say what the definition says: its policy, whether it accepts
    /// tasks, and a singleton's task. Idempotent. Each step is fenced by the policy as it
    /// was written, so that nothing is done for a definition that has lost it.
    pub async fn establish(
        &self,
        def: &DefinitionId,
        wanted: &PolicyRecord,
    ) -> Result<Established, RegistryError> {
        let owner = self.ours()?;
        for _ in 0..TRIES {
            let found = self.read(def).await?;
            let policy = match policy::decide(found.policy.as_ref(), wanted) {
                Verdict::Superseded { generation } => return Ok(Established::Superseded { generation }),
                Verdict::Same => found.seen,
                Verdict::Write => {
                    if found.policy.is_none() {
                        self.claim(&owner).await?; // an emptied registry has forgotten its owner too
                    }
                    let row = write_policy(&self.space, def, found.seen, wanted);
                    let answer = self.backend.txn(txn(row)).await?;
                    if !answer.succeeded {
                        continue;
                    }
                    answer.revision
                }
            };
            let open = found.open.as_ref();
            if self.set_open(def, wanted, policy, open).await? && self.make(def, wanted, policy).await? {
                return Ok(Established::Said);
            }
        }
        Err(RegistryError::Contended(def.clone()))
    }

    /// Says that the definition was deleted, and in which state it leaves its tasks. No
    /// task is accepted from then on. A later life of the name is left as it is.
    pub async fn retire(&self, def: &DefinitionId, wanted: &PolicyRecord) -> Result<Retired, RegistryError> {
        self.ours()?;
        for _ in 0..TRIES {
            let found = self.read(def).await?;
            let other = found.policy.as_ref().is_some_and(|record| record.uid != wanted.uid);
            let verdict = policy::decide(found.policy.as_ref(), wanted);
            if other || matches!(verdict, Verdict::Superseded { .. }) {
                return Ok(Retired::Superseded);
            }
            // Closed first: whoever reads the state sees no open definition any more.
            if found.open.is_some() && !self.sent(close_definition(&self.space, def, found.seen)).await? {
                continue;
            }
            if verdict == Verdict::Same {
                return Ok(Retired::At(found.seen));
            }
            let answer = self.backend.txn(txn(write_policy(&self.space, def, found.seen, wanted))).await?;
            if answer.succeeded {
                return Ok(Retired::At(answer.revision));
            }
        }
        Err(RegistryError::Contended(def.clone()))
    }

    /// Retires a definition of which nobody but the registry knows any more what it says: its
    /// tasks are retained. Nothing is done where the registry does not know this life.
    pub async fn retain(&self, def: &DefinitionId, uid: &str) -> Result<Retired, RegistryError> {
        self.ours()?; // not even believed: it may be another cluster's
        let known = self.read(def).await?.policy.filter(|record| record.uid == uid);
        let Some(known) = known else { return Ok(Retired::Superseded) };
        let state = match known.state {
            PolicyState::Active => PolicyState::Retained,
            retired => retired,
        };
        self.retire(def, &PolicyRecord { state, ..known }).await
    }

    /// Opens or closes as the definition's mode says. Answers whether the policy was still
    /// the one written at `policy`.
    async fn set_open(
        &self,
        def: &DefinitionId,
        wanted: &PolicyRecord,
        policy: Revision,
        open: Option<&OpenRecord>,
    ) -> Result<bool, RegistryError> {
        // A write that changes nothing would still wake every watcher.
        match wanted.policy.mode {
            Mode::Active | Mode::Hold if open.is_some_and(|open| open.uid == wanted.uid) => Ok(true),
            Mode::Active | Mode::Hold => {
                let record = OpenRecord { uid: wanted.uid.clone() };
                self.sent(open_definition(&self.space, def, policy, &record)).await
            }
            Mode::HoldAndDrain if open.is_none() => Ok(true),
            Mode::HoldAndDrain => self.sent(close_definition(&self.space, def, policy)).await,
        }
    }

    /// Makes a singleton's task, if it is one and has none. Answers as `set_open` does.
    async fn make(
        &self,
        def: &DefinitionId,
        wanted: &PolicyRecord,
        policy: Revision,
    ) -> Result<bool, RegistryError> {
        if wanted.policy.trigger != Trigger::Singleton {
            return Ok(true);
        }
        let record = TaskRecord {
            slot: Entropy::system().result_slot(),
            published: clock::wall(),
            delay: None,
            headers: std::collections::BTreeMap::new(),
            options: bellows_registry::record::TaskOptions::default(),
            payload: Bytes::new(),
        };
        let answer = self.backend.txn(txn(put_singleton(&self.space, def, policy, &record))).await?;
        let unchanged = first(&answer.answers).is_some_and(|entry| entry.mod_revision == policy);
        Ok(answer.succeeded || unchanged)
    }

    async fn read(&self, def: &DefinitionId) -> Result<Found, RegistryError> {
        let keys = [Key::Policy(def.clone()), Key::Open(def.clone())];
        let paths = keys.each_ref().map(|key| self.space.path(key));
        let then = paths.iter().map(|path| Op::Get(KeyRange::one(path.clone()))).collect();
        let answer = self.backend.txn(Txn { then, ..Txn::default() }).await?;
        let open = first(&answer.answers[1..]).and_then(|entry| OpenRecord::decode(&entry.value).ok());
        let Some(entry) = first(&answer.answers[..1]) else {
            return Ok(Found { policy: None, seen: 0, open });
        };
        // A version that reads less than is there must not write over it, not even where
        // the definition is newer: what it does not know would be lost without a word.
        let policy = PolicyRecord::decode(&entry.value).map_err(|why| RegistryError::Unreadable {
            definition: def.clone(),
            key: String::from_utf8_lossy(&paths[0]).into_owned(),
            why,
        })?;
        Ok(Found { policy: Some(policy), seen: entry.mod_revision, open })
    }

    /// Whether the move's compares held.
    async fn sent(&self, row: Move) -> Result<bool, RegistryError> {
        Ok(self.backend.txn(txn(row)).await?.succeeded)
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
