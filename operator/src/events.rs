//! Events on TaskDefinitions, for people: `kubectl describe td`.
//!
//! | Reason | Type | When |
//! |---|---|---|
//! | `Scaled` | Normal | the number of pods was changed |
//! | `SignalLost` | Warning | no fresh view of the registry: the number of pods is frozen |
//! | `Invalid`, `ForeignDeployment` | Warning | the definition is not acted on |
//! | `RegistryUnavailable`, `ApplyFailed` | Warning | a step failed, and is tried again |
//! | `TasksRetained`, `TasksDrained`, `TasksPurged` | Normal | the definition was deleted; what became of its tasks |
//! | `TasksAbandoned` | Warning | it was deleted, and its tasks could not be dealt with in time |

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Writes events; failing to is logged, and no more.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

/// One event, before it has an object.
#[derive(Debug, Clone)]
pub struct Said {
    /// Normal or warning.
    pub kind: EventType,
    /// The reason; stable.
    pub reason: &'static str,
    /// What was being done. Events of one reason and action become a series, with the
    /// first one's note.
    pub action: String,
    /// For people.
    pub note: String,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// What the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

impl Events {
    /// Reports as `bellows-operator`, from this pod.
    pub fn new(client: Client, pod: &str) -> Self {
        let reporter =
            Reporter { controller: "bellows.dev/operator".to_owned(), instance: Some(pod.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Says something about an object.
    pub async fn say(&self, object: &ObjectReference, said: Said) {
        let mut note = said.note;
        if let Some(cut) = (0..=NOTE_MAX).rev().find(|at| note.is_char_boundary(*at)) {
            note.truncate(cut);
        }
        let event = Event {
            type_: said.kind,
            reason: said.reason.to_owned(),
            note: Some(note),
            action: said.action,
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::debug!(%error, reason = said.reason, "an event was not recorded");
        }
    }
}

/// A thing that went as it should.
pub fn normal(reason: &'static str, action: impl Into<String>, note: String) -> Said {
    Said { kind: EventType::Normal, reason, action: action.into(), note }
}

/// A thing that somebody should look at.
pub fn warning(reason: &'static str, action: impl Into<String>, note: String) -> Said {
    Said { kind: EventType::Warning, reason, action: action.into(), note }
}
