//! From what a client wants to what each shard does, and from what the shards answer to what the client is told.

use crate::ack_wait::AckWait;
use crate::keyspaces::Keyspaces;
use bytes::Bytes;
use quorate_env::ShardId;
use quorate_kv::across::{Part, PartResult, Transaction, Write};
use quorate_kv::log::BOUNDS;
use quorate_kv::reserve::{Claim, Hold};
use quorate_kv::{Compare, KeyRange, Keyspace, KeyspaceId, KeyspaceKind, RangeOp, RangeResult, Refusal, limits};
use std::collections::BTreeMap;

/// What each shard does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub parts: BTreeMap<ShardId, Part>,
    /// Where it is decided: the shard of the first key that it may write. A retry finds the same, or one that was split off it since and knows
    /// what was decided there under clients' keys.
    pub home: ShardId,
    looks: Vec<Pieces>,
    /// The appends of either branch, in order: to which shard's log, and how many records.
    appends: [Vec<(ShardId, u64)>; 2],
}

/// The reads that a look was cut into, each by its shard and its place among that shard's reads.
#[derive(Debug, PartialEq, Eq)]
struct Pieces {
    limit: u64,
    pieces: Vec<(ShardId, usize)>,
}

impl Plan {
    /// # Errors
    /// If a keyspace does not exist, a key is empty, or it touches no shard or too many, or asks too much of one.
    pub fn of(transaction: &Transaction, keyspaces: &Keyspaces) -> Result<Self, Refusal> {
        let find = |id: KeyspaceId| keyspaces.get(id).ok_or(Refusal::KeyspaceNotFound);
        let of_keys = |id: KeyspaceId| match find(id)? {
            Keyspace { kind: KeyspaceKind::Log, .. } => Err(Refusal::KeysInLog),
            keyspace => Ok(keyspace),
        };
        let mut parts: BTreeMap<ShardId, Part> = BTreeMap::new();
        for check in &transaction.checks {
            let shard = of_keys(check.keyspace)?.shard_of(not_empty(&check.key)?);
            let range = KeyRange::single(check.key.clone());
            let compare = Compare { range, op: check.op, expected: check.expected.clone() };
            parts.entry(shard).or_default().compares.push(compare);
        }
        let mut looks = Vec::new();
        for look in &transaction.looks {
            let mut pieces = Vec::new();
            let keyspace = find(look.keyspace)?;
            // Of a log a part is as good as all of it: who reads on finds the rest.
            let bytes_max = if keyspace.kind == KeyspaceKind::Log { limits::FETCH_BYTES_MAX as u64 } else { 0 };
            for (shard, range) in keyspace.pieces(&look.range) {
                let reads = &mut parts.entry(shard).or_default().reads;
                pieces.push((shard, reads.len()));
                reads.push(RangeOp { limit: look.limit, bytes_max, ..RangeOp::of(range) });
            }
            looks.push(Pieces { limit: look.limit, pieces });
        }
        for (keyspace, write) in &transaction.success {
            for (shard, write) in pieces(find(*keyspace)?, write)? {
                parts.entry(shard).or_default().success.push(write);
            }
        }
        for (keyspace, write) in &transaction.failure {
            for (shard, write) in pieces(find(*keyspace)?, write)? {
                parts.entry(shard).or_default().failure.push(write);
            }
        }
        for (keyspace, hold) in transaction.claims.iter().flat_map(|claims| &claims.held) {
            parts.entry(of_keys(*keyspace)?.shard_of(not_empty(&hold.key)?)).or_default();
        }
        for (shard, part) in &mut parts {
            // Each part has its holder's age, so that no part waits for somebody younger.
            part.claim = transaction.claims.as_ref().map(|claims| {
                let here = |(keyspace, hold): &&(KeyspaceId, Hold)| {
                    keyspaces.get(*keyspace).is_some_and(|found| found.shard_of(&hold.key) == *shard)
                };
                let held = claims.held.iter().filter(here).map(|(_, hold)| hold.clone()).collect();
                Claim { holder: claims.holder, held }
            });
        }
        if parts.len() > limits::TRANSACTION_SHARDS_MAX {
            return Err(Refusal::TooManyShards { shards: parts.len() });
        }
        let (bytes, max) = (parts.values().map(Part::size_estimate).max().unwrap_or(0), limits::REQUEST_BYTES_MAX);
        if bytes > max {
            return Err(Refusal::TooLarge { bytes, max });
        }
        let writes = transaction.success.iter().chain(&transaction.failure);
        let ranges = writes.map(|(keyspace, write)| (*keyspace, write.range())).filter(|(_, range)| !range.is_empty());
        let first = ranges.map(|(keyspace, range)| (keyspace, range.start)).min();
        let home = match first {
            Some((keyspace, key)) => find(keyspace)?.shard_of(&key),
            None => *parts.keys().next().ok_or(Refusal::EmptyKey)?,
        };
        let appends = [&transaction.success, &transaction.failure].map(|branch| {
            let to = |(keyspace, write): &(KeyspaceId, Write)| {
                Some((keyspaces.get(*keyspace)?.shard_of(BOUNDS), write.appends()?))
            };
            branch.iter().filter_map(to).collect()
        });
        Ok(Self { parts, home, looks, appends })
    }

    /// The offset of the first record of each append of a branch, from where the logs ended; of those of which that is known.
    pub fn appended(&self, succeeded: bool, mut ends: BTreeMap<ShardId, u64>) -> Vec<u64> {
        let appends = self.appends[usize::from(!succeeded)].iter();
        let first = |(shard, count): &(ShardId, u64)| {
            let end = ends.get_mut(shard)?;
            *end += count;
            Some(*end - count)
        };
        appends.filter_map(first).collect()
    }

    /// What must be true before its client is told that it was done: what any keyspace wants that it may write in. The decision is wherever the writes are, or
    /// what is left of them would not say what became of them.
    pub fn ack_wait(&self, keyspaces: &Keyspaces) -> AckWait {
        let writes = self.parts.iter().filter(|(_, part)| !part.only_reads());
        writes.fold(AckWait::default(), |wait, (shard, _)| wait.and(keyspaces.ack_wait(*shard)))
    }

    /// One answer for each look, put together from the shards' answers.
    pub fn answers(&self, results: &BTreeMap<ShardId, PartResult>) -> Vec<RangeResult> {
        let one = |look: &Pieces| {
            let mut all = RangeResult::default();
            for (shard, at) in &look.pieces {
                if let Some(piece) = results.get(shard).and_then(|result| result.reads.get(*at)) {
                    all.kvs.extend(piece.kvs.iter().cloned());
                    all.more |= piece.more;
                    all.count += piece.count;
                }
            }
            let limit = usize::try_from(look.limit).unwrap_or(usize::MAX);
            if limit > 0 && all.kvs.len() > limit {
                all.kvs.truncate(limit);
                all.more = true;
            }
            all
        };
        self.looks.iter().map(one).collect()
    }
}

/// A key, if it can be one.
pub(super) fn not_empty(key: &Bytes) -> Result<&Bytes, Refusal> {
    match key.len() {
        0 => Err(Refusal::EmptyKey),
        bytes if bytes > limits::KEY_BYTES_MAX => Err(Refusal::TooLarge { bytes, max: limits::KEY_BYTES_MAX }),
        _ => Ok(key),
    }
}

fn pieces(keyspace: &Keyspace, write: &Write) -> Result<Vec<(ShardId, Write)>, Refusal> {
    match (keyspace.kind == KeyspaceKind::Log, write) {
        (false, Write::Append(_)) => return Err(Refusal::NotLog),
        (true, Write::Put { .. } | Write::Delete(_)) => return Err(Refusal::KeysInLog),
        _ => {}
    }
    Ok(match write {
        Write::Append(records) if records.len() > limits::APPEND_RECORDS_MAX => {
            return Err(Refusal::TooManyRecords { max: limits::APPEND_RECORDS_MAX });
        }
        Write::Append(_) => vec![(keyspace.shard_of(BOUNDS), write.clone())],
        Write::Put { key, .. } => vec![(keyspace.shard_of(not_empty(key)?), write.clone())],
        Write::Delete(range) => keyspace.pieces(range).map(|(shard, piece)| (shard, Write::Delete(piece))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspaces::tests::made;
    use quorate_env::{LogIndex, Timestamp};
    use quorate_kv::across::{Check, Look, TxId};
    use quorate_kv::reserve::{Claims, Holder};
    use quorate_kv::{CompareOp, Expected, KeyValue, LeaseId, Revision};

    fn put(key: &'static str) -> Write {
        Write::Put { key: key.into(), value: "v".into() }
    }

    fn kv(key: &'static str) -> KeyValue {
        let (create_revision, mod_revision) = (Revision(2), Revision(2));
        KeyValue { key: key.into(), value: "v".into(), create_revision, mod_revision, version: 1, lease: LeaseId::NONE }
    }

    #[test]
    fn each_shard_gets_what_is_its_own_and_answers_are_put_together() {
        let (keyspaces, orders) = made("orders", &["m"]);
        let shards: Vec<ShardId> = keyspaces.get(orders).expect("made").shards.iter().map(|(_, s)| *s).collect();
        let transaction = Transaction {
            checks: vec![Check {
                keyspace: orders,
                key: "z".into(),
                op: CompareOp::Equal,
                expected: Expected::Version(0),
            }],
            looks: vec![
                Look { keyspace: orders, range: KeyRange::single("a"), limit: 0 },
                Look { keyspace: orders, range: KeyRange::all(), limit: 2 },
            ],
            success: vec![(orders, put("z"))],
            failure: vec![(orders, Write::Delete(KeyRange::prefix("z")))],
            ..Transaction::default()
        };
        let plan = Plan::of(&transaction, &keyspaces).expect("allowed");
        assert_eq!(plan.home, shards[1], "the shard that is written to");
        assert_eq!(plan.parts[&shards[0]].reads.len(), 2);
        assert!(plan.parts[&shards[0]].only_reads());
        assert_eq!(plan.parts[&shards[1]].reads.len(), 1);
        let some = |kvs: Vec<KeyValue>| RangeResult { count: kvs.len() as u64, kvs, more: false };
        let left = PartResult {
            holds: true,
            reads: vec![some(vec![kv("a")]), some(vec![kv("a"), kv("b")])],
            ..PartResult::default()
        };
        let right = PartResult { holds: true, reads: vec![some(vec![kv("x")])], ..PartResult::default() };
        let answers = plan.answers(&BTreeMap::from([(shards[0], left), (shards[1], right)]));
        assert_eq!(answers[0], some(vec![kv("a")]));
        assert_eq!(answers[1], RangeResult { kvs: vec![kv("a"), kv("b")], more: true, count: 3 });
    }

    #[test]
    fn each_part_claims_what_is_reserved_in_its_shard_and_is_as_old_as_the_others() {
        let (keyspaces, orders) = made("orders", &["m"]);
        let hold = |key: &'static str, since| Hold { key: key.into(), since: LogIndex(since) };
        let holder = Holder { age: Timestamp(5), by: TxId(7) };
        let held = vec![(orders, hold("a", 3)), (orders, hold("b", 4))];
        let claims = Some(Claims { holder, held });
        let success = vec![(orders, put("z"))];
        let transaction = Transaction { success, claims, ..Transaction::default() };
        let plan = Plan::of(&transaction, &keyspaces).expect("allowed");
        let claims: Vec<Claim> = plan.parts.values().filter_map(|part| part.claim.clone()).collect();
        let here = Claim { holder, held: vec![hold("a", 3), hold("b", 4)] };
        assert_eq!(claims, [here, Claim { holder, held: Vec::new() }]);
        // What is only read is claimed, too.
        let reads = Transaction { success: Vec::new(), ..transaction };
        assert_eq!(Plan::of(&reads, &keyspaces).expect("allowed").parts.len(), 1);
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let (keyspaces, orders) = made("orders", &[]);
        let of = |success: Vec<(KeyspaceId, Write)>| {
            Plan::of(&Transaction { success, ..Transaction::default() }, &keyspaces).err()
        };
        assert_eq!(of(vec![(KeyspaceId(99), put("a"))]), Some(Refusal::KeyspaceNotFound));
        assert_eq!(of(vec![(KeyspaceId::SYSTEM, put("a"))]), Some(Refusal::KeyspaceNotFound));
        assert_eq!(of(vec![(orders, put(""))]), Some(Refusal::EmptyKey));
        assert_eq!(of(Vec::new()), Some(Refusal::EmptyKey));
        assert_eq!(of(vec![(KeyspaceId::DEFAULT, put("a"))]), None);
        let large = |n: usize| (orders, Write::Put { key: format!("k{n}").into(), value: vec![0; 1 << 20].into() });
        assert_eq!(of((0..7).map(large).collect()), None);
        assert!(matches!(of((0..8).map(large).collect()), Some(Refusal::TooLarge { .. })), "an entry must fit the log");
        let starts: Vec<String> = (0..limits::TRANSACTION_SHARDS_MAX).map(|n| format!("{n:03}")).collect();
        let (keyspaces, wide) = made("wide", &starts.iter().map(String::as_str).collect::<Vec<_>>());
        let success = vec![(wide, Write::Delete(KeyRange::all()))];
        let shards = limits::TRANSACTION_SHARDS_MAX + 1;
        let refused = Plan::of(&Transaction { success, ..Transaction::default() }, &keyspaces).err();
        assert_eq!(refused, Some(Refusal::TooManyShards { shards }));
    }
}
