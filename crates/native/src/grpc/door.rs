//! Where calls come in: what is wrong with a request as bytes is refused here, typed, before anything is built from it.
//!
//! Every request is one message, in the stream's bytes as a flag, its length, and itself. It announces its length before it comes, so one that is too
//! large is refused then.

use super::tables::CALLS;
use super::{ROUTE, problems, shape};
use crate::answers::Failure;
use crate::{BODY_BYTES_MAX, REQUEST_TIME};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use quorate_kv::{Error, Unavailable};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;

/// A flag and the length.
const HEAD_BYTES: usize = 5;

/// Until when the client waits, if it said so: goes with the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(pub Option<Instant>);

/// Lets a request in, or says why not.
pub(super) async fn enter(request: Request, next: Next) -> Response {
    if !is_grpc(request.headers()) {
        // Whoever asks in another way may not even know what a status of gRPC is.
        let message = "this is where gRPC is served: content-type is application/grpc";
        return Failure::Bad(message.into()).into_response();
    }
    match judged(request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => problems::status(&failure).into_http(),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| rest.first().is_none_or(|c| b"+;".contains(c)))
}

async fn judged(request: Request) -> Result<Request, Failure> {
    let (mut parts, body) = request.into_parts();
    let call = parts.uri.path().strip_prefix(ROUTE).unwrap_or_default();
    let (_, message) = CALLS.iter().find(|(name, _)| *name == call).ok_or_else(|| Failure::NoCall(call.to_owned()))?;
    if parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(compressed());
    }
    let now = Instant::now();
    let wait = parts.headers.get("grpc-timeout").map(|wait| {
        let broken = || Failure::Bad("grpc-timeout is a number of up to 8 digits and one of H M S m u n".into());
        timeout(wait.as_bytes()).ok_or_else(broken)
    });
    let deadline = wait.transpose()?.and_then(|wait| now.checked_add(wait));
    parts.extensions.insert(Deadline(deadline));
    let complete = now + REQUEST_TIME;
    let body = match timeout_at(deadline.map_or(complete, |deadline| deadline.min(complete)), whole(body)).await {
        Ok(body) => body?,
        Err(_) if deadline.is_some_and(|deadline| deadline < complete) => {
            return Err(Error::from(Unavailable::Timeout).into());
        }
        Err(_) => return Err(Failure::TooSlow),
    };
    shape::judge(message, &body[HEAD_BYTES..])?;
    Ok(Request::from_parts(parts, body.into()))
}

/// Reads a message with its head; gives up as soon as it can be no good one.
async fn whole(body: Body) -> Result<Bytes, Failure> {
    let mut pieces = body.into_data_stream();
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| Failure::Bad(format!("the request broke off: {e}")))?;
        all.extend_from_slice(&piece);
        if let Some(len) = announced(&all)?
            && all.len() > HEAD_BYTES + len
        {
            return Err(Failure::Bad("a request is one message, and there is something behind it".into()));
        }
    }
    match announced(&all)? {
        Some(len) if all.len() == HEAD_BYTES + len => Ok(all.freeze()),
        _ => Err(Failure::Bad("the request ends within its message".into())),
    }
}

/// How long the message is to be, once its head is there.
fn announced(all: &[u8]) -> Result<Option<usize>, Failure> {
    let Some((&[flag, length @ ..], _)) = all.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let len = u32::from_be_bytes(length) as usize;
    match flag {
        0 if len > BODY_BYTES_MAX => Err(Failure::TooLarge),
        0 => Ok(Some(len)),
        1 => Err(compressed()),
        _ => Err(Failure::Bad("these bytes are no message of gRPC".into())),
    }
}

fn compressed() -> Failure {
    Failure::Bad("messages are not compressed here: send them with grpc-encoding identity".into())
}

/// Reads how long a client waits.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3_600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::convert::Infallible;

    /// What comes of a request in these pieces, which then ends.
    async fn read(pieces: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let pieces: Vec<Result<Bytes, Infallible>> = pieces.iter().map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        whole(Body::from_stream(tokio_stream::iter(pieces))).await.map(|body| body.to_vec())
    }

    fn request(call: &str, headers: &[(&'static str, &'static str)], body: Body) -> Request {
        let mut request = Request::new(body);
        *request.uri_mut() = format!("{ROUTE}{call}").parse().expect("a path");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[tokio::test]
    async fn a_message_is_taken_however_it_is_cut_and_nothing_else_is() {
        let message = [0, 0, 0, 0, 3, 10, 1, b'k'];
        for cut in 0..=message.len() {
            assert_eq!(read(&[&message[..cut], &message[cut..]]).await.expect("whole"), message);
            let broken = read(&[&message[..cut]]).await;
            assert_eq!(broken.is_ok(), cut == message.len(), "cut at {cut}");
        }
        let refused = |answer: Result<Vec<u8>, Failure>| answer.expect_err("refused").reason().expect("why").name();
        assert_eq!(refused(read(&[&message, &[0]]).await), "bad_request");
        assert_eq!(refused(read(&[&[1, 0, 0, 0, 0]]).await), "bad_request");
        assert_eq!(refused(read(&[b"GET / HTTP/1.1"]).await), "bad_request");
        let length = u32::try_from(BODY_BYTES_MAX + 1).expect("small").to_be_bytes();
        assert_eq!(refused(read(&[&[0], &length]).await), "too_large", "before it comes");
    }

    #[tokio::test]
    async fn a_request_is_judged_before_it_is_decoded() {
        let refused = async |call: &str, headers: &[(&'static str, &'static str)], body: &'static [u8]| {
            judged(request(call, headers, Body::from(body))).await.expect_err("refused").reason().expect("why").name()
        };
        let empty: &[u8] = &[0; 5];
        assert!(judged(request("Get", &[], Body::from(empty))).await.is_ok());
        assert_eq!(refused("Nope", &[], empty).await, "no_such_method");
        assert_eq!(refused("Get", &[("grpc-encoding", "gzip")], empty).await, "bad_request");
        assert_eq!(refused("Get", &[("grpc-timeout", "soon")], empty).await, "bad_request");
        assert_eq!(refused("Get", &[], &[0, 0, 0, 0, 2, 0x7A, 0]).await, "bad_request");
    }

    #[tokio::test]
    async fn what_does_not_come_in_time_is_given_up() {
        let never = || Body::from_stream(tokio_stream::pending::<Result<Bytes, Infallible>>());
        let late = judged(request("Get", &[("grpc-timeout", "10m")], never())).await.expect_err("late");
        assert_eq!(late.reason().expect("why").name(), "timeout");
        let waits = tokio::time::timeout(Duration::from_millis(30), judged(request("Get", &[], never()))).await;
        assert!(waits.is_err(), "there is time");
    }

    #[test]
    fn waits_are_read_as_grpc_says_them() {
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"00000100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for broken in [&b""[..], b"S", b"5", b"5s", b"-5S", b"123456789S", b"5.5S", b"+5S"] {
            assert_eq!(timeout(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_grpc_is_let_in() {
        let kind = |kind: &'static str| {
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(kind("application/grpc") && kind("application/grpc+proto") && kind("application/grpc;v=1"));
        assert!(!kind("application/grpc-web") && !kind("application/json") && !is_grpc(&HeaderMap::new()));
    }
}
