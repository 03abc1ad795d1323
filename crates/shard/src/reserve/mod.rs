//! Reservations of keys, as a shard keeps them. What they are for is told in `kv::reserve`.
//!
//! What a transaction has prepared here rests on its reservations here: until that is resolved nothing ends them.

pub(crate) mod table;

use crate::across::locks::{Blocker, Mode};
use crate::flaw::Flaw;
use crate::machine::{MachineError, Transaction};
use bytes::Bytes;
use quorate_env::LogIndex;
use quorate_kv::across::{Part, TxId};
use quorate_kv::reserve::{Claim, Held, Hold, Holder, ReserveStep, Reserved};
use quorate_kv::{KeyRange, Outcome, Refusal, limits};
use table::Reservation;

impl Transaction<'_> {
    pub(crate) fn step_of_reservation(
        &mut self,
        by: TxId,
        step: &ReserveStep,
    ) -> Result<Result<Outcome, Refusal>, MachineError> {
        match step {
            ReserveStep::Reserve { age, patient, keys, held } => {
                self.reserve((Holder { age: *age, by }, *patient), keys, held)
            }
            ReserveStep::Release => {
                self.release_up_to(by, LogIndex(u64::MAX));
                Ok(Ok(Outcome::Released))
            }
            ReserveStep::Lapse { until } => {
                self.release_up_to(by, *until);
                Ok(Ok(Outcome::Released))
            }
        }
    }

    fn reserve(
        &mut self,
        (holder, patient): (Holder, bool),
        keys: &[Bytes],
        held: &[Hold],
    ) -> Result<Result<Outcome, Refusal>, MachineError> {
        if let Some(key) = self.lost(holder.by, held) {
            return Ok(Err(Refusal::ReservationLost { key }));
        }
        let table = self.ledger.reservations();
        let fresh = keys.iter().filter(|key| table.get(key).is_none_or(|found| found.holder.by != holder.by)).count();
        let (own, max) = (table.count_of(holder.by) + fresh, limits::RESERVED_KEYS_MAX);
        if own > max {
            return Ok(Err(Refusal::TooManyReserved { max }));
        }
        let (all, max) = (table.len() + fresh, limits::RESERVED_KEYS_OF_SHARD_MAX);
        if all > max {
            return Ok(Err(Refusal::TooManyReserved { max }));
        }
        if let Some(blocker) = keys.iter().find_map(|key| self.hindrance(holder, patient, key)) {
            return Ok(Err(blocker.into()));
        }
        let since = self.meta.applied.next();
        let mut reserved = Reserved { at: self.meta.clock, keys: Vec::with_capacity(keys.len()) };
        for key in keys {
            let before = self.ledger.reservations().get(key).filter(|found| found.holder.by == holder.by);
            let reservation = before.unwrap_or(Reservation { holder, since });
            if before.is_none() {
                self.put_row(self.slot.reserved(key), reservation.encode().into());
                self.ledger.reserve(key.clone(), reservation);
            }
            reserved.keys.push(Held { since: reservation.since, kv: self.get(key)? });
        }
        Ok(Ok(Outcome::Reserved(reserved)))
    }

    /// What keeps somebody from reserving a key: what is prepared is waited for, whoever is older.
    fn hindrance(&self, holder: Holder, patient: bool, key: &Bytes) -> Option<Blocker> {
        let range = KeyRange::single(key.clone());
        let prepared = self.ledger.locks().blocker(&range, Mode::Write);
        let prepared = prepared.filter(|_| self.flaw != Some(Flaw::ReserveOverPrepared));
        prepared.or_else(|| self.ledger.reservations().before(key, holder, patient))
    }

    /// The first key that somebody has not reserved any more, since that entry.
    fn lost(&self, by: TxId, held: &[Hold]) -> Option<Bytes> {
        let table = self.ledger.reservations();
        let still =
            |hold: &Hold| table.get(&hold.key).is_some_and(|found| found.holder.by == by && found.since == hold.since);
        held.iter().find(|hold| !still(hold)).map(|hold| hold.key.clone())
    }

    /// The first key of which a claim is not true any more.
    pub(crate) fn lost_of(&self, claim: Option<&Claim>) -> Option<Bytes> {
        let claim = claim.filter(|_| self.flaw != Some(Flaw::ClaimsUnread))?;
        self.lost(claim.holder.by, &claim.held)
    }

    /// Whether nothing comes of a part, since what it rests on is lost: then it need not wait for whoever has it.
    pub(crate) fn writes_nothing(&self, part: &Part) -> bool {
        part.failure.is_empty() && self.lost_of(part.claim.as_ref()).is_some()
    }

    /// What others have reserved of what a part writes, if they are not younger.
    pub(crate) fn reserved_by_others(&self, part: &Part) -> Option<Blocker> {
        let holder = part.claim.as_ref().map(|claim| claim.holder);
        part.ranges_written().find_map(|range| self.reserved(&range, holder))
    }

    /// What others have reserved of what somebody writes.
    pub(crate) fn reserved(&self, range: &KeyRange, holder: Option<Holder>) -> Option<Blocker> {
        if self.flaw == Some(Flaw::IgnoreReservations) {
            return None;
        }
        self.ledger.reservations().blocker(range, holder)
    }

    /// A part is prepared or decided: what younger ones have reserved of what it writes is theirs no more.
    pub(crate) fn wound(&mut self, part: &Part) {
        let Some(Claim { holder, .. }) = part.claim.as_ref().filter(|_| !self.writes_nothing(part)) else { return };
        let table = self.ledger.reservations();
        let ranges: Vec<KeyRange> = part.ranges_written().collect();
        let reserved = ranges.iter().flat_map(|range| table.within(range));
        let of_others = reserved.filter(|(_, found)| found.holder.by != holder.by).map(|(key, _)| key.clone());
        for key in of_others.collect::<Vec<_>>() {
            self.end_reservation(&key);
        }
    }

    /// What somebody has written ends all that it had reserved here.
    pub(crate) fn release_all(&mut self, claim: Option<&Claim>) {
        let Some(claim) = claim else { return };
        for (key, _) in self.ledger.reservations().held_by(claim.holder.by) {
            self.end_reservation(&key);
        }
    }

    fn release_up_to(&mut self, by: TxId, until: LogIndex) {
        if self.ledger.has_prepared_for(by) {
            // Its commit is under way; the question comes again.
            return;
        }
        for (key, reservation) in self.ledger.reservations().held_by(by) {
            if reservation.since <= until {
                self.end_reservation(&key);
            }
        }
    }

    fn end_reservation(&mut self, key: &Bytes) {
        self.delete_row(self.slot.reserved(key));
        self.ledger.end_reservation(key);
        self.unlocked = true;
    }

    /// Takes what is reserved of keys that go to another shard, as rows of that one.
    pub(crate) fn give_reservations(&mut self, range: &KeyRange) -> Vec<(Bytes, Bytes)> {
        let given = self.ledger.reservations().within(range);
        let given: Vec<(Bytes, Bytes)> =
            given.map(|(key, reservation)| (key.clone(), reservation.encode().into())).collect();
        given.iter().for_each(|(key, _)| self.end_reservation(key));
        given
    }
}
