//! `/v1/keyspaces`: which there are, new ones, what is wanted of them, and splits.

use crate::answers::Failure;
use crate::query::Query;
use crate::words::{Text, parse};
use crate::{freshness, policy};
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use quorate_kv::{Db, Error, Keyspace, KeyspaceKind, Loss, Member, Refusal, ShardHomes, limits};
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

/// The body of `PATCH /v1/keyspaces/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    history: Option<String>,
    freshness: Option<String>,
    retain: Option<String>,
    retain_bytes: Option<String>,
    replication: Option<String>,
    commit_wait: Option<bool>,
}

/// The body of `POST /v1/keyspaces/{name}/split`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    at: Text,
}

fn told(keyspace: &Keyspace, homes: &[ShardHomes], replicas: Option<usize>) -> Value {
    let kind = match keyspace.kind {
        KeyspaceKind::Ordered => "ordered",
        KeyspaceKind::Ranged => "ranged",
        KeyspaceKind::Log => "log",
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
    let shards: Vec<Value> = shards.collect();
    let (history, fresh) = (policy::history_words(&keyspace.policy), freshness::words(keyspace.policy.freshness));
    let mut told = json!({ "name": keyspace.name, "id": keyspace.id.0, "kind": kind, "shards": shards });
    (told["history"], told["freshness"]) = (history.into(), fresh.into());
    if keyspace.kind == KeyspaceKind::Log {
        told["retain"] = policy::retain_words(&keyspace.policy).into();
        told["retain_bytes"] = policy::retain_bytes_words(&keyspace.policy).into();
    }
    told["replication"] = policy::replication_words(&keyspace.policy).into();
    told["commit_wait"] = keyspace.policy.commit_wait.into();
    if let Some(replicas) = replicas {
        told["replicas"] = json!(replicas);
    }
    told
}

/// With where it lives and what was lost of it, as this node knows.
fn placed(db: &dyn Db, keyspace: &Keyspace) -> Value {
    let mut told = told(keyspace, &db.homes(keyspace.id), db.replicas(keyspace.id));
    if let Some(Loss { answers, found }) = db.losses(keyspace.id) {
        told["lost"] = json!({ "answers": answers, "found_ms": found.0 });
    }
    told
}

/// As a majority knows them; with `stale=true` as this node does, which it can say without a leader.
pub(crate) async fn list(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<Value>, Failure> {
    let stale = Query::of(&uri, &["stale"])?.flag("stale")?;
    let keyspaces = if stale { db.known_keyspaces() } else { db.keyspaces().await? };
    Ok(Json(json!({ "keyspaces": keyspaces.iter().map(|it| placed(&*db, it)).collect::<Vec<_>>() })))
}

pub(crate) async fn create(
    State(db): State<Arc<dyn Db>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let wish: Wish = parse(body)?;
    let kind = match wish.kind.as_str() {
        "ordered" => KeyspaceKind::Ordered,
        "ranged" => KeyspaceKind::Ranged,
        "log" => KeyspaceKind::Log,
        other => return Err(Failure::Bad(format!("kind is \"ordered\", \"ranged\" or \"log\", not {other:?}"))),
    };
    let starts = wish.split_at.iter().map(Text::bytes).collect::<Result<_, _>>().map_err(Failure::Bad)?;
    let replicas = wish.replicas.unwrap_or(limits::REPLICAS_DEFAULT);
    let made = db.create_keyspace(wish.name, kind, starts, replicas).await?;
    Ok((StatusCode::CREATED, Json(placed(&*db, &made))))
}

pub(crate) async fn change(
    State(db): State<Arc<dyn Db>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let change: Change = parse(body)?;
    let Change { history, freshness, retain, retain_bytes, replication, commit_wait } = &change;
    let [history, freshness, retain, retain_bytes, replication] =
        [history, freshness, retain, retain_bytes, replication].map(|words| words.as_deref());
    let commit_wait = *commit_wait;
    let change = policy::parse(policy::Words { history, freshness, retain, retain_bytes, replication, commit_wait })?;
    let changed = db.change_policy(known(&name, &db).await?.id, change).await?;
    Ok(Json(placed(&*db, &changed)))
}

pub(crate) async fn split(
    State(db): State<Arc<dyn Db>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let cut: Cut = parse(body)?;
    let split = split_at(&name, cut.at.bytes().map_err(Failure::Bad)?, &db).await?;
    Ok(Json(placed(&*db, &split)))
}

/// Splits a keyspace, by name, as a majority knows it.
pub(crate) async fn split_at(name: &str, at: Bytes, db: &Arc<dyn Db>) -> Result<Keyspace, Failure> {
    Ok(db.split_keyspace(known(name, db).await?.id, at).await?)
}

/// A keyspace, by name, as a majority knows it.
pub(crate) async fn known(name: &str, db: &Arc<dyn Db>) -> Result<Keyspace, Failure> {
    let keyspace = db.keyspaces().await?.into_iter().find(|keyspace| keyspace.name == name);
    Ok(keyspace.ok_or(Error::Refused(Refusal::KeyspaceNotFound))?)
}
