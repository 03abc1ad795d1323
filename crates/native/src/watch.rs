//! `GET /v1/watch/{keyspace}`: what happens in an ordered keyspace, as server-sent events.
//!
//! An event with an `id` says that everything up to that revision has been told. That is why all that happened at one revision is one event.

use crate::answers::Failure;
use crate::feed::{self, Stop, Told, Tongue, compacted_message};
use crate::names::keyspace_of_keys;
use crate::query::{Query, keyspace_of, number};
use crate::reasons::Reason;
use crate::words::{Kv, Text};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use quorate_kv::{Db, Event, EventKind, Revision, WatchSpec};
use serde::Serialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

const ROUTE: &str = "/v1/watch/";

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
    let seen = headers.get(LAST_EVENT_ID).map(|seen| {
        let broken = || Failure::Bad("Last-Event-ID is the id of an event: a revision".into());
        number(seen.as_bytes()).ok_or_else(broken)
    });
    feed::spec(query.range()?, query.number("revision")?, seen.transpose()?, query.flag("prev")?)
}

/// Says it in server-sent events.
struct Sse {
    /// Whether changes tell what was there before.
    prev: bool,
}

impl Tongue for Sse {
    type Chunk = String;

    fn say(&self, told: &Told<'_>, chunk: &mut String) {
        match told {
            Told::Created { told, revision } => {
                write_event(chunk, Some(*told), "created", &json!({ "revision": revision.0 }));
            }
            Told::Changed { revision, changes } => {
                let changes: Vec<Change> = changes.iter().map(|event| Change::of(event, self.prev)).collect();
                let data = json!({ "revision": revision.0, "changes": changes });
                write_event(chunk, Some(*revision), "change", &data);
            }
            Told::Progress { revision } => {
                write_event(chunk, Some(*revision), "progress", &json!({ "revision": revision.0 }));
            }
            Told::Compacted { oldest } => {
                let more = json!({ "compacted": oldest.0 });
                write_ending(chunk, Reason::Compacted, compacted_message(*oldest), more);
            }
            Told::Stopping => {
                let message = "this node serves no watch any more: go on at another one, with the last id".into();
                write_ending(chunk, Reason::Stopping, message, Value::Null);
            }
        }
    }

    fn bytes(chunk: &String) -> usize {
        chunk.len()
    }
}

pub(crate) async fn watch(
    State(db): State<Arc<dyn Db>>,
    Extension(stop): Extension<Stop>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let spec = wish(&uri, &headers)?;
    let keyspace = keyspace_of_keys(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let page = uri.path_and_query().map_or(ROUTE, |page| page.as_str());
    let tongue = Sse { prev: spec.prev_kv };
    let chunks = ReceiverStream::new(feed::open(&db, keyspace.id, spec, tongue, stop, page)?);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(chunks.map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk))));
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{CHUNK_BYTES, CHUNKS_QUEUED_MAX, Teller, WATCH};
    use axum::http::HeaderValue;
    use quorate_kv::{KeyRange, KeyValue, LeaseId, WatchNotice};
    use std::time::Duration;
    use tokio::sync::mpsc;

    fn teller(start: Option<u64>) -> (Teller<Sse>, mpsc::Receiver<String>) {
        Teller::new(Sse { prev: true }, &feed::spec(KeyRange::all(), start, None, true).expect("a wish"))
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
        while let Some(chunk) = taken.recv().await {
            all.push_str(&chunk);
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
