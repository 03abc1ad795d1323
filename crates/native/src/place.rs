//! A key in its keyspace, and what is done with it alone. Each is a transaction of one key, so it works wherever the key is, and while its shard splits.

use crate::answers::Failure;
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::across::{Check, Look, Transaction, TransactionResult, Write};
use quorate_kv::{CompareOp, Db, Error, Expected, Freshness, KeyRange, KeyValue, KeyspaceId, Refusal};
use std::sync::Arc;

/// A key in its keyspace.
#[derive(Debug)]
pub(crate) struct Place {
    pub keyspace: KeyspaceId,
    pub key: Bytes,
}

/// What must be so of a key before it is written: everything that is named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub value: Option<Bytes>,
    pub version: Option<i64>,
    pub mod_revision: Option<i64>,
    pub create_revision: Option<i64>,
    /// Whether the key is there.
    pub exists: Option<bool>,
}

/// What a write goes by, besides its condition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// The client's name for it.
    pub name: Option<u128>,
    /// It happens later than this.
    pub after: Timestamp,
}

/// What came of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// It had been done before, under the same client's name.
    pub repeated: bool,
    /// Whether the key was there before; none if nobody looked.
    pub found: Option<bool>,
    /// When it was done.
    pub token: Timestamp,
}

/// What it means that a key is there, or is not.
pub(crate) fn there(exists: bool) -> (CompareOp, Expected) {
    (if exists { CompareOp::Greater } else { CompareOp::Equal }, Expected::Version(0))
}

impl Place {
    /// A key is never empty.
    pub fn new(keyspace: KeyspaceId, key: Bytes) -> Result<Self, Failure> {
        if key.is_empty() { Err(Error::from(Refusal::EmptyKey).into()) } else { Ok(Self { keyspace, key }) }
    }

    fn look(&self) -> Look {
        Look { keyspace: self.keyspace, range: KeyRange::single(self.key.clone()), limit: 0 }
    }

    /// What a condition says of the key.
    fn checks(&self, facts: Facts) -> Result<Vec<Check>, Failure> {
        let Facts { value, version, mod_revision, create_revision, exists } = facts;
        let equal = [
            value.map(Expected::Value),
            version.map(Expected::Version),
            mod_revision.map(Expected::Mod),
            create_revision.map(Expected::Create),
        ];
        let equal = equal.into_iter().flatten().map(|expected| (CompareOp::Equal, expected));
        let check = |(op, expected)| Check { keyspace: self.keyspace, key: self.key.clone(), op, expected };
        let checks: Vec<Check> = equal.chain(exists.map(there)).map(check).collect();
        if checks.is_empty() {
            let message = "a condition says at least one of value, version, mod_revision, create_revision, exists";
            return Err(Failure::Bad(message.into()));
        }
        Ok(checks)
    }

    /// A write, if the key is as the condition says. What was there is looked at where somebody will want to know.
    fn change(&self, write: Write, condition: Option<Facts>, terms: Terms) -> Result<Transaction, Failure> {
        let checks = condition.map(|facts| self.checks(facts)).transpose()?;
        let removes = matches!(write, Write::Delete(_));
        Ok(Transaction {
            looks: if removes || checks.is_some() { vec![self.look()] } else { Vec::new() },
            checks: checks.unwrap_or_default(),
            success: vec![(self.keyspace, write)],
            key: terms.name,
            after: terms.after,
            ..Transaction::default()
        })
    }

    /// Reads the key, and says which token goes with it.
    pub async fn get(self, freshness: Freshness, db: &Arc<dyn Db>) -> Result<(KeyValue, Timestamp), Failure> {
        let looked = db.look(vec![self.look()], freshness).await?;
        let found = looked.looks.into_iter().next().and_then(|found| found.kvs.into_iter().next());
        Ok((found.ok_or(Failure::NoKey(self.key))?, looked.token))
    }

    /// Writes the key, if it is as the condition says.
    pub async fn put(
        self,
        value: Bytes,
        condition: Option<Facts>,
        terms: Terms,
        db: &Arc<dyn Db>,
    ) -> Result<Written, Failure> {
        let write = Write::Put { key: self.key.clone(), value };
        written(&db.transact(self.change(write, condition, terms)?).await?)
    }

    /// Removes the key, if it is as the condition says.
    pub async fn delete(self, condition: Option<Facts>, terms: Terms, db: &Arc<dyn Db>) -> Result<Written, Failure> {
        let write = Write::Delete(KeyRange::single(self.key.clone()));
        written(&db.transact(self.change(write, condition, terms)?).await?)
    }
}

/// What was at the key; none if nobody looked.
fn seen(result: &TransactionResult) -> Option<Option<KeyValue>> {
    result.looks.first().map(|found| found.kvs.first().cloned())
}

fn written(result: &TransactionResult) -> Result<Written, Failure> {
    let seen = seen(result);
    if !result.succeeded {
        return Err(Failure::ConditionFailed(seen));
    }
    Ok(Written { repeated: result.repeated, found: seen.map(|seen| seen.is_some()), token: result.at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{LeaseId, RangeResult, Revision};

    fn place() -> Place {
        Place::new(KeyspaceId(16), "k".into()).expect("a key")
    }

    #[test]
    fn a_write_is_a_transaction_of_one_key() {
        let write = Write::Put { key: "k".into(), value: vec![0xFF].into() };
        let plain = place().change(write.clone(), None, Terms::default()).expect("a write");
        let expected = Transaction { success: vec![(KeyspaceId(16), write.clone())], ..Transaction::default() };
        assert_eq!(plain, expected);
        let facts = Facts { exists: Some(true), mod_revision: Some(7), ..Facts::default() };
        let careful =
            place().change(write.clone(), Some(facts), Terms { name: Some(9), after: Timestamp(7) }).expect("a write");
        let check = |op, expected| Check { keyspace: KeyspaceId(16), key: "k".into(), op, expected };
        let expected = [check(CompareOp::Equal, Expected::Mod(7)), check(CompareOp::Greater, Expected::Version(0))];
        assert_eq!((&careful.checks[..], careful.key), (&expected[..], Some(9)));
        assert_eq!(careful.looks, [place().look()], "who is refused is told what is there");
        assert!(place().change(write, Some(Facts::default()), Terms::default()).is_err(), "a condition says something");
    }

    #[test]
    fn a_key_is_never_empty() {
        let empty = Place::new(KeyspaceId(16), Bytes::new());
        assert!(matches!(empty, Err(Failure::Core(Error::Refused(Refusal::EmptyKey)))));
    }

    #[test]
    fn who_is_refused_is_told_what_is_there_unless_it_is_a_repetition() {
        let (create_revision, mod_revision) = (Revision(3), Revision(9));
        let (key, value, lease) = ("k".into(), "v".into(), LeaseId::NONE);
        let kv = KeyValue { key, value, create_revision, mod_revision, version: 2, lease };
        let refused = |looks| {
            let failure = written(&TransactionResult { looks, ..TransactionResult::default() });
            let Err(Failure::ConditionFailed(now)) = failure else { panic!("the condition failed") };
            now
        };
        let found = RangeResult { kvs: vec![kv.clone()], count: 1, more: false };
        assert_eq!(refused(vec![found]), Some(Some(kv)));
        assert_eq!(refused(vec![RangeResult::default()]), Some(None));
        assert_eq!(refused(Vec::new()), None);
    }
}
