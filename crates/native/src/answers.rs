//! Answers: done, refused with a reason and what to do about it, or unknown with an id to ask about. The one place where the core's errors become
//! codes of HTTP.

use crate::{BODY_BYTES_MAX, REQUEST_TIME};
use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use quorate_env::ShardId;
use quorate_kv::across::TxId;
use quorate_kv::{Error, Refusal, Unavailable};
use serde_json::json;

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

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let refused = |code: StatusCode, reason: &str, message: String| {
            let outcome = if code.is_server_error() { "unavailable" } else { "refused" };
            (code, Json(json!({ "outcome": outcome, "reason": reason, "message": message }))).into_response()
        };
        match self {
            Self::Bad(message) => refused(StatusCode::BAD_REQUEST, "bad_request", message),
            Self::TooLarge => {
                let message =
                    format!("the body is larger than {BODY_BYTES_MAX} bytes: make several transactions of it");
                refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            Self::TooSlow => {
                let message = format!("the request was not complete after {} s", REQUEST_TIME.as_secs());
                refused(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
            }
            Self::NoKeyspace(name) => {
                let message = format!(
                    "there is no keyspace {name:?}: make it with POST /v1/keyspaces, or look at GET /v1/keyspaces"
                );
                refused(StatusCode::NOT_FOUND, "no_such_keyspace", message)
            }
            Self::Core(Error::UnknownTransaction { tx, home }) => {
                let id = id_of(home, tx);
                let message = "nobody knows yet whether it was done; ask GET /v1/status/{id}, or send it again under the same Idempotency-Key";
                let body = Json(json!({ "outcome": "unknown", "id": id, "message": message }));
                (StatusCode::GATEWAY_TIMEOUT, [(header::LOCATION, format!("/v1/status/{id}"))], body).into_response()
            }
            Self::Core(Error::UnknownOutcome(_)) => {
                let message = "nobody knows whether it was done; read what it would have written";
                (StatusCode::GATEWAY_TIMEOUT, Json(json!({ "outcome": "unknown", "message": message }))).into_response()
            }
            Self::Core(Error::Unavailable(why)) => {
                let reason = match why {
                    Unavailable::NoLeader => "no_leader",
                    Unavailable::Timeout => "timeout",
                    Unavailable::Overloaded => "overloaded",
                    Unavailable::NoSpace => "no_space",
                    Unavailable::FeatureLevel { .. } => "feature_level",
                    Unavailable::Stopping => "stopping",
                };
                refused(StatusCode::SERVICE_UNAVAILABLE, reason, format!("{why}; nothing was done, try again"))
            }
            Self::Core(Error::Refused(refusal)) => {
                let (code, reason) = match &refusal {
                    Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. } => {
                        (StatusCode::CONFLICT, "conflict")
                    }
                    Refusal::AlreadySplit => (StatusCode::CONFLICT, "already_split"),
                    Refusal::KeyspaceNotFound => (StatusCode::NOT_FOUND, "no_such_keyspace"),
                    Refusal::KeyspaceExists => (StatusCode::CONFLICT, "keyspace_exists"),
                    Refusal::TooLarge { .. } | Refusal::TooManyShards { .. } => {
                        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
                    }
                    _ => (StatusCode::BAD_REQUEST, "bad_request"),
                };
                refused(code, reason, refusal.to_string())
            }
        }
    }
}

pub(crate) async fn no_such_page(uri: Uri) -> Response {
    let message = format!("there is nothing at {}; docs/native-api.md lists what there is", uri.path());
    let body = Json(json!({ "outcome": "refused", "reason": "no_such_page", "message": message }));
    (StatusCode::NOT_FOUND, body).into_response()
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} means nothing at {}", uri.path());
    let body = Json(json!({ "outcome": "refused", "reason": "no_such_method", "message": message }));
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(code(Refusal::EmptyKey.into()), 400);
        assert_eq!(code(Refusal::TooManyShards { shards: 99 }.into()), 413);
        assert_eq!(code(Unavailable::NoLeader.into()), 503);
        let unknown = Failure::Core(Error::UnknownTransaction { tx: TxId(7), home: ShardId(2) }).into_response();
        assert_eq!(unknown.status().as_u16(), 504);
        assert_eq!(unknown.headers()[header::LOCATION], "/v1/status/2-00000000000000000000000000000007");
    }
}
