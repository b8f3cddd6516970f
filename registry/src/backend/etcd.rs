//! The etcd backend: `etcd-client` behind the waist. No other folder knows the crate.
//!
//! Adds to the client what it leaves to its users: failover between members, a
//! time-out on every request, whole revisions, and error classes by etcd's message.
//!
//! # Guarantees
//! * Every call answers within [`EtcdConfig::request_timeout`], once per member that
//!   refuses the connection, and once more for each part of a range that is too large.
//! * A watch delivers whole revisions only, and is cut off from a member without a
//!   leader instead of hanging there.
//!
//! # Caveats
//! * A request is never repeated here, unless the connection was refused before it was
//!   sent. Whether to repeat is for the caller to know.
//! * Requests, watches and leases use a connection each: a slow watch must not stop
//!   writes, nor a burst of writes a renewal.
//! * When a transaction uses several leases and one is gone, etcd does not say which:
//!   the error then names lease 0.
//! * A watch from a revision not yet written tells no progress until it is (etcd).

mod assemble;
mod errors;
mod leases;
mod pool;
mod watcher;
mod wire;

use std::fmt;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, KvClient, WatchClient};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use self::errors::Failure;
use self::leases::Leases;
use self::pool::Pool;
use super::{
    Backend, BackendError, Lease, LeaseId, RangeAnswer, RangeRequest, Revision, Txn, TxnAnswer, WatchRequest,
    WatchStream, limits, rules,
};

/// How to reach etcd, and how long to wait for it.
#[derive(Clone)]
pub struct EtcdConfig {
    /// The members' client URLs. One is used at a time; the next one when it fails.
    pub endpoints: Vec<String>,
    /// User name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long a request may take; then its outcome is unknown.
    pub request_timeout: Duration,
    /// How often a connection with an open watch or renewal is tried, and how long the
    /// answer may take. etcd closes a connection that asks more often than every 5 s.
    pub ping: (Duration, Duration),
    /// A watch that has been silent this long asks how far it is complete.
    pub progress: Duration,
}

impl EtcdConfig {
    /// The defaults for these members.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: limits::REQUEST_TIMEOUT,
            ping: (Duration::from_secs(10), Duration::from_secs(3)),
            progress: Duration::from_secs(30),
        }
    }
}

/// Whether this is a client URL of a member that can be reached.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence that begins with the URL.
pub fn check_endpoint(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("http://");
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/')) {
        Ok(())
    } else if url.starts_with("https://") {
        Err("cannot be reached: TLS to etcd is not supported yet: use http://")
    } else {
        Err("is not a URL such as http://bellows-etcd.bellows:2379")
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Watch messages of any size a member may send: one catch-up message has held 100 000 events.
const WATCH_LIMIT: usize = 256 * 1024 * 1024;
/// The largest answer to a request that is taken into memory. A range that has a limit is
/// answered in part before it is larger.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A registry in etcd.
pub struct EtcdBackend {
    config: EtcdConfig,
    requests: Pool<KvClient>,
    watches: Pool<WatchClient>,
    leases: Leases,
}

impl EtcdBackend {
    /// A backend for these members. Connects at the first call, so that a process can
    /// start while etcd is away.
    pub fn new(config: EtcdConfig) -> Result<Self, BackendError> {
        if config.endpoints.is_empty() {
            return Err(BackendError::Invalid("no etcd endpoint was given".to_owned()));
        }
        for url in &config.endpoints {
            check_endpoint(url).map_err(|problem| BackendError::Invalid(format!("{url} {problem}")))?;
        }
        Ok(Self {
            requests: Pool::new(&config, |client| client.kv_client().max_decoding_message_size(ANSWER_LIMIT)),
            watches: Pool::new(&config, |client| {
                client.watch_client().max_decoding_message_size(WATCH_LIMIT)
            }),
            leases: Leases::new(&config),
            config,
        })
    }

    /// Forgets history before `revision`, on the whole etcd cluster.
    pub async fn compact(&self, revision: Revision) -> Result<(), BackendError> {
        let call = |mut kv: KvClient| async move { kv.compact(revision, None).await };
        self.requests.call(call).await.map_err(|failure| failure.at_revision(revision))?;
        Ok(())
    }

    /// A range, or as much of it as may be in memory at once.
    async fn get(&self, mut request: RangeRequest) -> Result<RangeAnswer, BackendError> {
        rules::check_range(&request.range)?;
        loop {
            match self.get_at_once(&request).await {
                Ok(answer) => return wire::range_answer(answer.0),
                // Not to 0: that would be all.
                Err(failure) if failure.is_too_large() && request.limit > 1 => {
                    request.limit = (request.limit / 4).max(1);
                }
                Err(failure) => return Err(failure.at_revision(request.revision.unwrap_or(0).max(0))),
            }
        }
    }

    async fn get_at_once(&self, request: &RangeRequest) -> Result<GetResponse, Failure> {
        let mut options = GetOptions::new()
            .with_revision(request.revision.unwrap_or(0).max(0))
            .with_limit(i64::try_from(request.limit).unwrap_or(i64::MAX));
        if !request.range.end.is_empty() {
            options = options.with_range(request.range.end.to_vec());
        }
        let call = |mut kv: KvClient| {
            let (key, options) = (request.range.start.to_vec(), options.clone());
            async move { kv.get(key, Some(options)).await }
        };
        self.requests.call(call).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnAnswer, BackendError> {
        rules::check_local(&txn)?;
        let call = |mut kv: KvClient| {
            let request = wire::request(&txn);
            async move { kv.txn(request).await }
        };
        let answer = self.requests.call(call).await.map_err(|failure| failure.of_txn(&txn))?;
        wire::txn_answer(answer.0)
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Backend for EtcdBackend {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeAnswer, BackendError>> {
        self.get(request).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnAnswer, BackendError>> {
        self.commit(txn).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream, BackendError>> {
        async move {
            rules::check_range(&request.range)?;
            Ok(watcher::open(&self.watches, request, self.config.progress).await?.boxed())
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, BackendError>> {
        self.leases.grant(ttl).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, BackendError>> {
        self.leases.keep_alive(lease).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.leases.revoke(lease).boxed()
    }
}
