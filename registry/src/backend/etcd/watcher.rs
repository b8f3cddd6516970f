//! One watch, from the request to its end.
//!
//! Ends with an error and never resumes by itself: only the mirror knows what it has
//! taken in.

use std::time::Duration;

use etcd_client::proto::PbEvent;
use etcd_client::{
    EventType, WatchClient, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures::{Stream, stream};
use tokio::time::timeout;

use super::assemble::{Assembler, Message};
use super::errors::{self, Failure};
use super::pool::Pool;
use super::wire;
use crate::backend::{BackendError, Change, Changes, WatchRequest};

struct Watcher {
    requests: WatchRequestSender,
    messages: WatchResponseStream,
    assembler: Assembler,
    progress: Duration,
}

/// Opens a watch and waits until etcd has confirmed it.
pub(super) async fn open(
    pool: &Pool<WatchClient>,
    request: WatchRequest,
    progress: Duration,
) -> Result<impl Stream<Item = Result<Changes, BackendError>> + Send + 'static, BackendError> {
    let from = request.from.max(1);
    let mut options = WatchOptions::new().with_start_revision(from).with_progress_notify().with_fragment();
    if !request.range.end.is_empty() {
        options = options.with_range(request.range.end.to_vec());
    }
    let call = |mut client: WatchClient| {
        let (key, options) = (request.range.start.to_vec(), options.clone());
        async move {
            let mut opened = client.watch(key, Some(options)).await?;
            let created = opened.message().await?;
            Ok((opened, created))
        }
    };
    let (opened, created) = pool.call(call).await.map_err(|failure| failure.at_revision(from))?;
    match created {
        Some(message) if message.canceled() => {
            return Err(errors::of_cancelled_watch(message.compact_revision(), message.cancel_reason()));
        }
        Some(message) if message.created() => {}
        Some(_) | None => return Err(BackendError::unknown("etcd did not confirm the watch")),
    }
    let (requests, messages) = opened.split();
    let watcher = Watcher { requests, messages, assembler: Assembler::new(from), progress };
    Ok(stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(changes) => Some((Ok(changes), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl Watcher {
    async fn next(&mut self) -> Result<Changes, BackendError> {
        loop {
            let message = match timeout(self.progress, self.messages.message()).await {
                Ok(message) => message.map_err(|error| Failure::from(error).plain())?,
                Err(_) => {
                    // No answer is no sign: etcd keeps silent while nothing was written
                    // since the watch began. The connection has pings of its own.
                    self.requests.request_progress().await.map_err(|error| Failure::from(error).plain())?;
                    continue;
                }
            };
            let Some(message) = message else {
                return Err(BackendError::unknown("etcd ended the watch"));
            };
            if message.canceled() {
                return Err(errors::of_cancelled_watch(message.compact_revision(), message.cancel_reason()));
            }
            if let Some(changes) = self.assembler.push(parts(message)?)? {
                return Ok(changes);
            }
        }
    }
}

fn parts(message: WatchResponse) -> Result<Message, BackendError> {
    let header = message.header().map_or(0, etcd_client::ResponseHeader::revision);
    let fragment = message.0.fragment;
    let changes = message.0.events.into_iter().map(change).collect::<Result<_, _>>()?;
    Ok(Message { header, fragment, changes })
}

fn change(event: PbEvent) -> Result<Change, BackendError> {
    let kind = EventType::try_from(event.r#type);
    match (kind, event.kv) {
        (Ok(EventType::Put), Some(kv)) => Ok(Change::Put(wire::entry(kv))),
        (Ok(EventType::Delete), Some(kv)) => {
            Ok(Change::Delete { key: kv.key.into(), revision: kv.mod_revision })
        }
        _ => Err(BackendError::unknown("a watch told something that is no change")),
    }
}
