//! `/v1/locks/{name}`: keys that an interactive transaction reserves before it reads them, so that its commit is not beaten by others' (docs/design/transactions.md).

use crate::answers::Failure;
use crate::freshness;
use crate::names::Names;
use crate::transactions::name_of;
use crate::words::{self, Kv, Text};
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use quorate_env::LogIndex;
use quorate_kv::across::TxId;
use quorate_kv::reserve::{Claims, Granted, Hold, Holder, Wish};
use quorate_kv::{Db, KeyspaceId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A key of a keyspace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub keyspace: String,
    pub key: Text,
}

/// A key that is taken to be reserved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeldKey {
    pub keyspace: String,
    pub key: Text,
    /// As it was told.
    pub since: u64,
}

/// The body of `POST /v1/locks/{name}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reserve {
    pub keys: Vec<Key>,
    /// As it was told; left out with the first keys of all.
    pub age: Option<String>,
    #[serde(default)]
    pub held: Vec<HeldKey>,
}

/// The body of `DELETE /v1/locks/{name}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    pub keys: Vec<Key>,
}

/// What a transaction has reserved: `lock` in the body of `POST /v1/tx`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    pub name: String,
    pub age: String,
    pub held: Vec<HeldKey>,
}

/// A key of a request, by whichever door it came.
pub(crate) type Named = (String, Bytes);

/// Who reserves, in a client's words.
pub(crate) fn holder(name: &[u8]) -> Result<TxId, Failure> {
    match name.is_empty() {
        // All that forget to fill it in would have the same name.
        true => Err(Failure::Bad("a lock's name is empty: draw one at random".into())),
        false => Ok(TxId(name_of(name))),
    }
}

/// Reserves keys for who has that name.
pub(crate) async fn reserve_for(
    by: TxId,
    age: Option<&str>,
    (keys, held): (Vec<Named>, Vec<(Named, u64)>),
    db: &Arc<dyn Db>,
) -> Result<Granted, Failure> {
    if keys.is_empty() {
        return Err(Failure::Bad("no keys are to be reserved: name some".into()));
    }
    let all: Vec<&str> = keys.iter().chain(held.iter().map(|(key, _)| key)).map(|(name, _)| name.as_str()).collect();
    let names = Names::of(&all, db).await?;
    let age = age.map(freshness::token).transpose()?;
    Ok(db.reserve(Wish { by, age, keys: found(keys, &names)?, held: held_of(held, &names)? }).await?)
}

/// Gives up what who has that name has reserved.
pub(crate) async fn release_of(by: TxId, keys: Vec<Named>, db: &Arc<dyn Db>) -> Result<(), Failure> {
    let names = Names::of(&keys.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), db).await?;
    Ok(db.release(by, found(keys, &names)?).await?)
}

/// What a transaction rests on.
pub(crate) fn claims(by: TxId, age: &str, held: Vec<(Named, u64)>, names: &Names) -> Result<Claims, Failure> {
    Ok(Claims { holder: Holder { age: freshness::token(age)?, by }, held: held_of(held, names)? })
}

fn found(keys: Vec<Named>, names: &Names) -> Result<Vec<(KeyspaceId, Bytes)>, Failure> {
    keys.into_iter().map(|(keyspace, key)| Ok((names.find(&keyspace)?.id, key))).collect()
}

fn held_of(held: Vec<(Named, u64)>, names: &Names) -> Result<Vec<(KeyspaceId, Hold)>, Failure> {
    let one =
        |((keyspace, key), since): (Named, u64)| Ok((names.find(&keyspace)?.id, Hold { key, since: LogIndex(since) }));
    held.into_iter().map(one).collect()
}

fn named(keys: &[Key]) -> Result<Vec<Named>, Failure> {
    keys.iter().map(|key| Ok((key.keyspace.clone(), key.key.bytes().map_err(Failure::Bad)?))).collect()
}

/// Keys that are taken to be reserved, in a body's words.
pub(crate) fn named_held(held: &[HeldKey]) -> Result<Vec<(Named, u64)>, Failure> {
    let bytes = |key: &Text| key.bytes().map_err(Failure::Bad);
    held.iter().map(|held| Ok(((held.keyspace.clone(), bytes(&held.key)?), held.since))).collect()
}

pub(crate) async fn reserve(
    State(db): State<Arc<dyn Db>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body: Reserve = words::parse(body)?;
    let keys = (named(&body.keys)?, named_held(&body.held)?);
    let granted = reserve_for(holder(name.as_bytes())?, body.age.as_deref(), keys, &db).await?;
    let one = |(key, held): (&Key, &quorate_kv::reserve::Held)| {
        let (since, kv) = (held.since.0, held.kv.as_ref().map(Kv::from));
        json!({ "keyspace": key.keyspace, "key": key.key, "since": since, "kv": kv })
    };
    let keys: Vec<Value> = body.keys.iter().zip(&granted.keys).map(one).collect();
    let mut answer = json!({ "outcome": "done", "age": granted.age.to_string(), "keys": keys });
    if let Some(token) = freshness::told(granted.at) {
        answer["token"] = json!(token);
    }
    Ok(Json(answer))
}

pub(crate) async fn release(
    State(db): State<Arc<dyn Db>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body: Release = words::parse(body)?;
    release_of(holder(name.as_bytes())?, named(&body.keys)?, &db).await?;
    Ok(Json(json!({ "outcome": "done" })))
}
