//! `/v1/kv/{keyspace}/{key}`: one key, read and written.

use crate::answers::Failure;
use crate::freshness;
use crate::names::keyspace_of_keys;
use crate::place::{Facts, Place, Terms, Written};
use crate::query::{Query, key_of};
use crate::transactions::client_key;
use crate::words::{Condition, Delete, Kv, Put, Text, parse};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use quorate_kv::{Db, Error, Refusal};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What paths to keys begin with.
pub(crate) const ROUTE: &str = "/v1/kv/";

/// A key that is there.
#[derive(Debug, Serialize)]
pub(crate) struct There {
    outcome: &'static str,
    #[serde(flatten)]
    kv: Kv,
    /// Stands for all that the answer tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

async fn place(uri: &Uri, db: &Arc<dyn Db>) -> Result<Place, Failure> {
    Query::of(uri, &[])?;
    named(uri, db).await
}

async fn named(uri: &Uri, db: &Arc<dyn Db>) -> Result<Place, Failure> {
    let (name, key) = key_of(uri, ROUTE)?;
    Place::new(keyspace_of_keys(&name, db).await?.id, key)
}

fn facts(condition: &Condition) -> Result<Facts, String> {
    let Condition { value, version, mod_revision, create_revision, exists } = condition;
    let value = value.as_ref().map(Text::bytes).transpose()?;
    let (version, mod_revision, create_revision) = (*version, *mod_revision, *create_revision);
    Ok(Facts { value, version, mod_revision, create_revision, exists: *exists })
}

/// What a body says: the value, and what must be so.
fn wish(body: &Put) -> Result<(Bytes, Option<Facts>), String> {
    Ok((body.value.bytes()?, body.condition.as_ref().map(facts).transpose()?))
}

fn terms(headers: &HeaderMap, after: Option<&str>) -> Result<Terms, Failure> {
    Ok(Terms { name: client_key(headers), after: after.map(freshness::token).transpose()?.unwrap_or_default() })
}

fn done(written: &Written) -> Value {
    let mut answer = json!({ "outcome": "done", "repeated": written.repeated });
    if let Some(token) = freshness::told(written.token) {
        answer["token"] = json!(token);
    }
    answer
}

pub(crate) async fn get(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<There>, Failure> {
    let query = Query::of(&uri, &["freshness"])?;
    let (name, key) = key_of(&uri, ROUTE)?;
    let keyspace = keyspace_of_keys(&name, &db).await?;
    let freshness = query.freshness(keyspace.policy.freshness)?;
    let (kv, token) = Place::new(keyspace.id, key)?.get(freshness, &db).await?;
    Ok(Json(There { outcome: "done", kv: Kv::from(&kv), token: freshness::told(token) }))
}

pub(crate) async fn put(
    State(db): State<Arc<dyn Db>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let place = place(&uri, &db).await?;
    let body: Put = parse(body)?;
    let (value, condition) = wish(&body).map_err(Failure::Bad)?;
    let terms = terms(&headers, body.after.as_deref())?;
    Ok(Json(done(&place.put(value, condition, terms, &db).await?)))
}

pub(crate) async fn delete(
    State(db): State<Arc<dyn Db>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let place = place(&uri, &db).await?;
    let body: Delete = match body {
        Ok(body) if body.is_empty() => Delete::default(),
        body => parse(body)?,
    };
    let condition = body.condition.as_ref().map(facts).transpose().map_err(Failure::Bad)?;
    let terms = terms(&headers, body.after.as_deref())?;
    let written = place.delete(condition, terms, &db).await?;
    let mut answer = done(&written);
    if let Some(found) = written.found {
        answer["deleted"] = json!(found);
    }
    Ok(Json(answer))
}

/// A path that ends where its key should begin.
pub(crate) async fn no_key() -> Failure {
    Error::from(Refusal::EmptyKey).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(body: &str) -> Result<(Bytes, Option<Facts>), String> {
        let body: Put = serde_json::from_str(body).map_err(|e| e.to_string())?;
        wish(&body)
    }

    #[test]
    fn a_body_says_the_value_and_what_must_be_so() {
        let (value, condition) = put(r#"{"value": {"base64": "/w=="}}"#).expect("a put");
        assert!(value == vec![0xFF] && condition.is_none());
        let (_, condition) = put(r#"{"value": "v", "if": {"exists": true, "mod_revision": 7}}"#).expect("a put");
        let facts = condition.expect("a condition");
        assert_eq!((facts.exists, facts.mod_revision, facts.version), (Some(true), Some(7), None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            "{}",
            r#"{"value": 7}"#,
            r#"{"value": {"base64": "!"}}"#,
            r#"{"value": "v", "iff": {"exists": true}}"#,
            r#"{"value": "v", "if": {"exist": true}}"#,
            r#"{"value": "v", "if": {"value": {"base64": "!"}}}"#,
        ] {
            assert!(put(body).is_err(), "{body}");
        }
    }
}
