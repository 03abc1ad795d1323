//! Clients: each has one operation in flight, through whichever node it likes, and remembers only what it was told.

use crate::checks::order::Floor;
use quorate_cluster::Request;
use quorate_env::{Rng, ShardId};
use quorate_kv::{
    Command, Compare, CompareOp, Consistency, DeleteOp, Expected, KeyRange, KeyspaceId, LeaseId, Op, PutOp, RangeOp,
    Revision, Txn,
};

pub(crate) const SHARD: ShardId = ShardId(KeyspaceId::DEFAULT.0);

/// Keys that the clients fight over.
const KEYS: u64 = 12;

/// Keys that are seldom written: most of a store is old. And of a thousand plain writes, those that write one of them.
const COLD_KEYS: u64 = 300;
const COLD_PER_MILLE: u64 = 150;

/// What an operation is, as far as judging its answer goes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Write,
    Grant { id: LeaseId, ttl_s: u64 },
    Renew { id: LeaseId },
    Compact,
    Read { op: RangeOp, linearizable: bool },
}

/// An operation in flight.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub operation: u64,
    pub node: usize,
    pub kind: Kind,
    pub began: Floor,
    pub began_us: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    rng: Rng,
    pub in_flight: Option<(u64, InFlight)>,
    leases: Vec<LeaseId>,
    /// Whether it uses leases: in the calm it lets all of them run out.
    pub renews: bool,
    /// Of a thousand operations, those about leases that come beside the usual mix.
    lease_per_mille: u64,
    pub completed: u64,
}

impl Client {
    pub fn new(number: u64, rng: Rng, lease_per_mille: u64) -> Self {
        Self { number, rng, in_flight: None, leases: Vec::new(), renews: true, lease_per_mille, completed: 0 }
    }

    pub fn pick_node(&mut self, nodes: usize) -> usize {
        self.rng.below(nodes as u64) as usize
    }

    pub fn think(&mut self, think_us: (u64, u64)) -> u64 {
        self.rng.between(think_us.0, think_us.1)
    }

    pub fn granted(&mut self, id: LeaseId) {
        self.leases.push(id);
    }

    pub fn lost(&mut self, id: LeaseId) {
        self.leases.retain(|lease| *lease != id);
    }

    fn key(&mut self) -> String {
        format!("k/{}", self.rng.below(KEYS))
    }

    /// A transaction that begins by writing the operation's number.
    fn marked(&self, operation: u64, compares: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> Command {
        let mark = || Op::Put(PutOp::of(format!("m/{}", self.number), operation.to_string()));
        let with_mark = |ops: Vec<Op>| std::iter::once(mark()).chain(ops).collect();
        Command::Transact(Txn { compares, success: with_mark(success), failure: with_mark(failure) })
    }

    /// A write of one key, and its mark.
    pub fn put(&self, operation: u64, key: &str, value: &str) -> (Kind, Request) {
        let put = vec![Op::Put(PutOp::of(key.to_owned(), value.to_owned()))];
        (Kind::Write, Request::Submit { shard: SHARD, command: self.marked(operation, Vec::new(), put, Vec::new()) })
    }

    /// A linearizable read of one key.
    pub fn read(key: &str) -> (Kind, Request) {
        let op = RangeOp::of(KeyRange::single(key.to_owned()));
        let request = Request::View { shard: SHARD, consistency: Consistency::Linearizable };
        (Kind::Read { op, linearizable: true }, request)
    }

    /// A plain write, for judging whether the cluster is alive.
    pub fn plain_write(&mut self, operation: u64) -> (Kind, Request) {
        (
            Kind::Write,
            Request::Submit { shard: SHARD, command: self.marked(operation, Vec::new(), Vec::new(), Vec::new()) },
        )
    }

    fn grant(&mut self, operation: u64) -> (Kind, Request) {
        let (id, ttl_s) = (LeaseId(operation as i64), self.rng.between(2, 4));
        (Kind::Grant { id, ttl_s }, Request::Submit { shard: SHARD, command: Command::LeaseGrant { id, ttl_s } })
    }

    /// `None` if it has no lease that it believes in.
    fn renew(&mut self) -> Option<(Kind, Request)> {
        let lease = *self.rng.pick(&self.leases)?;
        Some((Kind::Renew { id: lease }, Request::Lease { shard: SHARD, lease, renew: true, with_keys: false }))
    }

    /// The next operation. `known` is a revision that the client has heard of.
    pub fn next(&mut self, operation: u64, known: u64) -> (Kind, Request) {
        let submit = |command| Request::Submit { shard: SHARD, command };
        if self.renews && self.lease_per_mille > 0 && self.rng.chance(self.lease_per_mille) {
            // Few of many are renewed: a renewal that counts for nothing must not be covered up by the next one.
            let renewal = if self.rng.chance(400) { self.renew() } else { None };
            return renewal.unwrap_or_else(|| self.grant(operation));
        }
        let key = self.key();
        match self.rng.below(100) {
            0..35 => {
                let cold = self.rng.chance(COLD_PER_MILLE);
                let key = if cold { format!("cold/{:03}", self.rng.below(COLD_KEYS)) } else { key };
                let lease = if self.rng.chance(200) { self.leases.last().copied() } else { None };
                let put = PutOp {
                    lease: lease.unwrap_or(LeaseId::NONE),
                    prev_kv: self.rng.chance(300),
                    ..PutOp::of(key, format!("{operation}-{}", "v".repeat(self.rng.below(60) as usize)))
                };
                (Kind::Write, submit(self.marked(operation, Vec::new(), vec![Op::Put(put)], Vec::new())))
            }
            35..50 => {
                let expected = Expected::Version(self.rng.below(3) as i64);
                let compare = Compare { range: KeyRange::single(key.clone()), op: CompareOp::Greater, expected };
                let swap = Op::Put(PutOp::of(key.clone(), format!("swapped {operation}")));
                let look = Op::Range(RangeOp::of(KeyRange::prefix("k/")));
                (Kind::Write, submit(self.marked(operation, vec![compare], vec![swap, look.clone()], vec![look])))
            }
            50..58 => {
                let range = if self.rng.chance(300) { KeyRange::prefix("k/1") } else { KeyRange::single(key) };
                let delete = Op::Delete(DeleteOp { range, prev_kv: true });
                (Kind::Write, submit(self.marked(operation, Vec::new(), vec![delete], Vec::new())))
            }
            58..63 if self.renews => self.grant(operation),
            63..70 if self.renews && !self.leases.is_empty() => self.renew().expect("there are leases"),
            70..72 => {
                let revision = Revision(known.saturating_sub(self.rng.below(40)).max(1));
                (Kind::Compact, submit(Command::Compact { revision }))
            }
            _ => {
                let linearizable = self.rng.chance(700);
                let range = if self.rng.chance(500) { KeyRange::single(key) } else { KeyRange::prefix("k/") };
                let revision = self.rng.chance(250).then(|| Revision(known.saturating_sub(self.rng.below(30)).max(1)));
                let limit = if self.rng.chance(200) { self.rng.between(1, 5) } else { 0 };
                let op = RangeOp { revision, limit, ..RangeOp::of(range) };
                let consistency = if linearizable { Consistency::Linearizable } else { Consistency::Serializable };
                (Kind::Read { op, linearizable }, Request::View { shard: SHARD, consistency })
            }
        }
    }
}
