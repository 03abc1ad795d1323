//! The random stream. Few keys, leases and values, so that requests meet each other; and of everything that a field allows also what no
//! sensible client sends.

use super::request::{Request, SHORT_LEASES};
use bytes::Bytes;
use quorate_env::Rng;
use quorate_etcd::proto::etcdserverpb::compare::TargetUnion;
use quorate_etcd::proto::etcdserverpb::request_op::Request as Op;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

/// One thing that both servers are asked to do.
#[derive(Debug)]
pub enum Step {
    /// A call with one answer.
    Call(Request),
    /// Open a watch on the one watch stream.
    Open(WatchCreateRequest),
    /// Cancel a watch, open or not.
    Cancel(i64),
}

const KEYS: &[&[u8]] = &[b"a", b"b", b"ab", b"abc", b"c", b"d", b"\x00", b"e\xff", b""];
const VALUES: &[&[u8]] = &[b"1", b"2", b"xyz", b""];

/// Leases that keys are attached to. They outlive every run: an expiry comes when it likes and would move the revision.
const LEASES: &[i64] = &[1, 2, -3];

/// Transactions within transactions.
const DEPTH_MAX: u64 = 3;

/// Draws steps, given what came of the ones before.
pub struct Stream {
    rng: Rng,
    revision: i64,
    watches: Vec<i64>,
    short_leases: i64,
    /// Whether the transaction in the making may delete up to the end of all keys. Only such a delete may stand beside a put of a key that
    /// it removes; and if that put is to keep the key's value or lease, etcd 3.5 ends with a panic. So either the one or the other.
    open_ended: bool,
}

impl Stream {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), revision: 1, watches: Vec::new(), short_leases: SHORT_LEASES, open_ended: true }
    }

    /// What the last step led to.
    pub fn learn(&mut self, revision: i64, watches: Vec<i64>) {
        self.revision = revision;
        self.watches = watches;
    }

    /// The next step.
    pub fn next(&mut self) -> Step {
        Step::Call(match self.rng.below(1000) {
            0..290 => Request::Put(self.put()),
            290..530 => Request::Range(self.range()),
            530..620 => Request::Delete(self.delete()),
            620..885 => {
                self.open_ended = self.one_in(2);
                Request::Txn(self.txn(0))
            }
            885..903 => Request::Compact(self.compact()),
            903..930 => Request::Grant(self.grant()),
            930..940 => Request::Revoke(LeaseRevokeRequest { id: self.pick(&[1, 2, -3, 9, 0, -1]) }),
            940..955 => Request::TimeToLive(self.time_to_live()),
            955..965 => Request::Leases,
            965..985 => return Step::Open(self.watch()),
            _ => return Step::Cancel(self.watch_id()),
        })
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.below(items.len() as u64) as usize]
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(self.pick(KEYS))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.pick(VALUES))
    }

    fn range_end(&mut self) -> Bytes {
        match self.rng.below(5) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\x00"),
            3 => Bytes::from_static(b"z"),
            _ => self.key(),
        }
    }

    /// A revision around those that there are: `before` below the present to `after` above it.
    fn revision_near(&mut self, before: i64, after: i64) -> i64 {
        self.revision - before + self.rng.below((before + after + 1) as u64) as i64
    }

    /// Mostly 0, which means "not given", or else any revision that there was.
    fn bound(&mut self) -> i64 {
        if self.one_in(4) { self.rng.below(self.revision as u64 + 1) as i64 } else { 0 }
    }

    fn read_revision(&mut self) -> i64 {
        match self.rng.below(8) {
            0 => self.rng.below(self.revision as u64 + 3) as i64,
            1 => self.revision_near(20, 1).max(-1),
            2 if self.one_in(4) => -1,
            _ => 0,
        }
    }

    fn range(&mut self) -> RangeRequest {
        let sorted = self.one_in(2);
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: self.pick(&[0, 0, 1, 2, 3, -1]),
            revision: self.read_revision(),
            sort_order: if sorted { self.pick(&[0, 0, 1, 1, 2, 2, 3, -1]) } else { 0 },
            // Never an unknown target: etcd 3.5 ends with a panic when asked to sort by one.
            sort_target: if sorted { self.pick(&[0, 1, 2, 3, 4]) } else { 0 },
            serializable: self.one_in(5),
            keys_only: self.one_in(5),
            count_only: self.one_in(10),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.key(),
            value: self.value(),
            lease: self.pick(&[0, 0, 0, 0, 1, 2, -3, 77]),
            prev_kv: self.one_in(2),
            ignore_value: self.one_in(10),
            ignore_lease: self.one_in(10),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(2) }
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let mut ops = || (0..self.rng.below(4)).map(|_| RequestOp { request: self.op(depth) }).collect::<Vec<_>>();
        let (success, failure) = (ops(), ops());
        TxnRequest { compare: (0..self.rng.below(3)).map(|_| self.compare()).collect(), success, failure }
    }

    fn op(&mut self, depth: u64) -> Option<Op> {
        match self.rng.below(200) {
            0 => None,
            1..70 => Some(Op::RequestRange(self.range())),
            150..175 => Some(Op::RequestDeleteRange(self.delete_in_txn())),
            175.. if depth < DEPTH_MAX => Some(Op::RequestTxn(self.txn(depth + 1))),
            _ => Some(Op::RequestPut(self.put_in_txn())),
        }
    }

    fn put_in_txn(&mut self) -> PutRequest {
        let keeps = !self.open_ended;
        let put = self.put();
        PutRequest { ignore_value: put.ignore_value && keeps, ignore_lease: put.ignore_lease && keeps, ..put }
    }

    fn delete_in_txn(&mut self) -> DeleteRangeRequest {
        let mut delete = self.delete();
        if !self.open_ended && delete.range_end[..] == [0] {
            delete.range_end = Bytes::from_static(b"z");
        }
        delete
    }

    fn compare(&mut self) -> Compare {
        let unknown = self.one_in(25);
        let target = if unknown { 5 } else { self.rng.below(5) as i32 };
        let result = if self.one_in(25) { self.pick(&[4, -1]) } else { self.rng.below(4) as i32 };
        // Now and then what is expected belongs to another target, or is missing.
        let of_target = if self.one_in(10) { self.rng.below(6) as i32 } else { target };
        let target_union = match of_target {
            0 => Some(TargetUnion::Version(self.rng.below(5) as i64 - 1)),
            1 => Some(TargetUnion::CreateRevision(self.revision_near(30, 0).max(0))),
            2 => Some(TargetUnion::ModRevision(self.revision_near(30, 0).max(0))),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.pick(&[0, 1, 2, -3]))),
            _ => None,
        };
        Compare { result, target, key: self.key(), range_end: self.range_end(), target_union }
    }

    fn compact(&mut self) -> CompactionRequest {
        let revision = if self.one_in(5) {
            self.rng.below(self.revision as u64 + 3) as i64 - 1
        } else {
            self.revision_near(30, 0).max(1)
        };
        CompactionRequest { revision, physical: self.one_in(3) }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        if self.one_in(3) {
            // These may expire while the run goes on, so nothing is ever attached to them.
            self.short_leases += 1;
            let ttl = self.pick(&[1, 2, 0, -5, 60, 9_000_000_000, 9_000_000_001, i64::MAX]);
            return LeaseGrantRequest { ttl, id: self.short_leases };
        }
        LeaseGrantRequest { ttl: self.pick(&[3000, 5000]), id: self.pick(&[0, 1, 1, 1, 2, 2, 2, -3, -3]) }
    }

    fn time_to_live(&mut self) -> LeaseTimeToLiveRequest {
        let id = if self.one_in(5) { self.pick(&[0, 9, -1]) } else { self.pick(LEASES) };
        LeaseTimeToLiveRequest { id, keys: !self.one_in(3) }
    }

    fn watch(&mut self) -> WatchCreateRequest {
        let start_revision = match self.rng.below(10) {
            0 | 1 => self.rng.below(self.revision as u64 + 1) as i64,
            2 | 3 => self.revision_near(20, 0).max(0),
            4 => self.revision_near(0, 30),
            5 if self.one_in(3) => self.pick(&[-1, -7]),
            _ => 0,
        };
        let filters: &[&[i32]] = &[&[], &[], &[], &[0], &[1], &[0, 1], &[1, 1], &[2]];
        WatchCreateRequest {
            key: self.key(),
            range_end: self.range_end(),
            start_revision,
            progress_notify: self.one_in(4),
            filters: self.pick(filters).to_vec(),
            prev_kv: self.one_in(2),
            watch_id: if self.one_in(3) { self.watch_id() } else { 0 },
            fragment: self.one_in(4),
        }
    }

    /// The id of a watch that is open, or another one.
    fn watch_id(&mut self) -> i64 {
        if self.watches.is_empty() || self.one_in(4) {
            return self.pick(&[0, 3, 7, 100, -1, -9]);
        }
        self.watches[self.rng.below(self.watches.len() as u64) as usize]
    }
}
