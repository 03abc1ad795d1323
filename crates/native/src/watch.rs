//! `GET /v1/watch/{keyspace}`: what happens in an ordered keyspace, as server-sent events.
//!
//! ```text
//!   core's session ──notices──> feed ──a few chunks──> HTTP body ──> client
//! ```
//!
//! An event with an `id` says that everything up to that revision has been told, so a client that comes back with it, to any node, misses nothing
//! and sees nothing twice. That is why all that happened at one revision is one event. A client that does not take its chunks lets the feed wait:
//! the session's own queue fills, and the core has it read the rest from history later.

use crate::answers::Failure;
use crate::names::keyspace;
use crate::query::{Query, keyspace_of, number};
use crate::reasons::Reason;
use crate::words::{Kv, Text};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use quorate_kv::{
    Db, Error, Event, EventKind, KeyspaceId, Revision, Unavailable, WatchControl, WatchEvents, WatchId, WatchNotice,
    WatchSpec,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;

const ROUTE: &str = "/v1/watch/";

/// The one watch of a session.
const WATCH: WatchId = WatchId(1);

/// Between two marks of progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// Chunks that wait for a slow client; the rest stays in the session's queue, and behind that in history.
const CHUNKS_QUEUED_MAX: usize = 4;

/// Small events go together in a chunk of about this size. What happened at one revision is never cut, and may be larger.
const CHUNK_BYTES: usize = 64 << 10;

/// Under which a client that comes back says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// What happened to one key.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Change {
    Put {
        #[serde(flatten)]
        kv: Kv,
        #[serde(skip_serializing_if = "Option::is_none")]
        prev: Option<Kv>,
    },
    Delete {
        key: Text,
        mod_revision: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        prev: Option<Kv>,
    },
}

impl Change {
    fn of(event: &Event, with_prev: bool) -> Self {
        let prev = event.prev.as_ref().filter(|_| with_prev).map(Kv::from);
        match event.kind {
            EventKind::Put => Self::Put { kv: Kv::from(&event.kv), prev },
            EventKind::Delete => {
                Self::Delete { key: Text::of(&event.kv.key), mod_revision: event.kv.mod_revision.0, prev }
            }
        }
    }
}

/// Writes one event in the form of server-sent events. JSON has no line breaks.
fn write_event(out: &mut String, id: Option<Revision>, name: &str, data: &impl Serialize) {
    let data = serde_json::to_string(data).expect("JSON of our own words");
    if let Some(Revision(id)) = id {
        out.push_str(&format!("id: {id}\n"));
    }
    out.push_str(&format!("event: {name}\ndata: {data}\n\n"));
}

fn write_ending(out: &mut String, reason: Reason, message: String, more: Value) {
    let mut data = json!({ "outcome": reason.outcome(), "reason": reason.name(), "message": message });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    write_event(out, None, reason.name(), &data);
}

/// What a client wants to be told.
fn wish(uri: &Uri, headers: &HeaderMap) -> Result<WatchSpec, Failure> {
    let query = Query::of(uri, &["key", "prefix", "from", "to", "revision", "prev"])?;
    let range = query.range()?;
    if range.is_empty() {
        return Err(Failure::Bad("no key can lie in that range: from is below to".into()));
    }
    let first = query.number("revision")?;
    if first == Some(0) {
        let message = "revisions count from 1; without one, a watch begins with what happens next";
        return Err(Failure::Bad(message.into()));
    }
    let start = match headers.get(LAST_EVENT_ID).map(|seen| number(seen.as_bytes())) {
        // Who comes back asks with the same address as before: what it has seen since says more.
        Some(Some(seen)) => Some(seen.saturating_add(1)),
        Some(None) => return Err(Failure::Bad("Last-Event-ID is the id of an event: a revision".into())),
        None => first,
    };
    let prev_kv = query.flag("prev")?;
    Ok(WatchSpec { range, start: start.map(Revision), no_put: false, no_delete: false, prev_kv })
}

/// The client has gone, or needs no more.
struct End;

/// Whether the server has been told to stop: then watches end, which otherwise never would.
#[derive(Clone)]
pub(crate) struct Stop(pub tokio::sync::watch::Receiver<bool>);

impl Stop {
    async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}

/// What stands between a session of the core and a client.
struct Feed {
    control: Box<dyn WatchControl>,
    events: Box<dyn WatchEvents>,
    teller: Teller,
    stop: Stop,
}

impl Feed {
    async fn run(mut self) {
        self.control.open(WATCH, self.teller.spec.clone());
        let mut period = interval_at(Instant::now() + PROGRESS_PERIOD, PROGRESS_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                notice = self.events.next() => self.teller.tell(notice).await,
                _ = period.tick() => {
                    self.control.progress(WATCH);
                    Ok(())
                }
                () = self.stop.wait() => self.teller.tell(WatchNotice::Closed).await,
                () = self.teller.chunks.closed() => Err(End),
            };
            if step.is_err() {
                return;
            }
        }
    }
}

/// Says notices in the words of clients.
struct Teller {
    spec: WatchSpec,
    chunks: mpsc::Sender<Result<Bytes, Infallible>>,
}

impl Teller {
    async fn send(&self, chunk: &mut String) -> Result<(), End> {
        self.chunks.send(Ok(std::mem::take(chunk).into())).await.map_err(|_| End)
    }

    async fn tell(&self, notice: WatchNotice) -> Result<(), End> {
        let mut chunk = String::new();
        match notice {
            WatchNotice::Created { revision, .. } => {
                // Nothing before the first revision wanted is owed, and nothing from there on has been told.
                let told = self.spec.start.map_or(revision, |start| Revision(start.0.saturating_sub(1)));
                write_event(&mut chunk, Some(told), "created", &json!({ "revision": revision.0 }));
            }
            WatchNotice::Events { events, .. } => {
                for changes in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
                    let revision = changes[0].kv.mod_revision;
                    let changes: Vec<Change> =
                        changes.iter().map(|event| Change::of(event, self.spec.prev_kv)).collect();
                    let data = json!({ "revision": revision.0, "changes": changes });
                    write_event(&mut chunk, Some(revision), "change", &data);
                    if chunk.len() >= CHUNK_BYTES {
                        self.send(&mut chunk).await?;
                    }
                }
            }
            WatchNotice::Progress { revision, .. } => {
                write_event(&mut chunk, Some(revision), "progress", &json!({ "revision": revision.0 }));
            }
            WatchNotice::Compacted { compacted, .. } => {
                let message = format!(
                    "what was wanted is gone: read the keys anew, then watch from there; the oldest revision left is {}",
                    compacted.0
                );
                write_ending(&mut chunk, Reason::Compacted, message, json!({ "compacted": compacted.0 }));
                self.send(&mut chunk).await?;
                return Err(End);
            }
            WatchNotice::Closed => {
                let message = "this node serves no watch any more: go on at another one, with the last id".into();
                write_ending(&mut chunk, Reason::Stopping, message, Value::Null);
                self.send(&mut chunk).await?;
                return Err(End);
            }
        }
        if chunk.is_empty() { Ok(()) } else { self.send(&mut chunk).await }
    }
}

/// Where to watch what cannot be watched here.
fn elsewhere(error: Error, db: &Arc<dyn Db>, keyspace: KeyspaceId, uri: &Uri) -> Failure {
    let homes = if error == Error::Unavailable(Unavailable::NotHere) { db.homes(keyspace) } else { Vec::new() };
    let nodes = homes.iter().flat_map(|home| home.voters.iter().chain(&home.wanted));
    let own = db.identity().node;
    let url = nodes.filter(|node| node.id != own).find_map(|node| node.client_urls.first());
    let page = uri.path_and_query().map_or(ROUTE, |page| page.as_str());
    url.map_or(Failure::Core(error), |url| Failure::Elsewhere(format!("{}{page}", url.trim_end_matches('/'))))
}

pub(crate) async fn watch(
    State(db): State<Arc<dyn Db>>,
    Extension(stop): Extension<Stop>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let spec = wish(&uri, &headers)?;
    let keyspace = keyspace(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let (control, events) = db.watch(keyspace.id).map_err(|error| elsewhere(error, &db, keyspace.id, &uri))?;
    let (chunks, taken) = mpsc::channel(CHUNKS_QUEUED_MAX);
    tokio::spawn(Feed { control, events, teller: Teller { spec, chunks }, stop }.run());
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(taken))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use quorate_kv::{KeyRange, KeyValue, LeaseId};

    fn teller(start: Option<u64>) -> (Teller, mpsc::Receiver<Result<Bytes, Infallible>>) {
        let (chunks, taken) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let start = start.map(Revision);
        let spec = WatchSpec { range: KeyRange::all(), start, no_put: false, no_delete: false, prev_kv: true };
        (Teller { spec, chunks }, taken)
    }

    fn event(kind: EventKind, key: &'static str, bytes: usize, revision: u64) -> Event {
        let (create_revision, mod_revision) = (Revision(2), Revision(revision));
        let value = vec![b'v'; bytes].into();
        let kv = KeyValue { key: key.into(), value, create_revision, mod_revision, version: 1, lease: LeaseId::NONE };
        Event { kind, prev: (kind == EventKind::Delete).then(|| kv.clone()), kv }
    }

    /// What a client is told of a notice.
    async fn told(start: Option<u64>, notice: WatchNotice) -> (String, bool) {
        let (teller, mut taken) = teller(start);
        let goes_on = teller.tell(notice).await.is_ok();
        drop(teller);
        let mut all = String::new();
        while let Some(Ok(chunk)) = taken.recv().await {
            all.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        (all, goes_on)
    }

    #[tokio::test]
    async fn what_happened_at_one_revision_is_one_event() {
        let events =
            [event(EventKind::Put, "a", 1, 5), event(EventKind::Delete, "b", 1, 5), event(EventKind::Put, "c", 2, 7)];
        let (id, revision) = (WATCH, Revision(9));
        let (text, goes_on) = told(None, WatchNotice::Events { id, revision, events: events.into() }).await;
        assert!(goes_on);
        let a = r#"{"create_revision":2,"key":"a","mod_revision":5,"type":"put","value":"v","version":1}"#;
        let prev = r#"{"create_revision":2,"key":"b","mod_revision":5,"value":"v","version":1}"#;
        let b = format!(r#"{{"key":"b","mod_revision":5,"prev":{prev},"type":"delete"}}"#);
        let c = r#"{"create_revision":2,"key":"c","mod_revision":7,"type":"put","value":"vv","version":1}"#;
        let expected = format!(
            "id: 5\nevent: change\ndata: {{\"changes\":[{a},{b}],\"revision\":5}}\n\n\
             id: 7\nevent: change\ndata: {{\"changes\":[{c}],\"revision\":7}}\n\n"
        );
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn the_first_event_says_from_where_to_go_on() {
        let created = |start| told(start, WatchNotice::Created { id: WATCH, revision: Revision(9) });
        assert!(created(None).await.0.starts_with("id: 9\n"));
        assert!(created(Some(3)).await.0.starts_with("id: 2\n"), "what is between is still to be told");
        assert!(created(Some(30)).await.0.starts_with("id: 29\n"));
    }

    #[tokio::test]
    async fn a_watch_that_cannot_go_on_says_why_and_ends() {
        let (revision, compacted) = (Revision(9), Revision(6));
        let (text, goes_on) = told(Some(3), WatchNotice::Compacted { id: WATCH, revision, compacted }).await;
        assert!(!goes_on && text.starts_with("event: compacted\n") && text.contains(r#""compacted":6"#), "{text}");
        let (text, goes_on) = told(None, WatchNotice::Closed).await;
        assert!(!goes_on && text.contains(r#""reason":"stopping""#), "{text}");
    }

    #[tokio::test]
    async fn whoever_takes_nothing_holds_a_few_chunks_and_who_has_gone_none() {
        let (teller, taken) = teller(None);
        let events: Vec<Event> = (2..100).map(|revision| event(EventKind::Put, "k", CHUNK_BYTES, revision)).collect();
        let notice = WatchNotice::Events { id: WATCH, revision: Revision(100), events: events.into() };
        let mut telling = std::pin::pin!(teller.tell(notice));
        assert!(tokio::time::timeout(Duration::from_millis(50), telling.as_mut()).await.is_err(), "it waits");
        assert_eq!(taken.len(), CHUNKS_QUEUED_MAX);
        drop(taken);
        assert!(telling.await.is_err());
    }

    #[test]
    fn who_comes_back_goes_on_behind_what_it_has_seen() {
        let start = |text: &str, seen: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            seen.map(|seen| headers.insert(LAST_EVENT_ID, HeaderValue::from_static(seen)));
            wish(&text.parse().expect("an address"), &headers).map(|spec| spec.start.map(|start| start.0)).ok()
        };
        assert_eq!(start("/v1/watch/default", None), Some(None));
        assert_eq!(start("/v1/watch/default?revision=3", None), Some(Some(3)));
        assert_eq!(start("/v1/watch/default?revision=3", Some("17")), Some(Some(18)));
        for broken in ["?revision=0", "?revision=x", "?from=b&to=a", "?limit=3"] {
            assert_eq!(start(&format!("/v1/watch/default{broken}"), None), None, "{broken}");
        }
        assert_eq!(start("/v1/watch/default", Some("a")), None);
    }
}
