//! Tellers: clients that move money between accounts on many shards, and write to registers on many shards, in single transactions. Every value
//! names the operation that wrote it, so that whoever reads it tells whom it has seen.

use crate::locking::Locking;
use crate::plan::{AUDITS_PERCENT, BankPlan};
use bytes::Bytes;
use quorate_cluster::Request;
use quorate_env::{Rng, ShardId};
use quorate_kv::across::{Check, Look, Transaction, Write};
use quorate_kv::{
    Command, CompareOp, Consistency, Expected, KeyRange, KeyValue, KeyspaceId, Op, PutOp, RangeEnd, RangeOp, Txn,
};
use std::collections::BTreeMap;

/// The keyspace's name.
pub(crate) const BANK: &str = "bank";

/// What is in each account at the beginning, and how many registers there are.
const START: i64 = 100;
const REGISTERS: u64 = 12;

/// How many accounts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accounts(pub u64);

impl Default for Accounts {
    fn default() -> Self {
        Self(24)
    }
}

impl Accounts {
    /// One of them. All names are of one length, so that they sort as their numbers do.
    pub fn key(self, n: u64) -> Bytes {
        let width = self.0.saturating_sub(1).checked_ilog10().map_or(1, |tens| tens as usize + 1).max(2);
        format!("a/{n:0width$}").into()
    }

    pub fn keys(self) -> impl Iterator<Item = Bytes> {
        (0..self.0).map(move |n| self.key(n))
    }

    /// Whether these are all of the accounts, with all of the money.
    pub fn hold_all(self, amounts: &[i64]) -> bool {
        amounts.len() as u64 == self.0 && amounts.iter().sum::<i64>() == START * self.0 as i64
    }

    /// Where the shards begin: cut through accounts and registers alike.
    pub fn starts(self, shards: u64) -> Vec<Bytes> {
        let keys: Vec<Bytes> = self.keys().chain((0..REGISTERS).map(register)).collect();
        (1..shards).map(|n| keys[(n as usize * keys.len()) / shards as usize].clone()).collect()
    }

    /// Some account or, in one of three cases, some register.
    pub fn any_key(self, rng: &mut Rng) -> Bytes {
        let n = rng.below(self.0 + self.0 / 2);
        if n < self.0 { self.key(n) } else { register((n - self.0) % REGISTERS) }
    }
}

/// Everything that an audit reads.
pub(crate) fn accounts() -> KeyRange {
    KeyRange::prefix("a/")
}

fn register(n: u64) -> Bytes {
    format!("r/{n:02}").into()
}

/// Some register.
pub(crate) fn any_register(rng: &mut Rng) -> Bytes {
    register(rng.below(REGISTERS))
}

/// Some registers.
pub(crate) fn register_range(rng: &mut Rng) -> KeyRange {
    let first = rng.below(REGISTERS);
    KeyRange { start: register(first), end: RangeEnd::Before(register(first + rng.between(1, REGISTERS))) }
}

/// What a value says: who wrote it, and how much it is.
pub(crate) fn parse(value: &[u8]) -> Option<(u64, i64)> {
    let (operation, amount) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((operation.parse().ok()?, amount.parse().ok()?))
}

pub(crate) fn value(operation: u64, amount: i64) -> Bytes {
    format!("{operation}:{amount}").into()
}

/// What a teller asked for.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// To open all accounts, if none is open.
    Open,
    /// To write these keys, if what it knows of them still holds.
    Write { keys: Vec<Bytes>, reads: Vec<KeyRange> },
    /// To see all accounts.
    Audit,
    /// To write one key through its own shard.
    Put { key: Bytes },
    /// To see some keys through their own shard.
    Read { op: RangeOp },
    /// To reserve keys.
    Lock { keys: Vec<Bytes> },
}

#[derive(Debug)]
pub(crate) struct Teller {
    rng: Rng,
    /// For what it reserves.
    locks: Rng,
    locks_per_mille: u64,
    accounts: Accounts,
    audits_percent: u64,
    /// What it knows of accounts: amount and revision.
    known: BTreeMap<Bytes, (i64, u64)>,
    pub in_flight: Option<(u64, TellerFlight)>,
    pub completed: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct TellerFlight {
    pub operation: u64,
    pub node: usize,
    pub deed: Deed,
    pub began_us: u64,
    /// What it asks again, under the client's own name for it, when nobody tells it what became of it.
    pub again: Option<Request>,
    pub asked: u32,
    /// How often it had asked for something else before, when it began to ask for this.
    pub asked_before: u32,
    /// What it reserves, if it does.
    pub lock: Option<Locking>,
}

impl TellerFlight {
    /// How often it has asked for what it asks for.
    pub fn sent(&self) -> u32 {
        self.asked - self.asked_before
    }
}

impl Teller {
    pub fn new(rng: Rng, locks: Rng, plan: &BankPlan) -> Self {
        let BankPlan { accounts, audits_percent, locks_per_mille, .. } = *plan;
        let (known, in_flight, completed) = (BTreeMap::new(), None, 0);
        Self { rng, locks, locks_per_mille, accounts, audits_percent, known, in_flight, completed }
    }

    /// What it reserves next, if it does.
    pub fn next_lock(&mut self, operation: u64, now: u64) -> Option<Locking> {
        let reserves = self.locks_per_mille > 0 && self.locks.chance(self.locks_per_mille);
        reserves.then(|| Locking::new(self.accounts, operation, now, &mut self.locks))
    }

    pub fn lock_rng(&mut self) -> &mut Rng {
        &mut self.locks
    }

    /// As [`Self::pick`], for what it reserves.
    pub fn pick_lock(&mut self, below: usize) -> usize {
        self.locks.below(below as u64) as usize
    }

    pub fn pick(&mut self, below: usize) -> usize {
        self.rng.below(below as u64) as usize
    }

    pub fn think(&mut self, think_us: (u64, u64)) -> u64 {
        self.rng.between(think_us.0, think_us.1)
    }

    /// It has seen these accounts.
    pub fn saw(&mut self, kvs: &[KeyValue]) {
        for kv in kvs.iter().filter(|kv| kv.key.starts_with(b"a/")) {
            if let Some((_, amount)) = parse(&kv.value) {
                self.known.insert(kv.key.clone(), (amount, kv.mod_revision.0));
            }
        }
    }

    /// What it knows has turned out to be old. Where audits are rare it goes on with the rest, and learns from each transaction that finds a change.
    pub fn forget(&mut self) {
        if self.audits_percent >= AUDITS_PERCENT {
            self.known.clear();
        }
    }

    /// The first transaction of all.
    pub fn open(&self, bank: KeyspaceId, operation: u64) -> (Deed, Request) {
        let check = |key: Bytes| Check { keyspace: bank, key, op: CompareOp::Equal, expected: Expected::Version(0) };
        let put = |key| (bank, Write::Put { key, value: value(operation, START) });
        let (checks, success) = (vec![check(self.accounts.key(0))], self.accounts.keys().map(put).collect());
        (Deed::Open, Request::Transact(Transaction { checks, success, ..Transaction::default() }))
    }

    /// The next operation. `shard_of` tells where a key lives, for those that go there directly.
    pub fn next(&mut self, bank: KeyspaceId, operation: u64, shard_of: impl Fn(&[u8]) -> ShardId) -> (Deed, Request) {
        match self.rng.below(100) {
            drawn if drawn + self.audits_percent < 65 && self.known.len() > 1 => self.transfer(bank, operation),
            0..65 => {
                let looks = vec![Look { keyspace: bank, range: accounts(), limit: 0 }];
                (Deed::Audit, Request::Transact(Transaction { looks, ..Transaction::default() }))
            }
            65..85 => self.registers(bank, operation),
            85..93 => {
                let key = register(self.rng.below(REGISTERS));
                let txn = Txn::just(Op::Put(PutOp::of(key.clone(), value(operation, 0))));
                let request = Request::Submit { shard: shard_of(&key), command: Command::Transact(txn) };
                (Deed::Put { key }, request)
            }
            _ => {
                let key = if self.rng.chance(500) {
                    register(self.rng.below(REGISTERS))
                } else {
                    self.accounts.key(self.rng.below(self.accounts.0))
                };
                let shard = shard_of(&key);
                let op = RangeOp::of(KeyRange::single(key));
                (Deed::Read { op }, Request::View { shard, consistency: Consistency::Linearizable })
            }
        }
    }

    /// From some accounts to one, if they hold what the teller thinks.
    fn transfer(&mut self, bank: KeyspaceId, operation: u64) -> (Deed, Request) {
        let mut keys: Vec<Bytes> = self.known.keys().cloned().collect();
        let count = self.rng.between(2, 4.min(keys.len() as u64)) as usize;
        while keys.len() > count {
            let at = self.rng.below(keys.len() as u64) as usize;
            keys.swap_remove(at);
        }
        let (mut checks, mut success, mut moved) = (Vec::new(), Vec::new(), 0);
        for (n, key) in keys.iter().enumerate() {
            let (amount, revision) = self.known[key];
            let expected = Expected::Mod(revision as i64);
            checks.push(Check { keyspace: bank, key: key.clone(), op: CompareOp::Equal, expected });
            let change = if n + 1 == keys.len() { moved } else { -(self.rng.below(10) as i64) };
            moved -= change;
            success.push((bank, Write::Put { key: key.clone(), value: value(operation, amount + change) }));
        }
        // Whoever finds that it was wrong learns what is right.
        let looks: Vec<Look> =
            keys.iter().map(|key| Look { keyspace: bank, range: KeyRange::single(key.clone()), limit: 0 }).collect();
        let reads = keys.iter().map(|key| KeyRange::single(key.clone())).collect();
        let key = self.rng.chance(300).then(|| u128::from(operation));
        (
            Deed::Write { keys, reads },
            Request::Transact(Transaction { checks, looks, success, key, ..Transaction::default() }),
        )
    }

    /// Some registers are written, and others read, in one.
    fn registers(&mut self, bank: KeyspaceId, operation: u64) -> (Deed, Request) {
        let mut keys: Vec<Bytes> = (0..self.rng.between(1, 3)).map(|_| register(self.rng.below(REGISTERS))).collect();
        keys.sort();
        keys.dedup();
        let range = register_range(&mut self.rng);
        let looks = vec![Look { keyspace: bank, range: range.clone(), limit: 0 }];
        let put = |key: &Bytes| (bank, Write::Put { key: key.clone(), value: value(operation, 0) });
        let success = keys.iter().map(put).collect();
        let key = self.rng.chance(500).then(|| u128::from(operation));
        let request = Request::Transact(Transaction { looks, success, key, ..Transaction::default() });
        (Deed::Write { keys, reads: vec![range] }, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_sort_as_their_numbers_do_and_shards_begin_among_them() {
        let range = accounts();
        for accounts in [1, 24, 100, 101, 1_000].map(Accounts) {
            let keys: Vec<Bytes> = accounts.keys().collect();
            assert!(keys.is_sorted() && keys.len() as u64 == accounts.0, "{keys:?}");
            assert!(keys.iter().all(|key| range.contains(key)));
        }
        assert_eq!(Accounts::default().key(7), "a/07");
        assert_eq!(Accounts(1_000).key(7), "a/007");
        let starts = Accounts(1_000).starts(16);
        assert!(starts.is_sorted() && starts.iter().all(|key| range.contains(key)), "{starts:?}");
        assert_eq!(starts.len(), 15);
    }

    #[test]
    fn money_that_is_missing_or_in_one_account_less_is_noticed() {
        let accounts = Accounts(3);
        assert!(accounts.hold_all(&[90, 110, 100]));
        assert!(!accounts.hold_all(&[90, 110, 99]));
        assert!(!accounts.hold_all(&[150, 150]));
    }
}
