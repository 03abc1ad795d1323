//! The messages' words, as the core's.

use super::proto::{self, Kind, Op, compare, write};
use crate::answers::Failure;
use crate::locks::{self, Named};
use crate::names::Names;
use crate::place::{Facts, Terms, there};
use crate::transactions::name_of;
use crate::words;
use crate::{freshness, policy};
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::across::{Check, Look, Transaction, Write};
use quorate_kv::log::{Entry, Record};
use quorate_kv::{CompareOp, Db, Expected, KeyRange, KeyValue, Keyspace, KeyspaceKind, Member, Policy, RangeResult};

/// A token that what is asked for must come after.
pub(super) fn after(token: Option<&str>) -> Result<Option<Timestamp>, Failure> {
    token.map(freshness::token).transpose()
}

/// What a write goes by.
pub(super) fn terms(key: Option<&Bytes>, token: Option<&str>) -> Result<Terms, Failure> {
    Ok(Terms { name: name(key)?, after: after(token)?.unwrap_or_default() })
}

/// A key of an answer. No keyspace lives to see a revision of more than 63 bits.
pub(super) fn key_value(kv: &KeyValue) -> proto::KeyValue {
    proto::KeyValue {
        key: kv.key.clone(),
        value: kv.value.clone(),
        version: kv.version as i64,
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
    }
}

pub(super) fn found(result: &RangeResult) -> proto::Found {
    proto::Found { kvs: result.kvs.iter().map(key_value).collect(), count: result.count, more: result.more }
}

pub(super) fn facts(condition: proto::Condition) -> Facts {
    let proto::Condition { value, version, mod_revision, create_revision, exists } = condition;
    Facts { value, version, mod_revision, create_revision, exists }
}

/// A client's name for what it wants: the same as over HTTP, so that either door knows what came in by the other.
pub(super) fn name(idempotency_key: Option<&Bytes>) -> Result<Option<u128>, Failure> {
    if idempotency_key.is_some_and(Bytes::is_empty) {
        // All that forget to fill it in would have the same name.
        return Err(Failure::Bad("idempotency_key is empty: leave it out, or name what is wanted".into()));
    }
    Ok(idempotency_key.map(|key| name_of(key)))
}

/// The keyspaces that a transaction names.
pub(super) fn keyspaces(request: &proto::TransactRequest) -> Vec<&str> {
    let compares = request.compare.iter().map(|compare| &compare.keyspace);
    let reads = request.read.iter().map(|read| &read.keyspace);
    let writes = request.write.iter().chain(&request.otherwise).map(|write| &write.keyspace);
    let held = request.lock.iter().flat_map(|lock| &lock.held).map(|held| &held.keyspace);
    compares.chain(reads).chain(writes).chain(held).map(String::as_str).collect()
}

pub(super) fn transaction(request: proto::TransactRequest, names: &Names) -> Result<Transaction, Failure> {
    let mut transaction = Transaction { key: name(request.idempotency_key.as_ref())?, ..Transaction::default() };
    for compare in request.compare {
        transaction.checks.push(check(compare, names)?);
    }
    for read in request.read {
        let keyspace = names.find_keys(&read.keyspace)?.id;
        let range = words::range(read.key, read.prefix, read.from, read.to).map_err(Failure::Bad)?;
        transaction.looks.push(Look { keyspace, range, limit: read.limit });
    }
    for (writes, into) in [(request.write, &mut transaction.success), (request.otherwise, &mut transaction.failure)] {
        for write in writes {
            into.push((names.find(&write.keyspace)?.id, write_of(write)?));
        }
    }
    if let Some(lock) = request.lock {
        let by = locks::holder(&lock.name)?;
        transaction.claims = Some(locks::claims(by, &lock.age, held(lock.held), names)?);
    }
    Ok(transaction)
}

/// Keys that are taken to be reserved.
pub(super) fn held(held: Vec<proto::HeldKey>) -> Vec<(Named, u64)> {
    held.into_iter().map(|held| ((held.keyspace, held.key), held.since)).collect()
}

/// Keys of keyspaces.
pub(super) fn lock_keys(keys: Vec<proto::LockKey>) -> Vec<Named> {
    keys.into_iter().map(|key| (key.keyspace, key.key)).collect()
}

fn check(compare: proto::Compare, names: &Names) -> Result<Check, Failure> {
    let op = match Op::try_from(compare.op) {
        Ok(Op::Equal) => CompareOp::Equal,
        Ok(Op::NotEqual) => CompareOp::NotEqual,
        Ok(Op::Greater) => CompareOp::Greater,
        Ok(Op::Less) => CompareOp::Less,
        Err(_) => return Err(Failure::Bad(format!("{} is no op that is known here", compare.op))),
    };
    let (op, expected) = match compare.expected {
        Some(compare::Expected::Value(value)) => (op, Expected::Value(value)),
        Some(compare::Expected::Version(version)) => (op, Expected::Version(version)),
        Some(compare::Expected::ModRevision(revision)) => (op, Expected::Mod(revision)),
        Some(compare::Expected::CreateRevision(revision)) => (op, Expected::Create(revision)),
        Some(compare::Expected::Exists(exists)) if op == CompareOp::Equal => there(exists),
        Some(compare::Expected::Exists(_)) => {
            return Err(Failure::Bad("exists goes with OP_EQUAL alone".into()));
        }
        None => {
            let why = "a compare has one of value, version, mod_revision, create_revision, exists";
            return Err(Failure::Bad(why.into()));
        }
    };
    Ok(Check { keyspace: names.find(&compare.keyspace)?.id, key: compare.key, op, expected })
}

fn write_of(write: proto::Write) -> Result<Write, Failure> {
    match write.what {
        Some(write::What::Put(proto::Entry { key, value })) => Ok(Write::Put { key, value }),
        Some(write::What::Delete(key)) => Ok(Write::Delete(KeyRange::single(key))),
        Some(write::What::DeletePrefix(prefix)) => Ok(Write::Delete(KeyRange::prefix(prefix))),
        Some(write::What::Append(proto::Records { records })) => Ok(Write::Append(self::records(records))),
        None => Err(Failure::Bad("a write is put, or delete, or delete_prefix, or append".into())),
    }
}

/// What is appended to a log.
pub(super) fn records(records: Vec<proto::Record>) -> Vec<Record> {
    records.into_iter().map(|proto::Record { key, value }| Record { key, value }).collect()
}

pub(super) fn entry(entry: Entry) -> proto::LogEntry {
    let Record { key, value } = entry.record;
    proto::LogEntry { offset: entry.offset, timestamp: entry.at.wall().0, key, value }
}

pub(super) fn kind(kind: i32) -> Result<KeyspaceKind, Failure> {
    match Kind::try_from(kind) {
        Ok(Kind::Ordered) => Ok(KeyspaceKind::Ordered),
        Ok(Kind::Ranged) => Ok(KeyspaceKind::Ranged),
        Ok(Kind::Log) => Ok(KeyspaceKind::Log),
        Ok(Kind::Unspecified) | Err(_) => Err(Failure::Bad("kind is KIND_ORDERED, KIND_RANGED or KIND_LOG".into())),
    }
}

/// A keyspace, with where it lives, as this node knows.
pub(super) fn keyspace(keyspace: &Keyspace, db: &dyn Db) -> proto::Keyspace {
    let kind = match keyspace.kind {
        KeyspaceKind::Ordered => Kind::Ordered,
        KeyspaceKind::Ranged => Kind::Ranged,
        KeyspaceKind::Log => Kind::Log,
    };
    let of_log = |words: fn(&Policy) -> String| match keyspace.kind {
        KeyspaceKind::Log => words(&keyspace.policy),
        _ => String::new(),
    };
    let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect();
    let homes = db.homes(keyspace.id);
    let shards = keyspace.shards.iter().map(|(from, shard)| {
        let home = homes.iter().find(|home| home.shard == *shard);
        let (nodes, voters) = home.map(|home| (names(&home.wanted), names(&home.voters))).unwrap_or_default();
        proto::Shard { shard: shard.0, from: from.clone(), nodes, voters }
    });
    proto::Keyspace {
        name: keyspace.name.clone(),
        id: keyspace.id.0,
        kind: kind.into(),
        shards: shards.collect(),
        replicas: db.replicas(keyspace.id).map(|replicas| replicas as u32),
        history: policy::history_words(&keyspace.policy),
        freshness: freshness::words(keyspace.policy.freshness),
        retain: of_log(policy::retain_words),
        retain_bytes: of_log(policy::retain_bytes_words),
        replication: policy::replication_words(&keyspace.policy).into(),
        commit_wait: keyspace.policy.commit_wait,
        lost: db.losses(keyspace.id).map(|loss| proto::Loss { answers: loss.answers, found_ms: loss.found.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::names;
    use crate::reasons::Reason;
    use proto::{Compare, Entry, Read, TransactRequest};
    use quorate_kv::KeyspaceId;

    fn orders() -> String {
        "orders".into()
    }

    fn compare(key: &'static str, op: i32, expected: Option<compare::Expected>) -> Compare {
        Compare { keyspace: orders(), key: key.into(), op, expected }
    }

    fn write(what: Option<write::What>) -> proto::Write {
        proto::Write { keyspace: orders(), what }
    }

    #[test]
    fn a_transaction_is_what_it_says() {
        let keyspace = KeyspaceId(16);
        let request = TransactRequest {
            compare: vec![
                compare("o/1", 0, Some(compare::Expected::Exists(false))),
                compare("o/2", Op::Greater.into(), Some(compare::Expected::ModRevision(7))),
            ],
            read: vec![Read { keyspace: orders(), prefix: Some("o/".into()), limit: 3, ..Read::default() }],
            write: vec![write(Some(write::What::Put(Entry { key: "o/1".into(), value: vec![0xFF].into() })))],
            otherwise: vec![
                write(Some(write::What::Delete("o/3".into()))),
                write(Some(write::What::DeletePrefix("p/".into()))),
            ],
            idempotency_key: Some("order-17".into()),
            ..TransactRequest::default()
        };
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
            key: Some(name_of(b"order-17")),
            ..Transaction::default()
        };
        assert_eq!(keyspaces(&request), ["orders"; 6]);
        assert_eq!(transaction(request, &names(&[])).expect("it makes sense"), expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let version = || Some(compare::Expected::Version(1));
        let with = |compare: Compare| TransactRequest { compare: vec![compare], ..TransactRequest::default() };
        let read = |read: Read| TransactRequest { read: vec![read], ..TransactRequest::default() };
        for (request, reason) in [
            (with(compare("a", 9, version())), Reason::BadRequest),
            (with(compare("a", 0, None)), Reason::BadRequest),
            (with(compare("a", Op::Less.into(), Some(compare::Expected::Exists(true)))), Reason::BadRequest),
            (with(Compare { keyspace: "stock".into(), ..compare("a", 0, version()) }), Reason::NoSuchKeyspace),
            (TransactRequest { write: vec![write(None)], ..TransactRequest::default() }, Reason::BadRequest),
            (read(Read { keyspace: orders(), ..Read::default() }), Reason::BadRequest),
            (
                read(Read { keyspace: orders(), key: Some("k".into()), to: Some("l".into()), ..Read::default() }),
                Reason::BadRequest,
            ),
            (TransactRequest { idempotency_key: Some(Bytes::new()), ..TransactRequest::default() }, Reason::BadRequest),
        ] {
            let refused = transaction(request.clone(), &names(&[])).expect_err("refused");
            assert_eq!(refused.reason(), Some(reason), "{request:?}");
        }
        assert!(kind(0).is_err() && kind(7).is_err() && kind(Kind::Ranged.into()).is_ok());
    }
}
