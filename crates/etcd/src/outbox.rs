//! Responses of one watch stream on their way to its client, bounded in number and in bytes.
//!
//! Whoever fills an outbox waits until the client has taken something, or has gone.

use crate::options::{RESPONSE_BYTES_QUEUED_MAX, RESPONSES_QUEUED_MAX};
use crate::proto::etcdserverpb::WatchResponse;
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// The client has gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Where responses are put.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// Where they are taken from.
pub(crate) struct Responses(mpsc::Receiver<Queued>);

struct Queued {
    response: Result<WatchResponse, Status>,
    /// Given back when the response is taken; the end of a stream needs none.
    _room: Option<OwnedSemaphorePermit>,
}

pub(crate) fn pair() -> (Outbox, Responses) {
    let (queue, taken) = mpsc::channel(RESPONSES_QUEUED_MAX);
    (Outbox { queue, room: Arc::new(Semaphore::new(RESPONSE_BYTES_QUEUED_MAX)) }, Responses(taken))
}

impl Outbox {
    /// Puts a response, when there is room. One that is larger than all the room waits until it is alone.
    pub async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        let bytes = u32::try_from(response.encoded_len().min(RESPONSE_BYTES_QUEUED_MAX)).unwrap_or(u32::MAX);
        // When the client goes, what it had not taken gives back its room, and nobody waits here for ever.
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        self.queue.send(Queued { response: Ok(response), _room: Some(room) }).await.map_err(|_| Gone)
    }

    /// Ends the stream.
    pub async fn fail(&self, status: Status) {
        // If the client has gone, nobody needs to know why it would have ended.
        let _ = self.queue.send(Queued { response: Err(status), _room: None }).await;
    }

    /// Returns when the client has gone.
    pub async fn gone(&self) {
        self.queue.closed().await;
    }
}

impl Stream for Responses {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|queued| queued.map(|queued| queued.response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mvccpb::{Event, KeyValue};
    use std::time::Duration;
    use tokio::time::timeout;
    use tokio_stream::StreamExt;

    const A_MOMENT: Duration = Duration::from_millis(50);

    fn response(bytes: usize) -> WatchResponse {
        let kv = KeyValue { value: vec![0; bytes].into(), ..Default::default() };
        WatchResponse { events: vec![Event { kv: Some(kv), ..Default::default() }], ..Default::default() }
    }

    /// Fills an outbox; returns how many responses it took.
    async fn fill(outbox: &Outbox, bytes: usize) -> usize {
        let mut sent = 0;
        while timeout(A_MOMENT, outbox.send(response(bytes))).await.is_ok() {
            sent += 1;
        }
        sent
    }

    #[tokio::test]
    async fn an_outbox_takes_so_many_responses_and_so_many_bytes() {
        let (outbox, mut responses) = pair();
        assert_eq!(fill(&outbox, 10).await, RESPONSES_QUEUED_MAX);
        assert!(responses.next().await.is_some());
        assert_eq!(fill(&outbox, 10).await, 1, "one was taken");

        let (outbox, mut responses) = pair();
        assert_eq!(fill(&outbox, RESPONSE_BYTES_QUEUED_MAX / 4).await, 3, "what is around the bytes counts too");
        assert!(responses.next().await.is_some());
        assert_eq!(fill(&outbox, RESPONSE_BYTES_QUEUED_MAX / 4).await, 1, "one was taken");

        let (outbox, _responses) = pair();
        assert_eq!(fill(&outbox, RESPONSE_BYTES_QUEUED_MAX * 4).await, 1, "alone, even the largest fits");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_client_that_has_gone() {
        let (outbox, responses) = pair();
        fill(&outbox, RESPONSE_BYTES_QUEUED_MAX).await;
        let mut waiting = std::pin::pin!(outbox.send(response(1)));
        assert!(timeout(A_MOMENT, waiting.as_mut()).await.is_err(), "there is no room");
        drop(responses);
        assert!(timeout(A_MOMENT, waiting).await.expect("at once").is_err());
        assert!(timeout(A_MOMENT, outbox.gone()).await.is_ok());
    }
}
