//! The native API over HTTP and JSON: keyspaces, keys, and transactions over any of them (docs/native-api.md).
//!
//! ```text
//!   POST /v1/tx ──json──> words ──> kv::across::Transaction ──> kv::Db
//!   every answer is done, refused with a reason, or unknown with an id to ask about later
//! ```
//!
//! This crate knows JSON's words and nothing of consensus, storage or time; it holds a [`quorate_kv::Db`] and translates.

mod answers;
mod keyspaces;
mod transactions;
mod words;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use quorate_kv::{Db, limits};
use std::sync::Arc;
use std::time::Duration;

/// JSON may say in twice as many bytes what a request may hold: escapes, names, base64.
pub(crate) const BODY_BYTES_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;

/// A request that has not been read and answered after this long is given up. The core answers far sooner: what takes this long is a body that does
/// not come.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(30);

async fn in_time(request: Request, next: Next) -> Response {
    within(REQUEST_TIME, next.run(request)).await
}

async fn within(time: Duration, answer: impl Future<Output = Response>) -> Response {
    let answer = tokio::time::timeout(time, answer).await;
    answer.unwrap_or_else(|_| answers::Failure::TooSlow.into_response())
}

/// The routes under `/v1`.
pub fn router(db: Arc<dyn Db>) -> Router {
    Router::new()
        .route("/v1/tx", post(transactions::transact))
        .route("/v1/status/{id}", get(transactions::status))
        .route("/v1/keyspaces", get(keyspaces::list).post(keyspaces::create))
        .route("/v1/keyspaces/{name}/split", post(keyspaces::split))
        .fallback(answers::no_such_page)
        .method_not_allowed_fallback(answers::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_come_to_an_end_is_told_so() {
        let time = Duration::from_millis(10);
        assert_eq!(within(time, std::future::pending()).await.status().as_u16(), 408);
        assert_eq!(within(time, async { "done".into_response() }).await.status().as_u16(), 200);
    }
}
