//! Which keys are reserved, by whom, and since which entry.
//!
//! ```text
//!   slot R key   who has reserved it: name, age, entry
//! ```

use crate::OpenError;
use crate::across::locks::Blocker;
use crate::rows::{RESERVED, SLOT_BYTES, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, Timestamp, Writer};
use quorate_kv::across::TxId;
use quorate_kv::reserve::Holder;
use quorate_kv::{KeyRange, RangeEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// That a key is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub holder: Holder,
    /// The entry that made it.
    pub since: LogIndex,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    keys: BTreeMap<Bytes, Reservation>,
    of: BTreeMap<TxId, BTreeSet<Bytes>>,
}

impl Reservations {
    pub fn load(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let mut reservations = Self::default();
        let (from, to) = slot.kind(RESERVED);
        for row in source.scan(from, to) {
            let (key, value) = row?;
            reservations.insert(key.slice(SLOT_BYTES + 1..), Reservation::decode(value)?);
        }
        Ok(reservations)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn get(&self, key: &Bytes) -> Option<Reservation> {
        self.keys.get(key).copied()
    }

    /// How many somebody has.
    pub fn count_of(&self, by: TxId) -> usize {
        self.of.get(&by).map_or(0, BTreeSet::len)
    }

    /// What somebody has, ascending.
    pub fn held_by(&self, by: TxId) -> Vec<(Bytes, Reservation)> {
        let keys = self.of.get(&by).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), self.get(key)?))).collect()
    }

    /// Who has something, and by which entries.
    pub fn all(&self) -> BTreeSet<(TxId, LogIndex)> {
        self.keys.values().map(|reservation| (reservation.holder.by, reservation.since)).collect()
    }

    /// What is reserved of a range, ascending.
    pub fn within<'a>(&'a self, range: &KeyRange) -> Box<dyn Iterator<Item = (&'a Bytes, Reservation)> + 'a> {
        let end = match &range.end {
            RangeEnd::Single => Bound::Included(range.start.clone()),
            RangeEnd::Before(end) if *end <= range.start => return Box::new(std::iter::empty()),
            RangeEnd::Before(end) => Bound::Excluded(end.clone()),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        let within = self.keys.range((Bound::Included(range.start.clone()), end));
        Box::new(within.map(|(key, reservation)| (key, *reservation)))
    }

    /// What keeps somebody from writing a range: what others have reserved, unless they are younger. Who has no age waits for all.
    pub fn blocker(&self, range: &KeyRange, holder: Option<Holder>) -> Option<Blocker> {
        self.find(range, |other| holder.is_none_or(|own| own.waits_for(other, false)))
    }

    /// The same of who reserves a key.
    pub fn before(&self, key: &Bytes, holder: Holder, patient: bool) -> Option<Blocker> {
        self.find(&KeyRange::single(key.clone()), |other| holder.waits_for(other, patient))
    }

    fn find(&self, range: &KeyRange, waits_for: impl Fn(Holder) -> bool) -> Option<Blocker> {
        if self.is_empty() {
            return None;
        }
        let mut others = self.within(range).filter(|(_, reservation)| waits_for(reservation.holder));
        others.next().map(|(key, reservation)| Blocker { key: key.clone(), by: reservation.holder.by })
    }

    pub fn insert(&mut self, key: Bytes, reservation: Reservation) {
        self.remove(&key);
        self.of.entry(reservation.holder.by).or_default().insert(key.clone());
        self.keys.insert(key, reservation);
    }

    pub fn remove(&mut self, key: &Bytes) {
        let Some(Reservation { holder, .. }) = self.keys.remove(key) else { return };
        if let Some(keys) = self.of.get_mut(&holder.by) {
            keys.remove(key);
            if keys.is_empty() {
                self.of.remove(&holder.by);
            }
        }
    }
}

impl Reservation {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.holder.by.encode(&mut w);
        w.u64(self.holder.age.0);
        w.varint(self.since.0);
        w.finish()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let by = TxId::decode(&mut r)?;
        let holder = Holder { by, age: Timestamp(r.u64("age")?) };
        let since = LogIndex(r.varint("reserved since")?);
        r.end("reservation")?;
        Ok(Self { holder, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::WallMs;
    use quorate_kv::reserve::PATIENCE_MS;

    fn holder(age: u64, by: u128) -> Holder {
        Holder { age: Timestamp(age), by: TxId(by) }
    }

    #[test]
    fn only_the_older_are_in_the_way() {
        let mut table = Reservations::default();
        table.insert("b".into(), Reservation { holder: holder(5, 1), since: LogIndex(9) });
        let key = KeyRange::single("b");
        assert_eq!(table.blocker(&key, None).map(|blocker| blocker.by), Some(TxId(1)));
        assert_eq!(table.blocker(&key, Some(holder(6, 2))).map(|blocker| blocker.by), Some(TxId(1)));
        assert_eq!(table.blocker(&key, Some(holder(5, 2))).map(|blocker| blocker.by), Some(TxId(1)), "names decide");
        assert_eq!(table.blocker(&key, Some(holder(4, 2))), None);
        assert_eq!(table.blocker(&key, Some(holder(6, 1))), None, "its own, whatever age it says");
        assert_eq!(table.blocker(&KeyRange::single("a"), None), None);
        assert!(table.blocker(&KeyRange::all(), None).is_some());
        let reversed = KeyRange { start: "z".into(), end: RangeEnd::Before("a".into()) };
        assert_eq!(table.blocker(&reversed, None), None);
        let before = KeyRange { start: "a".into(), end: RangeEnd::Before("b".into()) };
        assert_eq!(table.blocker(&before, None), None);
    }

    #[test]
    fn who_has_nothing_waits_for_those_that_are_younger_by_a_little() {
        let (ms, key) = (|ms: u64| Timestamp::of(WallMs(ms)), Bytes::from("b"));
        let mut table = Reservations::default();
        let holder = |age, by| Holder { age, by: TxId(by) };
        table.insert(key.clone(), Reservation { holder: holder(ms(1_000), 1), since: LogIndex(9) });
        let waits = |age, patient| table.before(&key, holder(ms(age), 2), patient).is_some();
        assert!(waits(1_001, true) && waits(1_001, false), "for the older one");
        assert!(waits(999, true) && waits(1_000 - PATIENCE_MS, true));
        assert!(!waits(999, false) && !waits(999 - PATIENCE_MS, true), "whoever has waited for so long does not");
        assert!(table.before(&key, holder(ms(999), 1), true).is_none(), "its own");
    }

    #[test]
    fn who_takes_a_key_over_has_it_alone() {
        let mut table = Reservations::default();
        table.insert("a".into(), Reservation { holder: holder(5, 1), since: LogIndex(9) });
        table.insert("b".into(), Reservation { holder: holder(5, 1), since: LogIndex(10) });
        table.insert("a".into(), Reservation { holder: holder(4, 2), since: LogIndex(11) });
        assert_eq!((table.count_of(TxId(1)), table.count_of(TxId(2)), table.len()), (1, 1, 2));
        assert_eq!(table.all(), BTreeSet::from([(TxId(1), LogIndex(10)), (TxId(2), LogIndex(11))]));
        table.remove(&"a".into());
        table.remove(&"b".into());
        assert!(table.is_empty() && table.of.is_empty());
    }

    #[test]
    fn a_reservation_survives_its_row() {
        let reservation = Reservation { holder: holder(300, 1 << 90), since: LogIndex(1 << 40) };
        let row = Bytes::from(reservation.encode());
        assert_eq!(Reservation::decode(row.clone()), Ok(reservation));
        (0..row.len()).for_each(|len| assert!(Reservation::decode(row.slice(..len)).is_err(), "a cut at {len}"));
    }
}
