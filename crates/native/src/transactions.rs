//! `/v1/tx` and `/v1/status/{id}`: transactions over any keyspaces, and what became of them.

use crate::answers::{Failure, parse_id};
use crate::freshness;
use crate::locks;
use crate::names::Names;
use crate::place::there;
use crate::reasons::Reason;
use crate::words::{self, Found};
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_env::checksum::checksum;
use quorate_kv::across::{Check, Decision, Look, Transaction, TransactionResult, Write};
use quorate_kv::{CompareOp, Db, Expected, KeyRange};
use serde_json::{Value, json};
use std::sync::Arc;

/// The header under which a client names what it wants.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What became of what was aborted.
pub(crate) const NEVER: &str = "it was not done, and never will be";

/// What became of what nobody remembers.
pub(crate) const FORGOTTEN: &str = "it is too long ago: what became of it is forgotten";

pub(crate) async fn transact(
    State(db): State<Arc<dyn Db>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body: words::Transaction = words::parse(body)?;
    let keyspaces = Names::of(&body.keyspaces(), &db).await?;
    let mut transaction = translate(&body, &keyspaces)?;
    transaction.key = client_key(&headers);
    let after = body.after.as_deref().map(freshness::token).transpose()?;
    let result = carry_out(transaction, after, body.freshness.as_deref(), &db).await?;
    let reads: Vec<Found> = result.looks.iter().map(Found::from).collect();
    let mut answer = json!({
        "outcome": "done",
        "succeeded": result.succeeded,
        "repeated": result.repeated,
        "reads": reads,
    });
    if !result.appended.is_empty() {
        answer["appended"] = json!(result.appended);
    }
    if let Some(token) = freshness::told(result.at) {
        answer["token"] = json!(token);
    }
    Ok(Json(answer))
}

/// Carries out a transaction, or, where it only reads and says how fresh, looks.
pub(crate) async fn carry_out(
    mut transaction: Transaction,
    after: Option<Timestamp>,
    fresh: Option<&str>,
    db: &Arc<dyn Db>,
) -> Result<TransactionResult, Failure> {
    let freshness = freshness::parse(fresh, quorate_kv::Freshness::Strict)?;
    if fresh.is_none() {
        transaction.after = after.unwrap_or_default();
        return Ok(db.transact(transaction).await?);
    }
    let Transaction { checks, looks, success, failure, key, claims, .. } = transaction;
    let (compares, writes) = (!checks.is_empty() || claims.is_some(), !success.is_empty() || !failure.is_empty());
    if compares || writes || key.is_some() || after.is_some() {
        let why = "freshness is for reads alone: what compares or writes is strict. Leave freshness out, or the rest";
        return Err(Failure::Bad(why.into()));
    }
    let looked = db.look(looks, freshness).await?;
    let (looks, at) = (looked.looks, looked.token);
    Ok(TransactionResult { succeeded: true, looks, at, ..TransactionResult::default() })
}

pub(crate) async fn status(State(db): State<Arc<dyn Db>>, Path(id): Path<String>) -> Result<Json<Value>, Failure> {
    Ok(Json(match settle(&id, &db).await? {
        Some(Decision::Committed { succeeded, .. }) => json!({ "outcome": "done", "succeeded": succeeded }),
        Some(Decision::Aborted) => {
            let reason = Reason::Aborted;
            json!({
                "outcome": reason.outcome(),
                "reason": reason.name(),
                "message": NEVER,
            })
        }
        None => json!({ "outcome": "unknown", "message": FORGOTTEN }),
    }))
}

/// What became of what has this id; none if that is forgotten.
pub(crate) async fn settle(id: &str, db: &Arc<dyn Db>) -> Result<Option<Decision>, Failure> {
    let (home, tx) = parse_id(id).ok_or_else(|| Failure::Bad(format!("{id:?} is no transaction's id")))?;
    Ok(db.settle(home, tx).await?)
}

/// The client's name for what it wants, if it has one.
pub(crate) fn client_key(headers: &HeaderMap) -> Option<u128> {
    headers.get(IDEMPOTENCY_KEY).map(|key| name_of(key.as_bytes()))
}

/// A client's name in 128 bits: two names that differ would have to collide in both halves.
pub(crate) fn name_of(key: &[u8]) -> u128 {
    u128::from(checksum(1, key)) << 64 | u128::from(checksum(2, key))
}

fn translate(body: &words::Transaction, names: &Names) -> Result<Transaction, Failure> {
    let mut transaction = Transaction::default();
    for compare in &body.compare {
        transaction.checks.push(check(compare, names)?);
    }
    for read in &body.read {
        let (keyspace, range) = (names.find_keys(&read.keyspace)?.id, read.range().map_err(Failure::Bad)?);
        transaction.looks.push(Look { keyspace, range, limit: read.limit });
    }
    for (words, into) in [(&body.write, &mut transaction.success), (&body.otherwise, &mut transaction.failure)] {
        for write in words {
            into.push((names.find(&write.keyspace)?.id, translate_write(write).map_err(Failure::Bad)?));
        }
    }
    if let Some(lock) = &body.lock {
        let (by, held) = (locks::holder(lock.name.as_bytes())?, locks::named_held(&lock.held)?);
        transaction.claims = Some(locks::claims(by, &lock.age, held, names)?);
    }
    Ok(transaction)
}

fn check(compare: &words::Compare, names: &Names) -> Result<Check, Failure> {
    let op = match compare.op.as_deref() {
        None | Some("=") => CompareOp::Equal,
        Some("!=") => CompareOp::NotEqual,
        Some(">") => CompareOp::Greater,
        Some("<") => CompareOp::Less,
        Some(other) => return Err(Failure::Bad(format!("op is =, !=, < or >, not {other:?}"))),
    };
    let words::Compare { value, version, mod_revision, create_revision, exists, .. } = compare;
    let value = value.as_ref().map(words::Text::bytes).transpose().map_err(Failure::Bad)?;
    let (op, expected) = match (value, version, mod_revision, create_revision, exists) {
        (Some(value), None, None, None, None) => (op, Expected::Value(value)),
        (None, Some(version), None, None, None) => (op, Expected::Version(*version)),
        (None, None, Some(revision), None, None) => (op, Expected::Mod(*revision)),
        (None, None, None, Some(revision), None) => (op, Expected::Create(*revision)),
        (None, None, None, None, Some(exists)) if op == CompareOp::Equal => there(*exists),
        _ => {
            let why =
                "a compare has exactly one of value, version, mod_revision, create_revision, or exists without op";
            return Err(Failure::Bad(why.into()));
        }
    };
    let key = compare.key.bytes().map_err(Failure::Bad)?;
    Ok(Check { keyspace: names.find(&compare.keyspace)?.id, key, op, expected })
}

fn translate_write(write: &words::Write) -> Result<Write, String> {
    if let words::Write { append: Some(records), put: None, value: None, delete: None, delete_prefix: None, .. } = write
    {
        return Ok(Write::Append(words::records(records)?));
    }
    match (&write.put, &write.value, &write.delete, &write.delete_prefix) {
        _ if write.append.is_some() => Err("a write that appends does nothing else".into()),
        (Some(key), Some(value), None, None) => Ok(Write::Put { key: key.bytes()?, value: value.bytes()? }),
        (None, None, Some(key), None) => Ok(Write::Delete(KeyRange::single(key.bytes()?))),
        (None, None, None, Some(prefix)) => Ok(Write::Delete(KeyRange::prefix(prefix.bytes()?))),
        _ => Err("a write is put with value, or delete, or delete_prefix, or append".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::names;
    use quorate_kv::KeyspaceId;

    fn of(json: &str) -> Result<Transaction, String> {
        let body: words::Transaction = serde_json::from_str(json).map_err(|e| e.to_string())?;
        translate(&body, &names(&[])).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn a_transaction_is_what_it_says() {
        let keyspace = KeyspaceId(16);
        let transaction = of(r#"{"compare": [{"keyspace": "orders", "key": "o/1", "exists": false},
                            {"keyspace": "orders", "key": "o/2", "op": ">", "mod_revision": 7}],
                "read": [{"keyspace": "orders", "prefix": "o/", "limit": 3}],
                "write": [{"keyspace": "orders", "put": "o/1", "value": {"base64": "/w=="}}],
                "else": [{"keyspace": "orders", "delete": "o/3"}, {"keyspace": "orders", "delete_prefix": "p/"}]}"#);
        let check = |key: &'static str, op, expected| Check { keyspace, key: key.into(), op, expected };
        let expected = Transaction {
            checks: vec![
                check("o/1", CompareOp::Equal, Expected::Version(0)),
                check("o/2", CompareOp::Greater, Expected::Mod(7)),
            ],
            looks: vec![Look { keyspace, range: KeyRange::prefix("o/"), limit: 3 }],
            success: vec![(keyspace, Write::Put { key: "o/1".into(), value: vec![0xFF].into() })],
            failure: vec![
                (keyspace, Write::Delete(KeyRange::single("o/3"))),
                (keyspace, Write::Delete(KeyRange::prefix("p/"))),
            ],
            ..Transaction::default()
        };
        assert_eq!(transaction, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for json in [
            r#"{"reads": []}"#,
            r#"{"write": [{"keyspace": "stock", "put": "a", "value": "b"}]}"#,
            r#"{"write": [{"keyspace": "orders", "put": "a"}]}"#,
            r#"{"write": [{"keyspace": "orders", "put": "a", "value": "b", "delete": "c"}]}"#,
            r#"{"compare": [{"keyspace": "orders", "key": "a"}]}"#,
            r#"{"compare": [{"keyspace": "orders", "key": "a", "version": 1, "value": "b"}]}"#,
            r#"{"compare": [{"keyspace": "orders", "key": "a", "op": "~", "version": 1}]}"#,
            r#"{"compare": [{"keyspace": "orders", "key": "a", "op": ">", "exists": true}]}"#,
        ] {
            assert!(of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn names_of_clients_differ() {
        assert_ne!(name_of(b"order-1"), name_of(b"order-2"));
        assert_eq!(name_of(b"order-1"), name_of(b"order-1"));
    }
}
