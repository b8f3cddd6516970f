//! What may be concluded from what etcd or the connection said.
//!
//! Pure. The class comes from etcd's message: its gRPC codes lie (law 10). Whatever is
//! not in the table is unknown.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use etcd_client::Error;

use crate::backend::{BackendError, Class, LeaseId, Revision, Txn, rules};

/// Messages with a certain meaning. etcd has many more; they mean *unknown*.
const TABLE: &[(&str, Class)] = &[
    // Judged before the request is proposed, or when it is applied, by every member alike.
    ("etcdserver: key is not provided", Class::Invalid),
    ("etcdserver: key not found", Class::Invalid),
    ("etcdserver: value is provided", Class::Invalid),
    ("etcdserver: lease is provided", Class::Invalid),
    ("etcdserver: too many operations in txn request", Class::Invalid),
    ("etcdserver: duplicate key given in txn request", Class::Invalid),
    ("etcdserver: invalid sort option", Class::Invalid),
    ("etcdserver: request is too large", Class::Invalid),
    ("etcdserver: too large lease TTL", Class::Invalid),
    ("etcdserver: permission denied", Class::Invalid),
    ("etcdserver: user name is empty", Class::Invalid),
    ("etcdserver: authentication failed, invalid user ID or password", Class::Invalid),
    ("etcdserver: mvcc: required revision is a future revision", Class::Invalid),
    ("etcdserver: mvcc: required revision has been compacted", Class::Relist),
    ("etcdserver: requested lease not found", Class::LeaseLost),
    // Turned away at the door: nothing was proposed.
    ("etcdserver: no leader", Class::NotApplied),
    ("etcdserver: too many requests", Class::NotApplied),
    ("etcdserver: not capable", Class::NotApplied),
    ("etcdserver: rpc not supported for learner", Class::NotApplied),
    ("etcdserver: invalid auth token", Class::NotApplied),
    ("etcdserver: revision of auth store is old", Class::NotApplied),
    ("raft proposal dropped", Class::NotApplied),
];

/// Messages of a member that another member may not share.
const THE_MEMBERS: &[&str] = &[
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "raft proposal dropped",
];

/// The class of a message of etcd's.
pub(super) fn class_of(message: &str) -> Class {
    // gRPC itself refuses a request above etcd's limit with room for its envelope.
    if message.contains("received message larger than max") {
        return Class::Invalid;
    }
    TABLE.iter().find(|(known, _)| *known == message).map_or(Class::Unknown, |(_, class)| *class)
}

/// A call that failed, before it is known what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer in time.
    TimedOut(Duration),
    /// The client's error; its status, if it has one, may be etcd's word.
    Client(Box<Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(Box::new(error))
    }
}

impl Failure {
    /// etcd's own message, if there is one.
    fn message(&self) -> Option<&str> {
        match self {
            Self::TimedOut(_) => None,
            Self::Client(error) => match error.as_ref() {
                Error::GRpcStatus(status) => Some(status.message()),
                _ => None,
            },
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::TimedOut(_) => Class::Unknown,
            Self::Client(error) => match error.as_ref() {
                Error::GRpcStatus(status) => class_of(status.message()),
                // The keeper's word for TTL 0.
                Error::LeaseKeepAliveError(message) if message == "lease not found" => Class::LeaseLost,
                Error::InvalidArgs(_) | Error::InvalidUri(_) => Class::Invalid,
                _ => Class::Unknown,
            },
        }
    }

    /// Whether the connection was refused, so that nothing was sent.
    pub(super) fn was_not_sent(&self) -> bool {
        let Self::Client(error) = self else { return false };
        let Error::GRpcStatus(status) = error.as_ref() else { return false };
        let mut source = status.source();
        while let Some(cause) = source {
            if cause
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
            {
                return true;
            }
            source = cause.source();
        }
        false
    }

    /// Whether the answer is larger than what is taken into memory: any member's would be.
    pub(super) fn is_too_large(&self) -> bool {
        self.message().is_some_and(|message| message.contains("decoded message length too large"))
    }

    /// Whether another member may do better: this one is gone, slow or alone.
    pub(super) fn is_the_members(&self) -> bool {
        match self.message() {
            Some(message) if message.starts_with("etcdserver:") || message.starts_with("raft") => {
                THE_MEMBERS.iter().any(|of_member| message.starts_with(of_member))
            }
            // The transport's words, or none at all.
            _ => !self.is_too_large() && self.class() == Class::Unknown,
        }
    }

    /// The waist's error for a request that names no lease and no revision.
    pub(super) fn plain(self) -> BackendError {
        self.into_error(LeaseId(0), 0)
    }

    /// ... that reads or watches at a revision, which is therefore gone if etcd says so.
    pub(super) fn at_revision(self, revision: Revision) -> BackendError {
        self.into_error(LeaseId(0), revision + 1)
    }

    /// ... about one lease.
    pub(super) fn of_lease(self, lease: LeaseId) -> BackendError {
        self.into_error(lease, 0)
    }

    /// ... that puts keys on leases. etcd does not say which of them is gone, so that
    /// only the single lease of a request can be named; 0 is nobody's.
    pub(super) fn of_txn(self, txn: &Txn) -> BackendError {
        self.into_error(rules::only_lease(txn).unwrap_or(LeaseId(0)), 0)
    }

    fn into_error(self, lease: LeaseId, compacted: Revision) -> BackendError {
        let class = self.class();
        let text = self.message().map_or_else(|| self.to_string(), str::to_owned);
        match class {
            Class::Invalid => BackendError::Invalid(text),
            Class::NotApplied => BackendError::NotApplied(text),
            Class::Relist => BackendError::Compacted(compacted),
            Class::LeaseLost => BackendError::LeaseLost(lease),
            Class::Unknown => match self {
                Self::TimedOut(_) => BackendError::unknown(text),
                Self::Client(error) => BackendError::Unknown { reason: text, source: Some(error) },
            },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(after) => write!(f, "none within {after:?}"),
            Self::Client(error) => error.fmt(f),
        }
    }
}

/// The error of a watch that etcd cancelled, with its reason.
pub(super) fn of_cancelled_watch(compact_revision: Revision, reason: &str) -> BackendError {
    if compact_revision > 0 {
        return BackendError::Compacted(compact_revision);
    }
    // The reason may be a status in words: "rpc error: code = … desc = <message>".
    let message = reason.rsplit("desc = ").next().unwrap_or(reason);
    match class_of(message) {
        Class::Invalid => BackendError::Invalid(message.to_owned()),
        Class::NotApplied => BackendError::NotApplied(message.to_owned()),
        Class::Relist => BackendError::Compacted(compact_revision),
        Class::LeaseLost | Class::Unknown => BackendError::unknown(format!("watch cancelled: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_comes_from_the_message() {
        let table = [
            ("etcdserver: request timed out", Class::Unknown),
            ("etcdserver: request timed out, possibly due to previous leader failure", Class::Unknown),
            ("etcdserver: request timed out, possibly due to connection lost", Class::Unknown),
            ("etcdserver: request timed out, waiting for the applied index took too long", Class::Unknown),
            ("etcdserver: leader changed", Class::Unknown),
            ("etcdserver: server stopped", Class::Unknown),
            ("etcdserver: request canceled", Class::Unknown),
            ("etcdserver: context deadline exceeded", Class::Unknown),
            ("etcdserver: corrupt cluster", Class::Unknown),
            ("etcdserver: unhealthy cluster", Class::Unknown),
            // No space may still mean that it was applied.
            ("etcdserver: mvcc: database space exceeded", Class::Unknown),
            ("transport error", Class::Unknown),
            ("", Class::Unknown),
            ("something nobody has heard of", Class::Unknown),
            ("etcdserver: revision of auth store is old", Class::NotApplied),
            ("etcdserver: invalid auth token", Class::NotApplied),
            ("etcdserver: too many requests", Class::NotApplied),
            ("etcdserver: no leader", Class::NotApplied),
            ("etcdserver: duplicate key given in txn request", Class::Invalid),
            ("etcdserver: too many operations in txn request", Class::Invalid),
            ("etcdserver: request is too large", Class::Invalid),
            ("grpc: received message larger than max (3000000 vs. 2097152)", Class::Invalid),
            ("etcdserver: permission denied", Class::Invalid),
            ("etcdserver: key not found", Class::Invalid),
            ("etcdserver: mvcc: required revision has been compacted", Class::Relist),
            ("etcdserver: requested lease not found", Class::LeaseLost),
        ];
        for (message, class) in table {
            assert_eq!(class_of(message), class, "{message}");
        }
    }

    #[test]
    fn a_cancelled_watch_says_whether_to_relist() {
        assert!(matches!(of_cancelled_watch(7, ""), BackendError::Compacted(7)));
        let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(of_cancelled_watch(0, denied).class(), Class::Invalid);
        assert_eq!(of_cancelled_watch(0, "").class(), Class::Unknown);
    }

    #[test]
    fn a_timeout_is_unknown_and_the_members_fault() {
        let failure = Failure::TimedOut(Duration::from_secs(5));
        assert!(failure.is_the_members() && !failure.was_not_sent());
        assert_eq!(failure.plain().class(), Class::Unknown);
    }
}
