//! How the bank's books are kept: which keys there are, and where shards begin.
//!
//! ```text
//!   a/0000 .. a/0999    accounts: a balance             ten shards
//!   c/0 .. c/7          counters: a teller's last       one shard
//!   t/0/.. .. t/7/..    journals: each transfer done    five shards
//! ```
//!
//! A transfer writes two accounts, its teller's counter and a row of its teller's journal in one transaction. So whoever sees the counters
//! at a moment knows which rows there are at that moment, and what each account must hold.

use quorate_client::Text;
use quorate_env::Rng;

/// The keyspace.
pub const BANK: &str = "bank";

/// How many accounts.
pub const ACCOUNTS: usize = 1_000;

/// What each begins with.
pub const START: u64 = 100;

/// Who moves money.
pub const TELLERS: usize = 8;

/// An account's key.
pub fn account(n: usize) -> String {
    format!("a/{n:04}")
}

/// The key of a teller's counter: the number of the last transfer it has done.
pub fn counter(teller: usize) -> String {
    format!("c/{teller}")
}

/// The key of a journal's row.
pub fn entry(teller: usize, n: u64) -> String {
    format!("t/{teller}/{n:08}")
}

/// Which transfer a journal's key speaks of.
pub fn numbers(key: &[u8]) -> Option<(usize, u64)> {
    let (teller, n) = std::str::from_utf8(key).ok()?.strip_prefix("t/")?.split_once('/')?;
    Some((teller.parse().ok()?, n.parse().ok()?))
}

/// Money from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose balance falls.
    pub from: usize,
    /// Whose rises.
    pub to: usize,
    /// By how much.
    pub amount: u64,
}

impl Row {
    /// Between two accounts, which are not the same.
    pub fn draw(rng: &mut Rng) -> Self {
        let from = rng.below(ACCOUNTS as u64) as usize;
        let to = (from + 1 + rng.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
        // More than most accounts have, now and then: that is refused.
        Self { from, to, amount: if rng.chance(50) { 3 * START } else { rng.between(1, START / 4) } }
    }

    /// As the journal says it.
    pub fn said(self) -> String {
        format!("{} {} {}", self.from, self.to, self.amount)
    }

    /// Reads that.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let mut next = || words.next()?.parse::<u64>().ok();
        let (from, to, amount) = (next()?, next()?, next()?);
        Some(Self { from: from as usize, to: to as usize, amount })
    }
}

/// Where shards begin, besides the first: sixteen at the start.
pub fn cuts() -> Vec<Text> {
    let accounts = (1..10).map(|n| account(n * ACCOUNTS / 10));
    let journals = [0, 2, 4, 6, 7].map(|teller| format!("t/{teller}"));
    let cuts = accounts.chain(["c".into()]).chain(journals);
    cuts.map(|cut| Text::from(&cut)).collect()
}

/// A key at which a shard may be split next.
pub fn cut(rng: &mut Rng) -> String {
    match rng.below(4) {
        0 => entry(rng.below(TELLERS as u64) as usize, rng.below(2_000)),
        _ => account(rng.below(ACCOUNTS as u64) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bank_begins_with_sixteen_shards_in_order() {
        let cuts: Vec<Text> = cuts();
        assert_eq!(cuts.len(), 15);
        assert!(cuts.is_sorted());
    }

    #[test]
    fn a_row_is_read_as_it_was_said() {
        let row = Row { from: 3, to: 999, amount: 17 };
        assert_eq!(Row::read(row.said().as_bytes()), Some(row));
        assert_eq!(Row::read(b"3 999"), None);
        assert_eq!(numbers(entry(7, 12).as_bytes()), Some((7, 12)));
        assert_eq!(numbers(b"a/0001"), None);
    }
}
