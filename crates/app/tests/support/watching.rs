//! One watch stream, step by step.

use super::{PATIENCE, connect};
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Time in which nothing that should not come has come.
const QUIET: Duration = Duration::from_millis(300);

pub struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watching {
    pub async fn on(endpoint: &str) -> Self {
        let (requests, taken) = mpsc::channel(16);
        let channel = connect(endpoint).await.expect("a connection");
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let responses = client.watch(ReceiverStream::new(taken)).await.expect("a stream").into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.expect("the stream stands");
    }

    pub async fn create(&self, request: WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(request)).await;
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub async fn ask_progress(&self) {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    pub async fn next(&mut self) -> WatchResponse {
        let next = timeout(PATIENCE, self.responses.message()).await.expect("a response in time");
        next.expect("no error").expect("the stream goes on")
    }

    /// Creates a watch and takes the answer, which must be that it stands.
    pub async fn created(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.create(request).await;
        let created = self.next().await;
        assert!(created.created && !created.canceled && created.events.is_empty(), "{created:?}");
        created
    }

    /// Says that there are no more requests, which ends the stream.
    pub async fn close(mut self) {
        drop(self.requests);
        let end = timeout(PATIENCE, self.responses.message()).await.expect("an end in time");
        assert!(end.expect("no error").is_none(), "nothing comes after the end");
    }

    /// Why the stream ends.
    pub async fn end(&mut self) -> Status {
        let end = timeout(PATIENCE, self.responses.message()).await.expect("an end in time");
        end.expect_err("the stream ends with a status")
    }

    pub async fn is_quiet(&mut self) {
        if let Ok(response) = timeout(QUIET, self.responses.message()).await {
            panic!("nothing should come: {response:?}");
        }
    }
}
