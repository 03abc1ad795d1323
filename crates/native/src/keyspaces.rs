//! `/v1/keyspaces`: which there are, new ones, and splits.

use crate::answers::Failure;
use crate::words::{Text, parse};
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use quorate_kv::{Db, Error, Keyspace, KeyspaceKind, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The body of `POST /v1/keyspaces`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    name: String,
    kind: String,
    /// Where shards begin, besides the first.
    #[serde(default)]
    split_at: Vec<Text>,
}

/// The body of `POST /v1/keyspaces/{name}/split`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    at: Text,
}

fn told(keyspace: &Keyspace) -> Value {
    let kind = match keyspace.kind {
        KeyspaceKind::Ordered => "ordered",
        KeyspaceKind::Ranged => "ranged",
    };
    let shards = keyspace.shards.iter().map(|(start, shard)| json!({ "shard": shard.0, "from": Text::of(start) }));
    json!({ "name": keyspace.name, "id": keyspace.id.0, "kind": kind, "shards": shards.collect::<Vec<_>>() })
}

pub(crate) async fn list(State(db): State<Arc<dyn Db>>) -> Result<Json<Value>, Failure> {
    let keyspaces = db.keyspaces().await?;
    Ok(Json(json!({ "keyspaces": keyspaces.iter().map(told).collect::<Vec<_>>() })))
}

pub(crate) async fn create(
    State(db): State<Arc<dyn Db>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let wish: Wish = parse(body)?;
    let kind = match wish.kind.as_str() {
        "ordered" => KeyspaceKind::Ordered,
        "ranged" => KeyspaceKind::Ranged,
        other => return Err(Failure::Bad(format!("kind is \"ordered\" or \"ranged\", not {other:?}"))),
    };
    let starts = wish.split_at.iter().map(Text::bytes).collect::<Result<_, _>>().map_err(Failure::Bad)?;
    let made = db.create_keyspace(wish.name, kind, starts).await?;
    Ok((StatusCode::CREATED, Json(told(&made))))
}

pub(crate) async fn split(
    State(db): State<Arc<dyn Db>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let cut: Cut = parse(body)?;
    let at = cut.at.bytes().map_err(Failure::Bad)?;
    let keyspace = db.keyspaces().await?.into_iter().find(|keyspace| keyspace.name == name);
    let keyspace = keyspace.ok_or(Error::Refused(Refusal::KeyspaceNotFound))?;
    Ok(Json(told(&db.split_keyspace(keyspace.id, at).await?)))
}
