//! Watches of everything from the first revision on, carried from node to node where one ends.

use super::Shared;
use super::session::connect;
use crate::translate;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_kv::Event;
use quorate_sim::witness::Notice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// After a node that could not be reached.
const PAUSE: Duration = Duration::from_millis(20);

/// A watch that is told nothing for so long looks whether the run is over.
const LOOK_UP: Duration = Duration::from_millis(500);

/// How long a stream may take to be opened.
const OPENED_WITHIN: Duration = Duration::from_secs(2);

/// An open stream. It ends when the sender is dropped.
struct Stream {
    _requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

async fn open(endpoint: &str, from: u64) -> Option<Stream> {
    let channel = connect(endpoint).await?;
    let create = WatchCreateRequest {
        key: bytes::Bytes::from_static(&[0]),
        range_end: bytes::Bytes::from_static(&[0]),
        start_revision: from as i64,
        ..Default::default()
    };
    let (requests, taken) = mpsc::channel(1);
    requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.ok()?;
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let opened = tokio::time::timeout(OPENED_WITHIN, client.watch(ReceiverStream::new(taken))).await;
    Some(Stream { _requests: requests, responses: opened.ok()?.ok()?.into_inner() })
}

/// Follows everything, first at one node, until everything up to the last revision was told.
pub async fn follow(shared: Arc<Shared>, first: usize) -> Vec<Notice> {
    let (mut notices, mut seen, mut at) = (Vec::new(), 0, first);
    let over = |seen: u64| {
        let last = shared.last_revision.load(Ordering::Relaxed);
        last > 0 && seen >= last
    };
    while !over(seen) {
        let endpoint = &shared.endpoints[at % shared.endpoints.len()];
        at += 1;
        let Some(mut stream) = open(endpoint, seen + 1).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        while !over(seen) {
            match tokio::time::timeout(LOOK_UP, stream.responses.message()).await {
                Err(_) => {}
                Ok(Ok(Some(response))) if !response.canceled => {
                    let events: Vec<Event> = response.events.into_iter().map(translate::event).collect();
                    if let Some(last) = events.last() {
                        seen = last.kv.mod_revision.0;
                        notices.push(Notice { at_us: shared.now_us(), events });
                    }
                }
                Ok(_) => break,
            }
        }
    }
    let last = shared.last_revision.load(Ordering::Relaxed);
    for notice in &mut notices {
        notice.events.retain(|event| event.kv.mod_revision.0 <= last);
    }
    notices.retain(|notice| !notice.events.is_empty());
    notices
}

/// Everything up to a revision, as one new watch is told it.
pub async fn up_to(endpoint: &str, revision: u64) -> Option<Vec<Event>> {
    let mut stream = open(endpoint, 1).await?;
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.kv.mod_revision.0 < revision) {
        events.extend(stream.responses.message().await.ok()??.events.into_iter().map(translate::event));
    }
    events.retain(|event| event.kv.mod_revision.0 <= revision);
    Some(events)
}
