//! `/v1/kv/{keyspace}/{key}`: one key, read and written. Each is a transaction of one key, so it works wherever the key is, and while its shard
//! splits.

use crate::answers::Failure;
use crate::names::keyspace;
use crate::query::{Query, key_of};
use crate::transactions::client_key;
use crate::words::{Condition, Delete, Kv, Put, Text, parse};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use quorate_kv::across::{Check, Look, Transaction, TransactionResult, Write};
use quorate_kv::{CompareOp, Db, Error, Expected, KeyRange, KeyspaceId, Refusal};
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
}

/// A key in its keyspace.
struct Place {
    keyspace: KeyspaceId,
    key: Bytes,
}

impl Place {
    async fn of(uri: &Uri, db: &Arc<dyn Db>) -> Result<Self, Failure> {
        Query::of(uri, &[])?;
        let (name, key) = key_of(uri, ROUTE)?;
        Ok(Self { keyspace: keyspace(&name, db).await?.id, key })
    }

    fn look(&self) -> Look {
        Look { keyspace: self.keyspace, range: KeyRange::single(self.key.clone()), limit: 0 }
    }

    /// What a condition says of the key.
    fn checks(&self, condition: &Condition) -> Result<Vec<Check>, String> {
        let Condition { value, version, mod_revision, create_revision, exists } = condition;
        let value = value.as_ref().map(Text::bytes).transpose()?;
        let equal = [
            value.map(Expected::Value),
            version.map(Expected::Version),
            mod_revision.map(Expected::Mod),
            create_revision.map(Expected::Create),
        ];
        let equal = equal.into_iter().flatten().map(|expected| (CompareOp::Equal, expected));
        let there = |exists| if exists { CompareOp::Greater } else { CompareOp::Equal };
        let exists = exists.map(|exists| (there(exists), Expected::Version(0)));
        let check = |(op, expected)| Check { keyspace: self.keyspace, key: self.key.clone(), op, expected };
        let checks: Vec<Check> = equal.chain(exists).map(check).collect();
        match checks.is_empty() {
            true => Err("if says at least one of value, version, mod_revision, create_revision, exists".into()),
            false => Ok(checks),
        }
    }

    /// A write, if the key is as the condition says. What was there is looked at where somebody will want to know.
    fn change(&self, write: Write, condition: Option<&Condition>, key: Option<u128>) -> Result<Transaction, Failure> {
        let checks = condition.map(|condition| self.checks(condition)).transpose().map_err(Failure::Bad)?;
        let removes = matches!(write, Write::Delete(_));
        Ok(Transaction {
            looks: if removes || checks.is_some() { vec![self.look()] } else { Vec::new() },
            checks: checks.unwrap_or_default(),
            success: vec![(self.keyspace, write)],
            failure: Vec::new(),
            key,
        })
    }
}

/// What was at the key; none if nobody looked.
fn seen(result: &TransactionResult) -> Option<Option<Kv>> {
    result.looks.first().map(|found| found.kvs.first().map(Kv::from))
}

fn done(result: &TransactionResult) -> Result<Value, Failure> {
    if !result.succeeded {
        return Err(Failure::ConditionFailed(seen(result)));
    }
    Ok(json!({ "outcome": "done", "repeated": result.repeated }))
}

pub(crate) async fn get(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<There>, Failure> {
    let place = Place::of(&uri, &db).await?;
    let result = db.transact(Transaction { looks: vec![place.look()], ..Transaction::default() }).await?;
    let kv = seen(&result).flatten().ok_or(Failure::NoKey(place.key))?;
    Ok(Json(There { outcome: "done", kv }))
}

pub(crate) async fn put(
    State(db): State<Arc<dyn Db>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let place = Place::of(&uri, &db).await?;
    let body: Put = parse(body)?;
    let write = Write::Put { key: place.key.clone(), value: body.value.bytes().map_err(Failure::Bad)? };
    let change = place.change(write, body.condition.as_ref(), client_key(&headers))?;
    done(&db.transact(change).await?).map(Json)
}

pub(crate) async fn delete(
    State(db): State<Arc<dyn Db>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let place = Place::of(&uri, &db).await?;
    let body: Delete = match body {
        Ok(body) if body.is_empty() => Delete::default(),
        body => parse(body)?,
    };
    let write = Write::Delete(KeyRange::single(place.key.clone()));
    let result = db.transact(place.change(write, body.condition.as_ref(), client_key(&headers))?).await?;
    let mut answer = done(&result)?;
    if let Some(seen) = seen(&result) {
        answer["deleted"] = json!(seen.is_some());
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
    use quorate_kv::{KeyValue, LeaseId, RangeResult, Revision};

    fn place() -> Place {
        Place { keyspace: KeyspaceId(16), key: "k".into() }
    }

    fn put(body: &str) -> Result<Transaction, String> {
        let body: Put = serde_json::from_str(body).map_err(|e| e.to_string())?;
        let write = Write::Put { key: "k".into(), value: body.value.bytes()? };
        place().change(write, body.condition.as_ref(), None).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn a_put_is_a_transaction_of_one_key() {
        let plain = put(r#"{"value": {"base64": "/w=="}}"#).expect("a put");
        let write = Write::Put { key: "k".into(), value: vec![0xFF].into() };
        assert_eq!(plain, Transaction { success: vec![(KeyspaceId(16), write)], ..Transaction::default() });
        let careful = put(r#"{"value": "v", "if": {"exists": true, "mod_revision": 7}}"#).expect("a put");
        let check = |op, expected| Check { keyspace: KeyspaceId(16), key: "k".into(), op, expected };
        let expected = [check(CompareOp::Equal, Expected::Mod(7)), check(CompareOp::Greater, Expected::Version(0))];
        assert_eq!(careful.checks, expected);
        assert_eq!(careful.looks, [place().look()], "who is refused is told what is there");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            "{}",
            r#"{"value": 7}"#,
            r#"{"value": {"base64": "!"}}"#,
            r#"{"value": "v", "iff": {"exists": true}}"#,
            r#"{"value": "v", "if": {}}"#,
            r#"{"value": "v", "if": {"exist": true}}"#,
            r#"{"value": "v", "if": {"value": {"base64": "!"}}}"#,
        ] {
            assert!(put(body).is_err(), "{body}");
        }
    }

    #[test]
    fn who_is_refused_is_told_what_is_there_unless_it_is_a_repetition() {
        let kv = KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: Revision(3),
            mod_revision: Revision(9),
            version: 2,
            lease: LeaseId::NONE,
        };
        let refused = |looks| {
            let failure = done(&TransactionResult { succeeded: false, looks, repeated: false });
            let Err(Failure::ConditionFailed(now)) = failure else { panic!("the condition failed") };
            now.map(|now| json!(now))
        };
        let found = RangeResult { kvs: vec![kv], count: 1, more: false };
        let shown = json!({ "key": "k", "value": "v", "version": 2, "create_revision": 3, "mod_revision": 9 });
        assert_eq!(refused(vec![found]), Some(shown));
        assert_eq!(refused(vec![RangeResult::default()]), Some(Value::Null));
        assert_eq!(refused(Vec::new()), None);
    }
}
