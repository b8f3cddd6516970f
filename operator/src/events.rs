//! Events on TaskDefinitions, for people: `kubectl describe td`.
//!
//! | Reason | Type | When |
//! |---|---|---|
//! | `Scaled` | Normal | the number of pods was changed |
//! | `SignalLost` | Warning | no fresh view of the registry for three seconds: the number of pods is frozen |
//! | `Invalid`, `ForeignDeployment` | Warning | the definition is not acted on |
//! | `RegistryUnavailable`, `RegistryForeign`, `RegistryUnreadable`, `ApplyFailed` | Warning | a step failed, and is tried again |
//! | `TasksRetained`, `TasksDrained`, `TasksPurged` | Normal | the definition was deleted; what became of its tasks |
//! | `TasksRetained` | Warning | it was deleted, and its tasks stay because it cannot be read, or the registry knows it better |
//! | `TasksAbandoned` | Warning | it was deleted, and its tasks could not be dealt with in time |

//!
//! Nobody waits for an event to be written: it goes into a bounded queue, and one that
//! finds the queue full is dropped. They are for people, and nothing depends on them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Takes events for [`Writer`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Spoken>,
}

/// An event and what it is about.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) object: ObjectReference,
    pub(crate) said: Said,
}

/// Writes what was said, one event after the other; failing to is logged, and no more.
pub struct Writer {
    recorder: Recorder,
    queue: mpsc::Receiver<Spoken>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

/// Events that wait to be written.
const QUEUE: usize = 256;
/// A write without an answer for so long is given up.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the last words may take once the operator stops.
const FAREWELL: Duration = Duration::from_secs(2);

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

/// What the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

/// Events reported as `bellows.dev/operator`, from this pod.
pub fn channel(client: Client, pod: &str) -> (Events, Writer) {
    let reporter = Reporter { controller: "bellows.dev/operator".to_owned(), instance: Some(pod.to_owned()) };
    let (events, queue) = Events::queue(QUEUE);
    (events, Writer { recorder: Recorder::new(client, reporter), queue })
}

impl Events {
    pub(crate) fn queue(capacity: usize) -> (Self, mpsc::Receiver<Spoken>) {
        let (sender, queue) = mpsc::channel(capacity);
        (Self { queue: sender }, queue)
    }

    /// Says something about an object. Never waits.
    pub fn say(&self, object: &ObjectReference, said: Said) {
        let reason = said.reason;
        if self.queue.try_send(Spoken { object: object.clone(), said }).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait to be written");
        }
    }
}

impl Writer {
    /// Runs until `stop`, then writes what is left, if that is quick.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                spoken = self.queue.recv() => match spoken {
                    Some(spoken) => self.write(spoken).await,
                    None => return,
                },
            }
        }
        let last = async {
            while let Ok(spoken) = self.queue.try_recv() {
                self.write(spoken).await;
            }
        };
        if tokio::time::timeout(FAREWELL, last).await.is_err() {
            tracing::debug!("the last events were not written in time");
        }
    }

    async fn write(&self, Spoken { object, said }: Spoken) {
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
        match tokio::time::timeout(REQUEST, self.recorder.publish(&event, &object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason = said.reason, "an event was not recorded"),
            Err(_) => tracing::debug!(reason = said.reason, "an event was not recorded in time"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn saying_never_waits_and_what_finds_no_room_is_dropped() {
        let (events, mut queue) = Events::queue(2);
        for n in 0..5 {
            events.say(&ObjectReference::default(), normal("Scaled", "Scale", n.to_string()));
        }
        drop(events);
        let mut notes = Vec::new();
        while let Some(spoken) = queue.recv().await {
            notes.push(spoken.said.note);
        }
        assert_eq!(notes, ["0", "1"]);
    }
}
