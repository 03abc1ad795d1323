//! What the cluster should be: a keyspace in plain maps, written without a look at the real one, that replays the committed log.

use bytes::Bytes;
use quorate_env::LogIndex;
use quorate_kv::{
    Command, CommandId, Compare, CompareOp, DeleteResult, Envelope, EventKind, Expected, KeyRange, KeyValue, LeaseId,
    Op, OpResult, Outcome, PutResult, RangeEnd, RangeOp, RangeResult, Refusal, Revision, SessionId, Txn, TxnResult,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// One change of one key, `None` if it was removed.
#[derive(Clone, Debug)]
struct Version {
    revision: u64,
    kv: Option<KeyValue>,
}

/// A change, as a watch should see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub revision: u64,
    pub kind: EventKind,
    pub key: Bytes,
    pub value: Bytes,
}

/// What a command should have answered, and where it stands in the order.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pub index: LogIndex,
    pub revision: u64,
    pub answer: Result<Outcome, Refusal>,
}

#[derive(Default)]
pub(crate) struct Model {
    keys: BTreeMap<Bytes, Vec<Version>>,
    leases: BTreeMap<LeaseId, (u64, LogIndex)>,
    pub revision: u64,
    pub compacted: Option<u64>,
    pub changes: Vec<Change>,
    seen: BTreeSet<CommandId>,
    /// Per session: every command below this was answered, so one that turns up in the log later has no effect.
    answered_below: BTreeMap<SessionId, u64>,
    /// Leases that ended by expiry since last asked.
    pub expired: Vec<LeaseId>,
}

impl Model {
    pub fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    pub fn lease_exists(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    fn live(&self, key: &Bytes) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.kv.as_ref()
    }

    /// What a key holds.
    pub fn value(&self, key: &str) -> Option<String> {
        let kv = self.live(&Bytes::copy_from_slice(key.as_bytes()))?;
        Some(String::from_utf8_lossy(&kv.value).into_owned())
    }

    fn at(&self, versions: &[Version], revision: u64) -> Option<KeyValue> {
        versions.iter().rev().find(|version| version.revision <= revision)?.kv.clone()
    }

    fn keys_in<'a>(&'a self, range: &'a KeyRange) -> Box<dyn Iterator<Item = (&'a Bytes, &'a Vec<Version>)> + 'a> {
        let start = Bound::Included(range.start.clone());
        match &range.end {
            RangeEnd::Single => Box::new(self.keys.get_key_value(&range.start).into_iter()),
            RangeEnd::Before(end) if *end <= range.start => Box::new(std::iter::empty()),
            RangeEnd::Before(end) => Box::new(self.keys.range((start, Bound::Excluded(end.clone())))),
            RangeEnd::Unbounded => Box::new(self.keys.range((start, Bound::Unbounded))),
        }
    }

    /// What a plain read (no sort, no filter) answers at a revision.
    pub fn range_at(&self, op: &RangeOp, revision: u64) -> RangeResult {
        let mut kvs: Vec<KeyValue> =
            self.keys_in(&op.range).filter_map(|(_, versions)| self.at(versions, revision)).collect();
        let count = kvs.len() as u64;
        let more = op.limit > 0 && count > op.limit;
        if more {
            kvs.truncate(op.limit as usize);
        }
        RangeResult { kvs, more, count }
    }

    /// Applies a command of the committed log; `None` if it is a retry of one that was applied, or comes after its proposer gave it up.
    pub fn apply(&mut self, index: LogIndex, envelope: &Envelope) -> Option<Expectation> {
        let floor = self.answered_below.entry(envelope.id.session).or_default();
        if envelope.id.seq < *floor || !self.seen.insert(envelope.id) {
            return None;
        }
        *floor = envelope.answered_below.max(*floor);
        let before = self.revision;
        let answer = match &envelope.command {
            Command::Transact(txn) => self.transact(txn).map(Outcome::Transacted),
            Command::LeaseGrant { id, ttl_s } => match self.leases.contains_key(id) {
                true => Err(Refusal::LeaseExists),
                false => {
                    self.leases.insert(*id, (*ttl_s, index));
                    Ok(Outcome::LeaseGranted)
                }
            },
            Command::LeaseRevoke { id } => self.end_lease(*id),
            Command::LeaseExpire { id, granted_at } => match self.leases.get(id) {
                Some((_, granted)) if granted == granted_at => {
                    self.expired.push(*id);
                    self.end_lease(*id)
                }
                _ => Err(Refusal::LeaseNotFound),
            },
            Command::Compact { revision } if revision.0 > before => {
                Err(Refusal::RevisionInFuture { current: Revision(before) })
            }
            Command::Compact { revision } => match self.compacted {
                Some(compacted) if revision.0 <= compacted => {
                    Err(Refusal::RevisionCompacted { compacted: Revision(compacted) })
                }
                _ => {
                    self.compacted = Some(revision.0);
                    Ok(Outcome::Compacted)
                }
            },
            Command::Call { .. } => Err(Refusal::UnknownProcedure),
            Command::Across { .. } | Command::Reserve { .. } => {
                unreachable!("this keyspace takes no part in transactions over several shards")
            }
            Command::Split { .. } | Command::Wean { .. } | Command::Yield { .. } | Command::Absorb(_) => {
                unreachable!("an ordered keyspace is neither split nor merged")
            }
            Command::Trim { .. } => unreachable!("an ordered keyspace is no log"),
        };
        Some(Expectation { index, revision: self.revision, answer })
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<Outcome, Refusal> {
        if self.leases.remove(&id).is_none() {
            return Err(Refusal::LeaseNotFound);
        }
        let attached = |versions: &Vec<Version>| versions.last()?.kv.as_ref().filter(|kv| kv.lease == id).cloned();
        let keys: Vec<Bytes> = self.keys.values().filter_map(attached).map(|kv| kv.key).collect();
        if !keys.is_empty() {
            let revision = self.revision + 1;
            keys.iter().for_each(|key| self.remove(key, revision));
            self.revision = revision;
        }
        Ok(Outcome::LeaseRevoked)
    }

    fn remove(&mut self, key: &Bytes, revision: u64) {
        if let Some(versions) = self.keys.get_mut(key) {
            versions.push(Version { revision, kv: None });
        }
        self.changes.push(Change { revision, kind: EventKind::Delete, key: key.clone(), value: Bytes::new() });
    }

    fn holds(&self, compare: &Compare) -> bool {
        let judge = |kv: Option<&KeyValue>| {
            let order = match &compare.expected {
                Expected::Version(v) => (kv.map_or(0, |kv| kv.version as i64)).cmp(v),
                Expected::Create(v) => (kv.map_or(0, |kv| kv.create_revision.0 as i64)).cmp(v),
                Expected::Mod(v) => (kv.map_or(0, |kv| kv.mod_revision.0 as i64)).cmp(v),
                Expected::Lease(v) => (kv.map_or(0, |kv| kv.lease.0)).cmp(v),
                Expected::Value(v) => match kv {
                    Some(kv) => kv.value.cmp(v),
                    None => return false,
                },
            };
            match compare.op {
                CompareOp::Equal => order.is_eq(),
                CompareOp::NotEqual => order.is_ne(),
                CompareOp::Greater => order.is_gt(),
                CompareOp::Less => order.is_lt(),
            }
        };
        let live: Vec<&KeyValue> = self.keys_in(&compare.range).filter_map(|(_, v)| v.last()?.kv.as_ref()).collect();
        if live.is_empty() { judge(None) } else { live.into_iter().all(|kv| judge(Some(kv))) }
    }

    /// Flat transactions only: the simulated clients nest none.
    fn transact(&mut self, txn: &Txn) -> Result<TxnResult, Refusal> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        for op in ops {
            if let Op::Put(put) = op
                && put.lease != LeaseId::NONE
                && !self.leases.contains_key(&put.lease)
            {
                return Err(Refusal::LeaseNotFound);
            }
        }
        let revision = self.revision + 1;
        let mut results = Vec::new();
        for op in ops {
            results.push(match op {
                Op::Range(op) => OpResult::Range(self.range_at(op, revision)),
                Op::Put(put) => {
                    let prev = self.live(&put.key).cloned();
                    let kv = KeyValue {
                        key: put.key.clone(),
                        value: put.value.clone(),
                        create_revision: prev.as_ref().map_or(Revision(revision), |p| p.create_revision),
                        mod_revision: Revision(revision),
                        version: prev.as_ref().map_or(1, |p| p.version + 1),
                        lease: put.lease,
                    };
                    self.keys.entry(put.key.clone()).or_default().push(Version { revision, kv: Some(kv) });
                    let (key, value) = (put.key.clone(), put.value.clone());
                    self.changes.push(Change { revision, kind: EventKind::Put, key, value });
                    self.revision = revision;
                    OpResult::Put(PutResult { prev: prev.filter(|_| put.prev_kv) })
                }
                Op::Delete(delete) => {
                    let prev: Vec<KeyValue> =
                        self.keys_in(&delete.range).filter_map(|(_, v)| v.last()?.kv.clone()).collect();
                    prev.iter().for_each(|kv| self.remove(&kv.key, revision));
                    if !prev.is_empty() {
                        self.revision = revision;
                    }
                    let deleted = prev.len() as u64;
                    OpResult::Delete(DeleteResult { deleted, prev: if delete.prev_kv { prev } else { Vec::new() } })
                }
                Op::Txn(_) => unreachable!("simulated clients nest no transactions"),
            });
        }
        Ok(TxnResult { succeeded, results })
    }
}
