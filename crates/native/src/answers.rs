//! Answers: done, refused with a reason and what to do about it, or unknown with an id to ask about. The one place where the core's errors become
//! codes of HTTP.

use crate::reasons::Reason;
use crate::words::Kv;
use crate::{BODY_BYTES_MAX, REQUEST_TIME};
use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use quorate_env::ShardId;
use quorate_kv::Error;
use quorate_kv::across::TxId;
use serde_json::{Value, json};

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request makes no sense.
    Bad(String),
    /// The request's body is larger than any request may be.
    TooLarge,
    /// The request did not come to its end.
    TooSlow,
    /// A keyspace of that name does not exist.
    NoKeyspace(String),
    /// The key is not there.
    NoKey(Bytes),
    /// The key is not as it should have been: what was there instead, if that is known.
    ConditionFailed(Option<Option<Kv>>),
    /// Another node has it, at this URL.
    Elsewhere(String),
    /// The core said no, or does not know.
    Core(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

/// The id of a transaction, as clients see it: its home and its own.
pub(crate) fn id_of(home: ShardId, tx: TxId) -> String {
    format!("{:x}-{tx}", home.0)
}

/// Reads an id.
pub(crate) fn parse_id(id: &str) -> Option<(ShardId, TxId)> {
    let (home, tx) = id.split_once('-')?;
    Some((ShardId(u64::from_str_radix(home, 16).ok()?), TxId(u128::from_str_radix(tx, 16).ok()?)))
}

/// What a refusal says, with more where there is more to say.
fn refused(reason: Reason, message: &str, more: Value) -> Response {
    let mut body = json!({ "outcome": reason.outcome(), "reason": reason.name(), "message": message });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    (reason.code(), Json(body)).into_response()
}

fn unknown(id: Option<String>) -> Response {
    let code = StatusCode::GATEWAY_TIMEOUT;
    let Some(id) = id else {
        let message = "nobody knows whether it was done; read what it would have written";
        return (code, Json(json!({ "outcome": "unknown", "message": message }))).into_response();
    };
    let message = format!(
        "nobody knows yet whether it was done; ask GET /v1/status/{id}, or send it again under the same Idempotency-Key"
    );
    let body = Json(json!({ "outcome": "unknown", "id": id, "message": message }));
    (code, [(header::LOCATION, format!("/v1/status/{id}"))], body).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (reason, message) = match self {
            Self::Bad(message) => (Reason::BadRequest, message),
            Self::TooLarge => (
                Reason::TooLarge,
                format!("the body is larger than {BODY_BYTES_MAX} bytes: make several requests of it"),
            ),
            Self::TooSlow => {
                (Reason::TooSlow, format!("the request was not complete after {} s", REQUEST_TIME.as_secs()))
            }
            Self::NoKeyspace(name) => {
                let next = "make it with POST /v1/keyspaces, or look at GET /v1/keyspaces";
                (Reason::NoSuchKeyspace, format!("there is no keyspace {name:?}: {next}"))
            }
            Self::NoKey(key) => (
                Reason::NoSuchKey,
                format!("there is no key {key:?}: PUT makes it, GET of the keyspace lists what there is"),
            ),
            Self::ConditionFailed(found) => {
                let message =
                    "the key is not as the condition says, so nothing was written: look at it, and decide anew";
                return refused(
                    Reason::ConditionFailed,
                    message,
                    found.map_or(Value::Null, |now| json!({ "now": now })),
                );
            }
            Self::Elsewhere(url) => {
                let message = format!("this node has no replica of that keyspace: ask {url}");
                let refused = refused(Reason::NotHere, &message, Value::Null);
                return ([(header::LOCATION, url)], refused).into_response();
            }
            Self::Core(Error::UnknownTransaction { tx, home }) => return unknown(Some(id_of(home, tx))),
            Self::Core(Error::UnknownOutcome(_)) => return unknown(None),
            Self::Core(Error::Unavailable(why)) => (why.into(), format!("{why}; nothing was done, try again")),
            Self::Core(Error::Refused(refusal)) => ((&refusal).into(), refusal.to_string()),
        };
        refused(reason, &message, Value::Null)
    }
}

pub(crate) async fn no_such_page(uri: Uri) -> Response {
    let message = format!("there is nothing at {}; GET /v1/openapi.json lists what there is", uri.path());
    refused(Reason::NoSuchPage, &message, Value::Null)
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Response {
    refused(Reason::NoSuchMethod, &format!("{method} means nothing at {}", uri.path()), Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{Refusal, Unavailable};

    #[test]
    fn ids_survive() {
        let (home, tx) = (ShardId(300), TxId(u128::MAX - 9));
        assert_eq!(parse_id(&id_of(home, tx)), Some((home, tx)));
        for broken in ["", "-", "12", "x-1", "1-x", "1-2-3"] {
            assert_eq!(parse_id(broken), None, "{broken}");
        }
    }

    #[test]
    fn each_kind_of_error_has_its_code() {
        let code = |error: Error| Failure::Core(error).into_response().status().as_u16();
        assert_eq!(code(Refusal::Locked { key: "k".into(), by: TxId(1) }.into()), 409);
        assert_eq!(code(Refusal::Moved { key: "k".into() }.into()), 409);
        assert_eq!(code(Refusal::AlreadySplit.into()), 409);
        assert_eq!(code(Refusal::OrderedSplit.into()), 400);
        assert_eq!(code(Refusal::NotOrdered.into()), 400);
        assert_eq!(code(Refusal::EmptyKey.into()), 400);
        assert_eq!(code(Refusal::TooManyShards { shards: 99 }.into()), 413);
        assert_eq!(code(Unavailable::NoLeader.into()), 503);
        assert_eq!(Failure::NoKey("k".into()).into_response().status().as_u16(), 404);
        assert_eq!(Failure::ConditionFailed(None).into_response().status().as_u16(), 409);
        let unknown = Failure::Core(Error::UnknownTransaction { tx: TxId(7), home: ShardId(2) }).into_response();
        assert_eq!(unknown.status().as_u16(), 504);
        assert_eq!(unknown.headers()[header::LOCATION], "/v1/status/2-00000000000000000000000000000007");
    }
}
