//! One client's connection: what it must say first, and what it may hold.
//!
//! ```text
//!   accepted ──opening──> protocol known ──HTTP/2──> kept while it answers pings
//!       └─(too slow)─> closed                └─HTTP/1──> closed when no request comes in time
//! ```
//!
//! A client must open with something that tells the protocol, within [`OPENING_TIMEOUT`]: for HTTP/2 its preface and the beginning of
//! its settings, without which it is no client at all; for anything else a first byte that is not the preface's, from where on hyper's
//! own timer watches. A client of HTTP/2 may then wait for its first call as long as it likes, as etcd's clients do.

use crate::frames::Frames;
use crate::metrics::Metrics;
use crate::options::{HEADER_BYTES_MAX, KEEPALIVE, OPENING_TIMEOUT, STREAMS_PER_CONNECTION_MAX};
use crate::server::Stop;
use crate::unserved;
use axum::response::Response;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, join};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::Service;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What paths begin with that are not etcd's: pages, and calls.
const NATIVE: [&str; 2] = ["/v1/", "/quorate.v1.Quorate/"];

/// The head of a frame of HTTP/2.
const FRAME_HEAD_BYTES: usize = 9;

/// Reads what a client opens with: as much as tells that it is a client.
async fn opening(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut first = Vec::with_capacity(512);
    while first.len() < PREFACE.len() + FRAME_HEAD_BYTES {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let told = first.len().min(PREFACE.len());
        if first[..told] != PREFACE[..told] {
            break;
        }
    }
    Ok(first.into())
}

/// What stands behind every connection.
#[derive(Clone)]
pub(crate) struct Front {
    pub router: axum::Router,
    /// What is under [`NATIVE`]: another layer's.
    pub native: axum::Router,
    pub metrics: Arc<Metrics>,
    pub message_bytes_max: usize,
}

impl Front {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response, Infallible> {
        if NATIVE.iter().any(|native| request.uri().path().starts_with(native)) {
            return self.native.call(request).await;
        }
        match unserved::refusal(&request, &self.metrics) {
            Some(status) => Ok(status.into_http()),
            None => self.router.call(request.map(|body| Frames::new(body, self.message_bytes_max))).await,
        }
    }
}

/// Serves a connection until it ends, or until `stop` says so and its calls have ended.
pub(crate) async fn serve(stream: TcpStream, front: Front, mut stop: Stop) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!("a client connection has no options: {e}");
    }
    let (mut read, write) = stream.into_split();
    let first = tokio::select! {
        first = timeout(OPENING_TIMEOUT, opening(&mut read)) => match first {
            Ok(Ok(first)) => first,
            Ok(Err(_)) | Err(_) => return,
        },
        () = stop.wait() => return,
    };
    let stream = join(Cursor::new(first).chain(read), write);

    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(OPENING_TIMEOUT).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    let service = service_fn(move |request| front.clone().answer(request));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.wait() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a client connection ended: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What is known after the client sent `pieces` and closed its side, or did not.
    async fn opened_with(pieces: &[&[u8]], closes: bool) -> Option<io::Result<Bytes>> {
        let (mut client, mut server) = tokio::io::duplex(1024);
        for piece in pieces {
            client.write_all(piece).await.expect("room");
        }
        if closes {
            client.shutdown().await.expect("shut down");
        }
        timeout(std::time::Duration::from_millis(50), opening(&mut server)).await.ok()
    }

    #[tokio::test]
    async fn only_a_preface_with_settings_or_another_protocol_opens() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let whole = [&PREFACE[..], &settings[..]].concat();
        for len in 0..whole.len() {
            assert!(opened_with(&[&whole[..len]], false).await.is_none(), "{len} bytes are not enough");
            assert!(opened_with(&[&whole[..len]], true).await.is_some_and(|first| first.is_err()), "cut off at {len}");
        }
        for cut in 0..whole.len() {
            let first = opened_with(&[&whole[..cut], &whole[cut..]], false).await.expect("enough").expect("opened");
            assert_eq!(first, whole);
        }
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"P OST", b"PRI * HTTP/1.1", &[0xFF]] {
            assert_eq!(opened_with(&[other], false).await.expect("told").expect("opened"), other);
        }
    }
}
