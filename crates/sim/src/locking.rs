//! A teller's transfer that reserves the accounts before it reads them, and then writes without a look at what it has read: that they are still reserved is all that it
//! rests on.

use crate::teller::{Accounts, parse, value};
use bytes::Bytes;
use quorate_cluster::Request;
use quorate_env::{LogIndex, Rng, Timestamp};
use quorate_kv::KeyspaceId;
use quorate_kv::across::{Transaction, TxId, Write};
use quorate_kv::reserve::{Claims, Granted, Hold, Holder, Wish};

/// How often it begins anew when it has lost something.
const RUNS_MAX: u32 = 8;

/// Of a thousand, those that walk away when they have reserved everything.
const LEAVES_PER_MILLE: u64 = 60;

/// Of a thousand, those that think for longer than they may.
const SLOW_PER_MILLE: u64 = 40;

/// How long it thinks before it commits, in microseconds; and if it thinks for too long.
const THINK_US: (u64, u64) = (1, 100_000);
const SLOW_US: (u64, u64) = (3_500_000, 5_000_000);

/// What a teller has reserved so far.
#[derive(Clone, Debug)]
pub(crate) struct Locking {
    pub by: TxId,
    pub age: Option<Timestamp>,
    /// In the order in which it wants them.
    pub keys: Vec<Bytes>,
    /// Those that it has, since when, who has written them, and what is in them.
    held: Vec<(Bytes, LogIndex, u64, i64)>,
    /// How many it asks for at once.
    at_once: usize,
    runs: u32,
    named: bool,
    leaves: bool,
    pub think_us: u64,
    /// When it first asked for something.
    pub began_us: u64,
    pub committing: bool,
}

impl Locking {
    pub fn new(accounts: Accounts, operation: u64, now: u64, rng: &mut Rng) -> Self {
        // Few accounts, so that tellers meet.
        let hot = Accounts(accounts.0).keys().count().min(6) as u64;
        let mut keys: Vec<Bytes> = Vec::new();
        for _ in 0..rng.between(2, 4) {
            let key = accounts.key(rng.below(hot) * accounts.0 / hot);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let slow = rng.chance(SLOW_PER_MILLE);
        let (least, most) = if slow { SLOW_US } else { THINK_US };
        Self {
            by: TxId(u128::from(rng.next_u64()) << 64 | u128::from(operation)),
            age: None,
            at_once: rng.between(1, 3) as usize,
            keys,
            held: Vec::new(),
            runs: 0,
            named: rng.chance(500),
            leaves: rng.chance(LEAVES_PER_MILLE),
            think_us: rng.between(least, most),
            began_us: now,
            committing: false,
        }
    }

    pub fn holder(&self) -> Holder {
        Holder { age: self.age.unwrap_or_default(), by: self.by }
    }

    /// Who had written what it has reserved.
    pub fn saw(&self) -> impl Iterator<Item = (&Bytes, u64)> {
        self.held.iter().map(|(key, _, writer, _)| (key, *writer))
    }

    pub fn has_all(&self) -> bool {
        self.held.len() == self.keys.len()
    }

    /// Whether nobody hears of it any more.
    pub fn leaves(&self) -> bool {
        self.leaves
    }

    fn asked(&self) -> &[Bytes] {
        let from = self.held.len();
        &self.keys[from..(from + self.at_once).min(self.keys.len())]
    }

    fn holds(&self, bank: KeyspaceId) -> Vec<(KeyspaceId, Hold)> {
        self.held.iter().map(|(key, since, ..)| (bank, Hold { key: key.clone(), since: *since })).collect()
    }

    /// The next keys.
    pub fn wish(&self, bank: KeyspaceId) -> Request {
        let keys = self.asked().iter().map(|key| (bank, key.clone())).collect();
        Request::Reserve(Wish { by: self.by, age: self.age, keys, held: self.holds(bank) })
    }

    /// It has them, unless one of them is none.
    pub fn granted(&mut self, granted: &Granted) -> Option<()> {
        self.age = Some(granted.age);
        let keys = self.asked().to_vec();
        for (key, held) in keys.into_iter().zip(&granted.keys) {
            let (writer, amount) = parse(&held.kv.as_ref()?.value)?;
            self.held.push((key, held.since, writer, amount));
        }
        Some(())
    }

    /// It has lost something, and begins anew, as old as it is.
    pub fn anew(&mut self) -> bool {
        self.runs += 1;
        self.held.clear();
        self.committing = false;
        self.runs < RUNS_MAX
    }

    /// Money goes from each account to the last; nothing is compared.
    pub fn commit(&mut self, bank: KeyspaceId, operation: u64, rng: &mut Rng) -> Request {
        self.committing = true;
        let (mut success, mut moved) = (Vec::new(), 0);
        for (n, (key, _, _, amount)) in self.held.iter().enumerate() {
            let change = if n + 1 == self.held.len() { moved } else { -(rng.below(10) as i64) };
            moved -= change;
            success.push((bank, Write::Put { key: key.clone(), value: value(operation, amount + change) }));
        }
        // Each run has a name of its own.
        let key = self.named.then(|| 1 << 100 | u128::from(operation) << 16 | u128::from(self.runs));
        let claims = Some(Claims { holder: self.holder(), held: self.holds(bank) });
        Request::Transact(Transaction { success, key, claims, ..Transaction::default() })
    }

    /// Nothing of it is wanted any more.
    pub fn release(&self, bank: KeyspaceId) -> Request {
        Request::Release { by: self.by, keys: self.keys.iter().map(|key| (bank, key.clone())).collect() }
    }
}
