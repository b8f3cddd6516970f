//! W3C trace context: one trace from whoever publishes to whoever handles.
//!
//! A task carries its publisher's `traceparent` as a header. The attempt is a span of that
//! trace, and what its handler publishes carries the attempt as the parent. The ids are
//! our own: a trace that begins with a task has the task's id, and an attempt's span has
//! the attempt's id, so that one can be looked up by the other.

use std::fmt;
use std::str::FromStr;

use bellows_registry::id::{AttemptId, TaskId};
use bellows_registry::record::AssignmentRecord;
use bellows_registry::txn::AttemptRef;

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Its companion, passed on untouched.
pub(crate) const TRACESTATE: &str = "tracestate";

/// A place in a trace: W3C's `traceparent`.
///
/// ```
/// use bellows_sdk::TraceParent;
///
/// let parent: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert!(parent.is_sampled());
/// # Ok::<(), bellows_sdk::TraceParentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("00-<32 hex digits, not all zero>-<16 hex digits, not all zero>-<2 hex digits>, in lower case")]
pub struct TraceParentError;

impl TraceParent {
    /// The trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span: 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The beginning of a trace for a task that nobody traces.
    pub(crate) fn of_task(task: TaskId) -> Self {
        let bits = task.bits().max(1); // a singleton's are zero
        let span = (bits as u64) ^ ((bits >> 64) as u64);
        Self { trace: bits, span: span.max(1), flags: 0 }
    }

    /// The attempt as a span of this trace.
    pub(crate) fn attempt(self, attempt: AttemptId) -> Self {
        Self { span: attempt.bits().max(1), ..self }
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        // A later version may have more fields after these; the first ones stay.
        let (head, rest) = text.split_at_checked(55).ok_or(TraceParentError)?;
        let fields: Vec<&str> = head.split('-').collect();
        let [version, trace, span, flags] = fields[..] else { return Err(TraceParentError) };
        let version = hex(version, 2)?;
        if version == 0xff || !(rest.is_empty() || (version > 0 && rest.starts_with('-'))) {
            return Err(TraceParentError);
        }
        let (trace, span) = (hex(trace, 32)?, hex(span, 16)? as u64);
        if trace == 0 || span == 0 {
            return Err(TraceParentError);
        }
        Ok(Self { trace, span, flags: hex(flags, 2)? as u8 })
    }
}

fn hex(text: &str, digits: usize) -> Result<u128, TraceParentError> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let right = text.len() == digits && text.bytes().all(lower);
    right.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or(TraceParentError)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

/// The place in a trace that the publisher gave a task.
pub(crate) fn parent(record: &AssignmentRecord, task: TaskId) -> TraceParent {
    let given = record.headers.get(TRACEPARENT).and_then(|text| text.parse().ok());
    // Another program's task may have none, or a bad one: it is no reason not to run it.
    given.unwrap_or_else(|| TraceParent::of_task(task))
}

/// The span in which a handler runs.
pub(crate) fn span(at: &AttemptRef, record: &AssignmentRecord, parent: TraceParent) -> tracing::Span {
    tracing::info_span!(
        "attempt",
        definition = %at.definition,
        task = %at.task,
        attempt = %at.attempt,
        number = record.number,
        trace_id = parent.trace_id(),
        span_id = parent.attempt(at.attempt).span_id(),
        parent_span_id = parent.span_id(),
    )
}

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// The attempt whose handler calls this, if one does.
pub(crate) fn current() -> Option<TraceParent> {
    CURRENT.try_get().ok()
}

/// Runs a handler as an attempt: what it publishes is of the same trace.
pub(crate) async fn within<F: Future>(attempt: TraceParent, handler: F) -> F::Output {
    CURRENT.scope(attempt, handler).await
}

/// As [`within`], for a handler that has a thread.
pub(crate) fn within_thread<R>(attempt: Option<TraceParent>, handler: impl FnOnce() -> R) -> R {
    match attempt {
        Some(attempt) => CURRENT.sync_scope(attempt, handler),
        None => handler(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_its_text_form() {
        let parent: TraceParent = GIVEN.parse().unwrap();
        assert_eq!(parent.to_string(), GIVEN);
        assert_eq!((parent.span_id().as_str(), parent.is_sampled()), ("00f067aa0ba902b7", true));
    }

    #[test]
    fn a_later_version_is_read_by_its_first_fields() {
        let later = GIVEN.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), GIVEN);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let zero = |part: &str, with: &str| GIVEN.replace(part, with);
        for bad in [
            String::new(),
            GIVEN[..54].to_owned(),
            format!("{GIVEN}-more"), // version 00 has nothing more
            GIVEN.replacen("00", "ff", 1),
            GIVEN.to_uppercase(),
            zero("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            zero("00f067aa0ba902b7", &"0".repeat(16)),
            GIVEN.replace('-', "_"),
            "ä".repeat(40),
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn an_attempt_is_a_span_of_the_same_trace_with_the_attempts_own_id() {
        let attempt = GIVEN.parse::<TraceParent>().unwrap().attempt(AttemptId::from_bits(7));
        assert_eq!(attempt.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    }
}
