//! A watch, as a stream of messages: what happened at one revision is one of them.

use super::door::Deadline;
use super::problems;
use super::proto::change::Type;
use super::proto::watch_response::Event as Kind;
use super::proto::{Change, Changed, Created, Progress, WatchRequest, WatchResponse};
use super::translate::key_value;
use crate::answers::Failure;
use crate::feed::{self, Told, Tongue};
use crate::query::range_or_all;
use prost::Message;
use quorate_kv::{Error, Event, EventKind, Unavailable, WatchSpec};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

/// What a client wants to be told.
pub(super) fn wish(request: WatchRequest) -> Result<WatchSpec, Failure> {
    let WatchRequest { keyspace: _, key, prefix, from, to, revision, seen, prev } = request;
    let number = |name: &str, revision: Option<i64>| {
        let broken = |_| Failure::Bad(format!("{name} is a revision, which is never negative"));
        revision.map(u64::try_from).transpose().map_err(broken)
    };
    let (first, seen) = (number("revision", revision)?, number("seen", seen)?);
    feed::spec(range_or_all(key, prefix, from, to)?, first, seen, prev)
}

/// Says it in messages.
pub(super) struct Messages {
    /// Whether changes tell what was there before.
    pub prev: bool,
}

/// Messages that go to the client together.
#[derive(Default)]
pub(super) struct Chunk {
    messages: Vec<Result<WatchResponse, Status>>,
    bytes: usize,
}

impl Messages {
    fn change(&self, event: &Event) -> Change {
        let kind = match event.kind {
            EventKind::Put => Type::Put,
            EventKind::Delete => Type::Delete,
        };
        let mut kv = key_value(&event.kv);
        if event.kind == EventKind::Delete {
            (kv.version, kv.create_revision) = (0, 0);
            kv.value.clear();
        }
        let prev = event.prev.as_ref().filter(|_| self.prev).map(key_value);
        Change { r#type: kind.into(), kv: Some(kv), prev }
    }
}

impl Tongue for Messages {
    type Chunk = Chunk;

    fn say(&self, told: &Told<'_>, chunk: &mut Chunk) {
        let (upto, event) = match told {
            Told::Created { told, revision } => (told, Kind::Created(Created { revision: revision.0 as i64 })),
            Told::Changed { revision, changes } => {
                let changes = changes.iter().map(|event| self.change(event)).collect();
                (revision, Kind::Changed(Changed { revision: revision.0 as i64, changes }))
            }
            Told::Progress { revision } => (revision, Kind::Progress(Progress { revision: revision.0 as i64 })),
            Told::Compacted { oldest } => return chunk.messages.push(Err(problems::compacted(*oldest))),
            Told::Stopping => {
                return chunk.messages.push(Err(problems::status(&Failure::Core(Unavailable::Stopping.into()))));
            }
        };
        let message = WatchResponse { told: upto.0 as i64, event: Some(event) };
        chunk.bytes += message.encoded_len().max(1);
        chunk.messages.push(Ok(message));
    }

    fn bytes(chunk: &Chunk) -> usize {
        chunk.bytes
    }
}

/// The stream of a watch's messages, until the client's deadline.
pub struct Responses {
    chunks: mpsc::Receiver<Chunk>,
    taken: IntoIter<Result<WatchResponse, Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Responses {
    pub(super) fn new(chunks: mpsc::Receiver<Chunk>, deadline: Deadline) -> Self {
        let deadline = deadline.0.map(|deadline| Box::pin(sleep_until(deadline)));
        Self { chunks, taken: Vec::new().into_iter(), deadline }
    }
}

impl Stream for Responses {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            // Behind this there is nothing more.
            self.deadline = None;
            self.chunks.close();
            let late = Failure::Core(Error::Unavailable(Unavailable::Timeout));
            return Poll::Ready(Some(Err(problems::status(&late))));
        }
        loop {
            if let Some(message) = self.taken.next() {
                return Poll::Ready(Some(message));
            }
            match self.chunks.poll_recv(cx) {
                Poll::Ready(Some(chunk)) => self.taken = chunk.messages.into_iter(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Teller, WATCH};
    use crate::grpc::problem_of;
    use quorate_kv::{KeyRange, KeyValue, LeaseId, Revision, WatchNotice};
    use std::time::Duration;
    use tokio::time::Instant;
    use tokio_stream::StreamExt;
    use tonic::Code;

    fn event(kind: EventKind, key: &'static str, revision: u64) -> Event {
        let (create_revision, mod_revision) = (Revision(2), Revision(revision));
        let (value, lease) = ("v".into(), LeaseId::NONE);
        let kv = KeyValue { key: key.into(), value, create_revision, mod_revision, version: 1, lease };
        Event { kind, prev: (kind == EventKind::Delete).then(|| kv.clone()), kv }
    }

    async fn told(notice: WatchNotice, prev: bool) -> Vec<Result<WatchResponse, Status>> {
        let spec = feed::spec(KeyRange::all(), Some(3), None, prev).expect("a wish");
        let (teller, chunks) = Teller::new(Messages { prev }, &spec);
        let _ = teller.tell(notice).await;
        drop(teller);
        Responses::new(chunks, Deadline(None)).collect().await
    }

    #[tokio::test]
    async fn what_happened_at_one_revision_is_one_message() {
        let events = [event(EventKind::Put, "a", 5), event(EventKind::Delete, "b", 5), event(EventKind::Put, "c", 7)];
        let notice = WatchNotice::Events { id: WATCH, revision: Revision(9), events: events.into() };
        let messages = told(notice, true).await;
        let changed = messages.iter().map(|message| match message {
            Ok(WatchResponse { told, event: Some(Kind::Changed(Changed { revision, changes })) }) => {
                assert_eq!(told, revision);
                let change =
                    |change: &Change| (change.r#type(), change.kv.clone().map(|kv| kv.key), change.prev.is_some());
                (*revision, changes.iter().map(change).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        });
        let change = |kind, key: &'static str, prev| (kind, Some(key.into()), prev);
        let at_five = vec![change(Type::Put, "a", false), change(Type::Delete, "b", true)];
        assert_eq!(changed.collect::<Vec<_>>(), [(5, at_five), (7, vec![change(Type::Put, "c", false)])]);
    }

    #[tokio::test]
    async fn it_says_from_where_to_go_on_and_why_it_ends() {
        let created = told(WatchNotice::Created { id: WATCH, revision: Revision(9) }, false).await;
        let expected = WatchResponse { told: 2, event: Some(Kind::Created(Created { revision: 9 })) };
        assert_eq!(created[0].as_ref().expect("a message"), &expected, "what is between is still to be told");
        let (revision, compacted) = (Revision(9), Revision(6));
        let ended = told(WatchNotice::Compacted { id: WATCH, revision, compacted }, false).await;
        let status = ended[0].as_ref().expect_err("the end");
        assert_eq!((status.code(), problem_of(status).expect("a problem").compacted), (Code::OutOfRange, 6));
        let ended = told(WatchNotice::Closed, false).await;
        assert_eq!(problem_of(ended[0].as_ref().expect_err("the end")).expect("a problem").reason, "stopping");
    }

    #[tokio::test]
    async fn it_ends_when_the_client_waits_no_longer() {
        let (_feed, chunks) = mpsc::channel(1);
        let mut responses = Responses::new(chunks, Deadline(Some(Instant::now() + Duration::from_millis(10))));
        let status = responses.next().await.expect("the end").expect_err("too late");
        assert_eq!(problem_of(&status).expect("a problem").reason, "timeout");
        assert!(responses.next().await.is_none());
    }

    #[test]
    fn who_comes_back_goes_on_behind_what_it_has_seen() {
        let start = |revision, seen| {
            let request = WatchRequest { revision, seen, ..WatchRequest::default() };
            wish(request).map(|spec| spec.start.map(|start| start.0)).ok()
        };
        assert_eq!(start(None, None), Some(None));
        assert_eq!(start(Some(3), None), Some(Some(3)));
        assert_eq!(start(Some(3), Some(17)), Some(Some(18)));
        assert_eq!(start(None, Some(0)), Some(Some(1)));
        for broken in [(Some(0), None), (Some(-1), None), (None, Some(-1))] {
            assert_eq!(start(broken.0, broken.1), None, "{broken:?}");
        }
        let range = |key: &'static str, prefix: Option<&'static str>| {
            wish(WatchRequest { key: Some(key.into()), prefix: prefix.map(Into::into), ..WatchRequest::default() })
        };
        assert!(range("k", None).is_ok() && range("", None).is_err() && range("k", Some("k")).is_err());
    }
}
