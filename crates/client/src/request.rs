//! What is asked, and whether asking twice does more than asking once.

use crate::pause::draw;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

/// Under which a client names what it wants.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What it means to send a request again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// It has a name, under which it is done once.
    Named(String),
    /// It changes something, and has no name to be told from another.
    Change,
}

/// One request, as `GET /v1/openapi.json` describes it. [`Client::ask`](crate::Client::ask) takes it wherever there is
/// an answer.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: Method,
    /// With the words behind its `?`.
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) kind: Kind,
}

impl Request {
    /// Asks for a page.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, kind: Kind::Read }
    }

    /// Asks for what changes nothing, with a body.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, path: path.into(), body: Some(body), kind: Kind::Read }
    }

    /// `POST /v1/tx`: done once under its name, however often it is sent. A name is drawn if there is none.
    #[must_use]
    pub fn transaction(body: Value, name: Option<String>) -> Self {
        Self::named(Method::POST, "/v1/tx".into(), body, name)
    }

    pub(crate) fn named(method: Method, path: String, body: Value, name: Option<String>) -> Self {
        Self { method, path, body: Some(body), kind: Kind::Named(name.unwrap_or_else(random_name)) }
    }

    pub(crate) fn change(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, body: Some(body), kind: Kind::Change }
    }

    /// Removes something for good, so that doing it twice does no more.
    pub(crate) fn removal(path: String) -> Self {
        Self { method: Method::DELETE, path, body: None, kind: Kind::Read }
    }

    pub(crate) fn patch(path: String, body: Value) -> Self {
        Self { method: Method::PATCH, ..Self::change(path, body) }
    }

    /// The header that tells it from another.
    pub(crate) fn header(&self) -> Result<Option<HeaderValue>, hyper::http::Error> {
        let Kind::Named(name) = &self.kind else { return Ok(None) };
        Ok(Some(HeaderValue::from_bytes(name.as_bytes())?))
    }
}

/// A name that nobody else draws: 128 random bits.
#[must_use]
pub fn random_name() -> String {
    format!("{:016x}{:016x}", draw(), draw())
}
