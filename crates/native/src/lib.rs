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
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use quorate_kv::{Db, limits};
use std::sync::Arc;

/// JSON may say in twice as many bytes what a request may hold: escapes, names, base64.
pub(crate) const BODY_BYTES_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;

/// The routes under `/v1`.
pub fn router(db: Arc<dyn Db>) -> Router {
    Router::new()
        .route("/v1/tx", post(transactions::transact))
        .route("/v1/status/{id}", get(transactions::status))
        .route("/v1/keyspaces", get(keyspaces::list).post(keyspaces::create))
        .fallback(answers::no_such_page)
        .method_not_allowed_fallback(answers::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(db)
}
