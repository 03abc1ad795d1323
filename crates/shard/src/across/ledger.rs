//! What a shard knows of transactions over several shards: what it has prepared for others, and what it has decided as their home.
//!
//! ```text
//!   slot P tx   prepared here: its home, its part
//!   slot T tx   decided here: what, and which shards have yet to carry it out
//! ```
//!
//! A decision is kept until its fence has passed and every shard has carried it out. Until then, whoever asks hears it, and behind the fence nobody
//! can decide any more: so what was aborted stays aborted, and what a client retries under its key happens once.

use super::locks::{Blocker, Locks, Mode};
use crate::OpenError;
use crate::reserve::table::{Reservation, Reservations};
use crate::rows::{DECIDED, PREPARED, SLOT_BYTES, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Timestamp, Writer};
use quorate_kv::KeyRange;
use quorate_kv::across::{Decision, Part, TxId, decode_ends, encode_ends};
use quorate_kv::reserve::Claim;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A part that waits for its transaction's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Where it is decided.
    pub home: ShardId,
    /// No entry of the home's log behind this one decides.
    pub fence: LogIndex,
    /// What it does here.
    pub part: Part,
    /// When it was prepared: it happens later. [`Timestamp::ZERO`] if nobody kept timestamps then.
    pub at: Timestamp,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What.
    pub decision: Decision,
    /// It is kept until the log is behind this.
    pub fence: LogIndex,
    /// Shards that have not been heard to have carried it out.
    pub unresolved: Vec<ShardId>,
    /// The client's name for what it wants.
    pub key: Option<u128>,
    /// Where the logs ended to which it may have appended, by their shards; this one's own is under [`quorate_kv::across::OWN`].
    pub ends: Vec<(ShardId, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    prepared: BTreeMap<TxId, Prepared>,
    decided: BTreeMap<TxId, Decided>,
    /// Those of them that some shard has yet to carry out: few of very many, and asked for at every step.
    unresolved: BTreeSet<TxId>,
    /// What was committed under clients' names.
    keys: BTreeMap<u128, TxId>,
    /// Decisions that everybody has carried out, by the entry behind which they are forgotten.
    fences: BTreeSet<(LogIndex, TxId)>,
    locks: Arc<Locks>,
    reservations: Reservations,
}

impl Ledger {
    pub fn load(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let mut ledger = Self { reservations: Reservations::load(source, slot)?, ..Self::default() };
        for (kind, what) in [(PREPARED, "prepared key"), (DECIDED, "decided key")] {
            let (from, to) = slot.kind(kind);
            for row in source.scan(from, to) {
                let (key, value) = row?;
                let id = key.get(SLOT_BYTES + 1..).and_then(|id| id.try_into().ok()).map(u128::from_be_bytes);
                let tx = TxId(id.ok_or(DecodeError { what, at: 0 })?);
                match kind {
                    PREPARED => ledger.prepare(tx, Prepared::decode(value)?),
                    _ => ledger.decide(tx, Decided::decode(value)?),
                }
            }
        }
        Ok(ledger)
    }

    pub fn locks(&self) -> &Arc<Locks> {
        &self.locks
    }

    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    pub fn reserve(&mut self, key: Bytes, reservation: Reservation) {
        self.reservations.insert(key, reservation);
    }

    pub fn end_reservation(&mut self, key: &Bytes) {
        self.reservations.remove(key);
    }

    /// Whether something is prepared here that rests on what somebody has reserved.
    pub fn has_prepared_for(&self, by: TxId) -> bool {
        let claims = self.prepared.values().filter_map(|prepared| prepared.part.claim.as_ref());
        claims.into_iter().any(|claim| claim.holder.by == by)
    }

    pub fn prepared(&self, tx: TxId) -> Option<&Prepared> {
        self.prepared.get(&tx)
    }

    pub fn decided(&self, tx: TxId) -> Option<&Decided> {
        self.decided.get(&tx)
    }

    pub fn all_prepared(&self) -> impl Iterator<Item = (TxId, &Prepared)> + '_ {
        self.prepared.iter().map(|(tx, prepared)| (*tx, prepared))
    }

    /// Decisions that some shard has yet to carry out.
    pub fn unresolved(&self) -> impl Iterator<Item = (TxId, &Decided)> + '_ {
        self.unresolved.iter().filter_map(|tx| Some((*tx, self.decided.get(tx)?)))
    }

    /// Whether nothing is prepared or reserved, and what was decided is carried out everywhere.
    pub fn is_settled(&self) -> bool {
        self.prepared.is_empty() && self.unresolved.is_empty() && self.reservations.is_empty()
    }

    /// What was committed under a client's name.
    pub fn of_key(&self, key: u128) -> Option<&Decided> {
        self.keys.get(&key).and_then(|tx| self.decided.get(tx))
    }

    /// When the first of what is prepared was: whatever comes of it happens later.
    pub fn oldest_prepared(&self) -> Option<Timestamp> {
        self.prepared.values().map(|prepared| prepared.at).min()
    }

    /// A part that is prepared and reads or writes keys of a range.
    pub fn prepared_in(&self, range: &KeyRange) -> Option<Blocker> {
        self.locks.blocker(range, Mode::Write)
    }

    /// What was committed under clients' names, as rows of a shard to which some of the keys go. Here is who has it carried out.
    pub fn under_keys(&self) -> impl Iterator<Item = (TxId, Bytes)> + '_ {
        let decided = self.keys.values().filter_map(|tx| Some((*tx, self.decided.get(tx)?)));
        decided.map(|(tx, decided)| (tx, Decided { unresolved: Vec::new(), ..decided.clone() }.encode().into()))
    }

    pub fn prepare(&mut self, tx: TxId, prepared: Prepared) {
        Arc::make_mut(&mut self.locks).take(tx, &prepared.part);
        self.prepared.insert(tx, prepared);
    }

    pub fn release(&mut self, tx: TxId) -> Option<Prepared> {
        let prepared = self.prepared.remove(&tx)?;
        Arc::make_mut(&mut self.locks).release(tx, &prepared.part);
        Some(prepared)
    }

    pub fn decide(&mut self, tx: TxId, decided: Decided) {
        if let (Some(key), Decision::Committed { .. }) = (decided.key, decided.decision) {
            self.keys.insert(key, tx);
        }
        if decided.unresolved.is_empty() {
            self.fences.insert((decided.fence, tx));
            self.unresolved.remove(&tx);
        } else {
            self.unresolved.insert(tx);
        }
        self.decided.insert(tx, decided);
    }

    /// A decision that the log has passed, and that everybody has carried out.
    pub fn pop_forgotten(&mut self, now: LogIndex) -> Option<TxId> {
        let (fence, tx) = *self.fences.first()?;
        if fence >= now {
            return None;
        }
        self.fences.pop_first();
        self.unresolved.remove(&tx);
        if let Some(key) = self.decided.remove(&tx).and_then(|decided| decided.key)
            && self.keys.get(&key) == Some(&tx)
        {
            self.keys.remove(&key);
        }
        Some(tx)
    }
}

impl Prepared {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(self.home.0);
        w.varint(self.fence.0);
        self.part.encode(&mut w);
        if self.at != Timestamp::ZERO || self.part.claim.is_some() {
            w.u64(self.at.0);
        }
        self.part.claim.iter().for_each(|claim| claim.encode(&mut w));
        w.finish()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let (home, fence) = (ShardId(r.u64("home")?), LogIndex(r.varint("fence")?));
        let mut part = Part::decode(&mut r)?;
        let at = if r.is_empty() { Timestamp::ZERO } else { Timestamp(r.u64("prepared at")?) };
        part.claim = if r.is_empty() { None } else { Some(Claim::decode(&mut r)?) };
        r.end("prepared part")?;
        Ok(Self { home, fence, part, at })
    }
}

impl Decided {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.decision.encode(&mut w);
        w.varint(self.fence.0);
        w.varint(self.unresolved.len() as u64);
        self.unresolved.iter().for_each(|shard| w.u64(shard.0));
        w.bool(self.key.is_some());
        if let Some(key) = self.key {
            TxId(key).encode(&mut w);
        }
        if !self.ends.is_empty() {
            encode_ends(&self.ends, &mut w);
        }
        w.finish()
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let (decision, fence) = (Decision::decode(&mut r)?, LogIndex(r.varint("fence")?));
        let mut unresolved = Vec::new();
        for _ in 0..r.count("shards")? {
            unresolved.push(ShardId(r.u64("shard")?));
        }
        let key = if r.bool("key")? { Some(TxId::decode(&mut r)?.0) } else { None };
        let ends = if r.is_empty() { Vec::new() } else { decode_ends(&mut r)? };
        r.end("decision")?;
        Ok(Self { decision, fence, unresolved, key, ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(fence: u64, unresolved: &[u64]) -> Decided {
        let unresolved = unresolved.iter().copied().map(ShardId).collect();
        Decided { decision: Decision::Aborted, fence: LogIndex(fence), unresolved, key: None, ends: Vec::new() }
    }

    #[test]
    fn what_some_shard_has_yet_to_carry_out_is_found_among_many_and_no_longer_when_it_has() {
        let mut ledger = Ledger::default();
        (1..=1_000).for_each(|n| ledger.decide(TxId(n), decided(n as u64, &[])));
        ledger.decide(TxId(500), decided(500, &[3, 4]));
        ledger.decide(TxId(7_000), decided(7_000, &[3]));
        let found =
            |ledger: &Ledger| ledger.unresolved().map(|(tx, it)| (tx.0, it.unresolved.len())).collect::<Vec<_>>();
        assert_eq!(found(&ledger), [(500, 2), (7_000, 1)]);
        ledger.decide(TxId(500), decided(500, &[]));
        assert_eq!(found(&ledger), [(7_000, 1)]);
        while ledger.pop_forgotten(LogIndex(9_000)).is_some() {}
        assert_eq!(found(&ledger), [(7_000, 1)], "it is kept until it is carried out");
    }
}
