//! `/v1/keyspaces`: which there are, new ones, and splits.

use crate::answers::Failure;
use crate::words::{Text, parse};
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use quorate_kv::{Db, Error, Keyspace, KeyspaceKind, Member, Refusal, ShardHomes, limits};
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
    /// Of each shard; three, if nothing is said.
    replicas: Option<usize>,
}

/// The body of `POST /v1/keyspaces/{name}/split`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    at: Text,
}

fn told(keyspace: &Keyspace, homes: &[ShardHomes]) -> Value {
    let kind = match keyspace.kind {
        KeyspaceKind::Ordered => "ordered",
        KeyspaceKind::Ranged => "ranged",
    };
    let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    let shards = keyspace.shards.iter().map(|(start, shard)| {
        let mut told = json!({ "shard": shard.0, "from": Text::of(start) });
        if let Some(home) = homes.iter().find(|home| home.shard == *shard) {
            told["nodes"] = json!(names(&home.wanted));
            told["voters"] = json!(names(&home.voters));
        }
        told
    });
    json!({ "name": keyspace.name, "id": keyspace.id.0, "kind": kind, "shards": shards.collect::<Vec<_>>() })
}

pub(crate) async fn list(State(db): State<Arc<dyn Db>>) -> Result<Json<Value>, Failure> {
    let keyspaces = db.keyspaces().await?;
    Ok(Json(json!({ "keyspaces": keyspaces.iter().map(|it| told(it, &db.homes(it.id))).collect::<Vec<_>>() })))
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
    let replicas = wish.replicas.unwrap_or(limits::REPLICAS_DEFAULT);
    let made = db.create_keyspace(wish.name, kind, starts, replicas).await?;
    Ok((StatusCode::CREATED, Json(told(&made, &db.homes(made.id)))))
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
    let split = db.split_keyspace(keyspace.id, at).await?;
    Ok(Json(told(&split, &db.homes(split.id))))
}
