//! A watch stream on one server, and all that came over it, by watch.

use super::answer::blank;
use crate::failure::Failure;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_etcd::proto::mvccpb::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// What a watch delivered. How events were grouped into responses depends on the moment and is not kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivered {
    /// A change.
    Event(Event),
    /// The watch ended, cancelled or overtaken by a compaction.
    Ended { compact_revision: i64, reason: String },
}

/// What came by watch id, in order.
pub type Deliveries = BTreeMap<i64, Vec<Delivered>>;

#[derive(Default)]
struct Seen {
    deliveries: Deliveries,
    /// Answers to requests to open a watch.
    answers: Vec<WatchResponse>,
    /// Responses so far.
    count: u64,
    ended: Option<String>,
}

/// The stream.
pub struct Watched {
    name: &'static str,
    requests: mpsc::Sender<WatchRequest>,
    seen: Arc<(Mutex<Seen>, Notify)>,
}

impl Watched {
    /// Opens the stream. A server may begin its answer only when it has something to say, so nobody waits for that here.
    pub fn open(name: &'static str, channel: Channel) -> Self {
        let (requests, stream) = mpsc::channel(16);
        let seen = Arc::<(Mutex<Seen>, Notify)>::default();
        let reader = seen.clone();
        tokio::spawn(async move {
            let ended = match WatchClient::new(channel).watch(ReceiverStream::new(stream)).await {
                Ok(responses) => read(responses.into_inner(), &reader).await,
                Err(status) => status,
            };
            locked(&reader).ended = Some(ended.to_string());
            reader.1.notify_waiters();
        });
        Self { name, requests, seen }
    }

    /// Opens a watch and waits for the answer.
    pub async fn create(&self, request: WatchCreateRequest) -> Result<WatchResponse, Failure> {
        let before = self.look(|seen| seen.answers.len())?;
        self.send(RequestUnion::CreateRequest(request)).await?;
        loop {
            let news = self.seen.1.notified();
            if let Some(answer) = self.look(|seen| seen.answers.get(before).cloned())? {
                return Ok(answer);
            }
            news.await;
        }
    }

    /// Asks for the end of a watch.
    pub async fn cancel(&self, watch_id: i64) -> Result<(), Failure> {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await
    }

    /// All that came, by watch.
    pub fn deliveries(&self) -> Result<Deliveries, Failure> {
        self.look(|seen| seen.deliveries.clone())
    }

    /// How many responses came: the stream is quiet while it does not grow.
    pub fn count(&self) -> Result<u64, Failure> {
        self.look(|seen| seen.count)
    }

    fn look<T>(&self, f: impl FnOnce(&Seen) -> T) -> Result<T, Failure> {
        let seen = locked(&self.seen);
        match &seen.ended {
            Some(why) => Err(Failure::StreamEnded { name: self.name, why: why.clone() }),
            None => Ok(f(&seen)),
        }
    }

    async fn send(&self, request: RequestUnion) -> Result<(), Failure> {
        let request = WatchRequest { request_union: Some(request) };
        let gone = |_| Failure::StreamEnded { name: self.name, why: "it takes no requests any more".to_owned() };
        self.requests.send(request).await.map_err(gone)
    }
}

fn locked(seen: &(Mutex<Seen>, Notify)) -> MutexGuard<'_, Seen> {
    seen.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what comes, at once, so that no server ever has to hold back; returns why nothing comes any more.
async fn read(mut responses: Streaming<WatchResponse>, seen: &(Mutex<Seen>, Notify)) -> Status {
    loop {
        match responses.message().await {
            Ok(Some(response)) => locked(seen).take(response),
            Ok(None) => return Status::ok("without a reason"),
            Err(status) => return status,
        }
        seen.1.notify_waiters();
    }
}

impl Seen {
    fn take(&mut self, mut response: WatchResponse) {
        self.count += 1;
        if response.created {
            blank(&mut response.header);
            self.answers.push(response);
            return;
        }
        let delivered = self.deliveries.entry(response.watch_id).or_default();
        delivered.extend(response.events.into_iter().map(Delivered::Event));
        if response.canceled {
            let (compact_revision, reason) = (response.compact_revision, response.cancel_reason);
            delivered.push(Delivered::Ended { compact_revision, reason });
        }
    }
}
