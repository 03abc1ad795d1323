//! Logs: records are appended, fetched and cut off; over HTTP under `/v1/logs/{name}`. What a log is, is told in `kv::log`.
//!
//! ```text
//!   fetch ──> look ──> there is something, or time is up ──> answer
//!               ^  └─> nothing yet: watch the log where it is, and look again when it has changed
//!               └──────────────────────────────┘
//! ```
//!
//! What a watch tells is only a reason to look again: what is answered is as fresh as was asked for.

use crate::answers::Failure;
use crate::feed::{Stop, WATCH};
use crate::freshness;
use crate::names::keyspace;
use crate::place::Terms;
use crate::query::{Query, keyspace_of, number};
use crate::transactions::client_key;
use crate::words::{self, Text, parse};
use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::across::{Transaction, Write};
use quorate_kv::log::{BOUNDS, Entry, Fetch, Fetched, Record};
use quorate_kv::{
    Command, Db, Error, Freshness, KeyRange, Keyspace, KeyspaceId, KeyspaceKind, Outcome, Refusal, WatchNotice,
    WatchSession, WatchSpec, limits,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// What paths to logs begin with.
const ROUTE: &str = "/v1/logs/";

/// Records of a fetch, if nothing is said.
const RECORDS: u64 = 100;

/// Between two looks at a log that cannot be watched here.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where a fetch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the first record that is kept.
    First,
    /// With the next one that is appended.
    End,
    /// With this one.
    Offset(u64),
}

/// What somebody wants to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub from: From,
    max: u64,
    bytes_max: usize,
    wait: Duration,
    freshness: Freshness,
}

impl From {
    /// Reads the words; where nothing is said, it begins with the first.
    fn parse(words: Option<&[u8]>) -> Result<Self, Failure> {
        match words {
            None | Some(b"first") => Ok(Self::First),
            Some(b"end") => Ok(Self::End),
            Some(digits) => number(digits).map(Self::Offset).ok_or_else(|| {
                Failure::Bad("from is an offset, first or end; an answer's next says where to go on".into())
            }),
        }
    }
}

impl Wish {
    pub fn new(
        from: From,
        max: Option<u64>,
        bytes_max: Option<u64>,
        wait_ms: Option<u64>,
        freshness: Freshness,
    ) -> Result<Self, Failure> {
        let (max, wait_ms) = (max.unwrap_or(RECORDS), wait_ms.unwrap_or(0));
        let bytes_max = bytes_max.unwrap_or(limits::FETCH_BYTES_MAX as u64);
        if !(1..=limits::FETCH_RECORDS_MAX).contains(&max) {
            return Err(Failure::Bad(format!("max is 1 to {}", limits::FETCH_RECORDS_MAX)));
        }
        if bytes_max > limits::FETCH_BYTES_MAX as u64 {
            return Err(Failure::Bad(format!("max_bytes is at most {}", limits::FETCH_BYTES_MAX)));
        }
        if wait_ms > limits::FETCH_WAIT_MS_MAX {
            return Err(Failure::Bad(format!("wait_ms is at most {}: ask again", limits::FETCH_WAIT_MS_MAX)));
        }
        Ok(Self { from, max, bytes_max: bytes_max as usize, wait: Duration::from_millis(wait_ms), freshness })
    }

    fn of(uri: &Uri, log: &Keyspace) -> Result<Self, Failure> {
        let query = Query::of(uri, &["from", "max", "max_bytes", "wait_ms", "freshness"])?;
        let (max, bytes_max) = (query.number("max")?, query.number("max_bytes")?);
        let (from, freshness) = (query.bytes("from"), query.freshness(log.policy.freshness)?);
        Self::new(From::parse(from.as_deref())?, max, bytes_max, query.number("wait_ms")?, freshness)
    }

    fn fetch(&self, keyspace: KeyspaceId, from: u64) -> Fetch {
        Fetch { keyspace, from, max: self.max, bytes_max: self.bytes_max, freshness: self.freshness }
    }
}

/// A log, by name.
pub(crate) async fn log(name: &str, db: &Arc<dyn Db>) -> Result<Keyspace, Failure> {
    let found = keyspace(name, db).await?;
    if found.kind == KeyspaceKind::Log { Ok(found) } else { Err(Error::from(Refusal::NotLog).into()) }
}

/// What came of an append.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// It had been done before, under the same client's name.
    pub repeated: bool,
    /// Of the first record.
    pub offset: u64,
    pub count: u64,
    /// When it was done.
    pub token: Timestamp,
}

/// Appends records, in this order and next to each other.
pub(crate) async fn append_to(
    log: &Keyspace,
    records: Vec<Record>,
    terms: Terms,
    db: &Arc<dyn Db>,
) -> Result<Appended, Failure> {
    let count = records.len() as u64;
    if count == 0 {
        return Err(Failure::Bad("there is no record to append".into()));
    }
    let success = vec![(log.id, Write::Append(records))];
    let transaction = Transaction { success, key: terms.name, after: terms.after, ..Transaction::default() };
    let result = db.transact(transaction).await?;
    let Some(offset) = result.appended.first().copied() else {
        let why = "something else was done before under that Idempotency-Key: name each thing that is wanted anew";
        return Err(Failure::Bad(why.into()));
    };
    Ok(Appended { repeated: result.repeated, offset, count, token: result.at })
}

/// Cuts off what is before an offset; says what is the first that is kept.
pub(crate) async fn trim_of(log: &Keyspace, before: u64, db: &Arc<dyn Db>) -> Result<u64, Failure> {
    match db.submit(log.id, Command::Trim { before }).await?.outcome {
        Outcome::Trimmed(first) => Ok(first),
        other => unreachable!("a cut was answered with {other:?}"),
    }
}

/// Reads records; if there are none yet, waits for one.
pub(crate) async fn fetch_from(log: &Keyspace, wish: Wish, db: &Arc<dyn Db>, stop: &Stop) -> Result<Fetched, Failure> {
    let deadline = Instant::now() + wish.wait;
    // What happened up to a moment does not change.
    let waits = !matches!(wish.freshness, Freshness::At(_));
    let mut from = match wish.from {
        From::First => 0,
        From::Offset(offset) => offset,
        From::End => fetch_end(log, wish, db).await?,
    };
    let (mut news, mut stop) = (News::Unknown, stop.clone());
    loop {
        let fetch = wish.fetch(log.id, from);
        match fetch.read(db.look(fetch.looks(), wish.freshness).await?) {
            Err(Refusal::Trimmed { first }) if wish.from == From::First => from = first,
            Err(refusal) => return Err(Error::from(refusal).into()),
            Ok(fetched) if !fetched.entries.is_empty() || !waits => return Ok(fetched),
            Ok(fetched) => {
                let over = tokio::select! {
                    over = news.wait(log.id, db, deadline) => over,
                    () = stop.wait() => true,
                };
                if over {
                    return Ok(fetched);
                }
            }
        }
    }
}

/// Where a log ends.
async fn fetch_end(log: &Keyspace, wish: Wish, db: &Arc<dyn Db>) -> Result<u64, Failure> {
    let last = wish.fetch(log.id, u64::MAX);
    match last.read(db.look(last.looks(), wish.freshness).await?) {
        Ok(Fetched { end, .. }) | Err(Refusal::BeyondEnd { end }) => Ok(end),
        Err(refusal) => Err(Error::from(refusal).into()),
    }
}

/// How somebody who waits hears that a log has changed.
enum News {
    /// Nobody has asked yet.
    Unknown,
    /// It is watched.
    Watched(WatchSession),
    /// It cannot be watched here.
    Unwatched,
}

impl News {
    /// Waits until the log may have changed. Says whether time is up.
    async fn wait(&mut self, keyspace: KeyspaceId, db: &Arc<dyn Db>, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return true;
        }
        match self {
            Self::Unknown => {
                *self = Self::Unwatched;
                if let Ok(session) = db.watch(keyspace) {
                    let range = KeyRange::single(BOUNDS);
                    let spec = WatchSpec { range, start: None, no_put: false, no_delete: true, prev_kv: false };
                    session.0.open(WATCH, spec);
                    *self = Self::Watched(session);
                }
                // What was appended before the watch stood it does not tell of: it says when it stands.
                Box::pin(self.wait(keyspace, db, deadline)).await
            }
            Self::Watched((_, events)) => match timeout_at(deadline, events.next()).await {
                Err(_) => true,
                Ok(WatchNotice::Closed | WatchNotice::Compacted { .. }) => {
                    *self = Self::Unwatched;
                    false
                }
                Ok(_) => false,
            },
            Self::Unwatched => {
                sleep(LOOK_AGAIN.min(deadline - Instant::now())).await;
                false
            }
        }
    }
}

/// The body of `POST /v1/logs/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    records: Vec<words::Record>,
    /// A token: it happens later.
    after: Option<String>,
}

fn told(entry: &Entry) -> Value {
    json!({
        "offset": entry.offset,
        "timestamp": entry.at.wall().0,
        "key": Text::of(&entry.record.key),
        "value": Text::of(&entry.record.value),
    })
}

fn with_token(mut answer: Value, token: Timestamp) -> Json<Value> {
    if let Some(token) = freshness::told(token) {
        answer["token"] = json!(token);
    }
    Json(answer)
}

pub(crate) async fn append(
    State(db): State<Arc<dyn Db>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    Query::of(&uri, &[])?;
    let log = log(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let body: Append = parse(body)?;
    let records = words::records(&body.records).map_err(Failure::Bad)?;
    let after = body.after.as_deref().map(freshness::token).transpose()?.unwrap_or_default();
    let Appended { repeated, offset, count, token } =
        append_to(&log, records, Terms { name: client_key(&headers), after }, &db).await?;
    let answer = json!({ "outcome": "done", "repeated": repeated, "offset": offset, "count": count });
    Ok(with_token(answer, token))
}

pub(crate) async fn fetch(
    State(db): State<Arc<dyn Db>>,
    Extension(stop): Extension<Stop>,
    uri: Uri,
) -> Result<Json<Value>, Failure> {
    let log = log(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let wish = Wish::of(&uri, &log)?;
    let Fetched { entries, next, first, end, token } = fetch_from(&log, wish, &db, &stop).await?;
    let records: Vec<Value> = entries.iter().map(told).collect();
    let answer = json!({ "outcome": "done", "records": records, "next": next, "first": first, "end": end });
    Ok(with_token(answer, token))
}

pub(crate) async fn trim(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<Value>, Failure> {
    let before = Query::of(&uri, &["before"])?.bytes("before");
    let log = log(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let before = match before.as_deref() {
        Some(b"end") => Some(u64::MAX),
        Some(digits) => number(digits),
        None => None,
    };
    let before = before.ok_or_else(|| Failure::Bad("before is the first offset that is kept, or end".into()))?;
    Ok(Json(json!({ "outcome": "done", "first": trim_of(&log, before, &db).await? })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::Policy;

    fn wish(words: &str) -> Result<Wish, Failure> {
        let (id, kind, shards) = (KeyspaceId(16), KeyspaceKind::Log, Vec::new());
        let log = Keyspace { id, name: "feed".into(), kind, shards, policy: Policy::OF_MADE };
        Wish::of(&format!("/v1/logs/feed{words}").parse().expect("an address"), &log)
    }

    #[test]
    fn a_fetch_says_from_where_and_how_much() {
        let plain = wish("").expect("nothing need be said");
        assert_eq!((plain.from, plain.max, plain.wait), (From::First, RECORDS, Duration::ZERO));
        let all = wish("?from=7&max=9&max_bytes=1000&wait_ms=500&freshness=any").expect("all may be said");
        assert_eq!((all.from, all.max, all.bytes_max), (From::Offset(7), 9, 1_000));
        assert_eq!((all.wait, all.freshness), (Duration::from_millis(500), Freshness::Any));
        assert_eq!(wish("?from=end").expect("a word").from, From::End);
        for broken in
            ["?from=-1", "?from=last", "?max=0", "?max=10001", "?max_bytes=4194305", "?wait_ms=20001", "?to=3"]
        {
            assert!(wish(broken).is_err(), "{broken}");
        }
    }
}
