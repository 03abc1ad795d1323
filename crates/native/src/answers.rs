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
use quorate_kv::across::TxId;
use quorate_kv::{Error, KeyValue, Refusal};
use serde_json::{Value, json};

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request makes no sense.
    Bad(String),
    /// The request's body is larger than any request may be.
    TooLarge,
    /// The request has more parts than any may have.
    TooMany {
        /// So many are allowed.
        max: usize,
    },
    /// The request did not come to its end.
    TooSlow,
    /// The client's own deadline came first, while it was being done.
    Overtaken,
    /// There is no such call.
    NoCall(String),
    /// A keyspace of that name does not exist.
    NoKeyspace(String),
    /// The key is not there.
    NoKey(Bytes),
    /// The key is not as it should have been: what was there instead, if that is known.
    ConditionFailed(Option<Option<KeyValue>>),
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

impl Failure {
    /// Why, in the word that programs read. There is none if nobody knows whether it was done.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Bad(_) => Reason::BadRequest,
            Self::TooLarge | Self::TooMany { .. } => Reason::TooLarge,
            Self::TooSlow => Reason::TooSlow,
            Self::NoCall(_) => Reason::NoSuchMethod,
            Self::NoKeyspace(_) => Reason::NoSuchKeyspace,
            Self::NoKey(_) => Reason::NoSuchKey,
            Self::ConditionFailed(_) => Reason::ConditionFailed,
            Self::Elsewhere(_) => Reason::NotHere,
            Self::Core(Error::Unavailable(why)) => (*why).into(),
            Self::Core(Error::Refused(refusal)) => refusal.into(),
            Self::Core(Error::UnknownTransaction { .. } | Error::UnknownOutcome(_)) | Self::Overtaken => return None,
        })
    }

    /// What a log's offsets have to do with it, under a name.
    fn offset(&self) -> Value {
        match self {
            Self::Core(Error::Refused(Refusal::Trimmed { first })) => json!({ "first": first }),
            Self::Core(Error::Refused(Refusal::BeyondEnd { end })) => json!({ "end": end }),
            _ => Value::Null,
        }
    }

    /// What to ask about when nobody knows whether it was done, if that has a name.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Core(Error::UnknownTransaction { tx, home }) => Some(id_of(*home, *tx)),
            _ => None,
        }
    }

    /// The same for people, with what to do about it in the words of HTTP.
    pub fn message(&self) -> String {
        match self {
            Self::Bad(message) => message.clone(),
            Self::TooLarge => format!("the body is larger than {BODY_BYTES_MAX} bytes: make several requests of it"),
            Self::TooMany { max } => {
                format!("the request has more than {max} parts: make several requests of it")
            }
            Self::TooSlow => format!("the request was not complete after {} s", REQUEST_TIME.as_secs()),
            Self::NoCall(name) => format!("there is no call {name:?}"),
            Self::NoKeyspace(name) => {
                format!("there is no keyspace {name:?}: make it with POST /v1/keyspaces, or look at GET /v1/keyspaces")
            }
            Self::NoKey(key) => {
                format!("there is no key {key:?}: PUT makes it, GET of the keyspace lists what there is")
            }
            Self::ConditionFailed(_) => {
                "the key is not as the condition says, so nothing was written: look at it, and decide anew".into()
            }
            Self::Elsewhere(url) => format!("this node has no replica of that keyspace: ask {url}"),
            Self::Core(Error::Unavailable(why)) => format!("{why}; nothing was done, try again"),
            Self::Core(Error::Refused(refusal)) => refusal.to_string(),
            Self::Core(Error::UnknownTransaction { .. } | Error::UnknownOutcome(_)) | Self::Overtaken => {
                "nobody knows whether it was done; read what it would have written".into()
            }
        }
    }

    fn unknown(&self) -> Response {
        let code = StatusCode::GATEWAY_TIMEOUT;
        let Some(id) = self.id() else {
            return (code, Json(json!({ "outcome": "unknown", "message": self.message() }))).into_response();
        };
        let message = format!(
            "nobody knows yet whether it was done; ask GET /v1/status/{id}, or send it again under the same Idempotency-Key"
        );
        let body = Json(json!({ "outcome": "unknown", "id": id, "message": message }));
        (code, [(header::LOCATION, format!("/v1/status/{id}"))], body).into_response()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Some(reason) = self.reason() else { return self.unknown() };
        let message = self.message();
        match self {
            Self::ConditionFailed(Some(now)) => refused(reason, &message, json!({ "now": now.as_ref().map(Kv::from) })),
            Self::Elsewhere(url) => ([(header::LOCATION, url)], refused(reason, &message, Value::Null)).into_response(),
            _ => refused(reason, &message, self.offset()),
        }
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
    use quorate_kv::Unavailable;

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
        assert_eq!(code(Refusal::ReservationLost { key: "k".into() }.into()), 409);
        assert_eq!(code(Refusal::TooManyReserved { max: 128 }.into()), 413);
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
        assert_eq!(Failure::Overtaken.into_response().status().as_u16(), 504);
    }
}
