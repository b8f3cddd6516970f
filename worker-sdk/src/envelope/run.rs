//! Around a handler: its payload opened before, its result sealed after.

use std::time::Duration;

use bytes::Bytes;

use super::codec::About;
use super::codecs::Codecs;
use super::undecodable::Undecodable;
use crate::follow_up;
use crate::middleware::Stack;
use crate::outcome::TaskError;
use crate::tasks::{Call, Ran};

/// An object store that does not answer is asked again after so long, by another attempt:
/// infrastructure is not the task's fault.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Runs the handler of one attempt.
pub(crate) async fn run(codecs: Codecs, stack: Stack, about: About, call: Call, max_body: usize) -> Ran {
    let (applied, attempt) = (&call.context.envelope.codecs, call.context.attempt);
    let payload = match codecs.open(&about, applied, call.payload.clone()).await {
        Ok(payload) => payload,
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "a payload cannot be fetched now");
            return Ran::Failed(TaskError::snooze(ASK_AGAIN));
        }
        Err(error) => return Ran::Undecodable(Undecodable::Codec(error)),
    };
    let ran = stack.run(Call { payload, ..call }).await;
    let Ran::Succeeded { result, again, mut follow_ups, .. } = ran else { return ran };
    let by = (about.definition(), about.task(), attempt);
    follow_up::seal(&mut follow_ups, &codecs, by, max_body).await;
    if about.task().is_singleton() {
        // Nobody awaits its result.
        return Ran::Succeeded { result: Bytes::new(), codecs: Vec::new(), again, follow_ups };
    }
    let about = About::result(about.definition(), about.task());
    match codecs.seal_in_place(&about, result, max_body).await {
        Ok(sealed) => Ran::Succeeded { result: sealed.body, codecs: sealed.codecs, again, follow_ups },
        Err(error) => Ran::Unencodable(format!("the result cannot be written: {error}")),
    }
}
