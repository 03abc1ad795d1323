//! Which keys transactions over several shards hold, from their prepare to their decision. Derived from what is prepared; never waited in:
//! whoever meets a lock is refused and comes again, so nobody can wait in a circle.

use bytes::Bytes;
use quorate_kv::across::{Part, TxId};
use quorate_kv::{KeyRange, RangeEnd};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What a lock is held for, or what somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Others may read, too.
    Read,
    /// Nobody else may do anything.
    Write,
}

impl Mode {
    fn excludes(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

/// A lock in somebody's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The first key of what is locked.
    pub key: Bytes,
    /// Who holds it.
    pub by: TxId,
}

/// The locks of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    keys: BTreeMap<Bytes, BTreeMap<TxId, Mode>>,
    spans: BTreeMap<TxId, Vec<(KeyRange, Mode)>>,
}

impl Locks {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.spans.is_empty()
    }

    /// Takes all that a part needs. The caller has looked that nothing is in the way.
    pub fn take(&mut self, tx: TxId, part: &Part) {
        for (range, mode) in wants(part) {
            if range.is_single() {
                let held = self.keys.entry(range.start).or_default().entry(tx).or_insert(mode);
                *held = mode.max(*held);
            } else if !range.is_empty() {
                self.spans.entry(tx).or_default().push((range, mode));
            }
        }
    }

    /// Lets go of all that a part needed.
    pub fn release(&mut self, tx: TxId, part: &Part) {
        self.spans.remove(&tx);
        for (range, _) in wants(part) {
            if let Some(holders) = self.keys.get_mut(&range.start) {
                holders.remove(&tx);
                if holders.is_empty() {
                    self.keys.remove(&range.start);
                }
            }
        }
    }

    /// What keeps somebody from doing this.
    pub fn blocker(&self, range: &KeyRange, mode: Mode) -> Option<Blocker> {
        let on_keys = if range.is_single() {
            self.keys.get_key_value(&range.start).and_then(|(key, holders)| excluding(key, holders, mode))
        } else if range.is_empty() {
            None
        } else {
            let end = match &range.end {
                RangeEnd::Before(end) => Bound::Excluded(end.clone()),
                _ => Bound::Unbounded,
            };
            let mut held = self.keys.range((Bound::Included(range.start.clone()), end));
            held.find_map(|(key, holders)| excluding(key, holders, mode))
        };
        on_keys.or_else(|| {
            let mut spans = self.spans.iter().flat_map(|(tx, spans)| spans.iter().map(|span| (*tx, span)));
            let found = spans.find(|(_, (span, held))| held.excludes(mode) && span.overlaps(range));
            found.map(|(by, (span, _))| Blocker { key: span.start.clone(), by })
        })
    }

    /// What keeps a part from being taken.
    pub fn blocker_of(&self, part: &Part) -> Option<Blocker> {
        if self.is_empty() {
            return None;
        }
        wants(part).find_map(|(range, mode)| self.blocker(&range, mode))
    }
}

fn excluding(key: &Bytes, holders: &BTreeMap<TxId, Mode>, mode: Mode) -> Option<Blocker> {
    let (by, _) = holders.iter().find(|(_, held)| held.excludes(mode))?;
    Some(Blocker { key: key.clone(), by: *by })
}

fn wants(part: &Part) -> impl Iterator<Item = (KeyRange, Mode)> + '_ {
    let reads = part.ranges_read().map(|range| (range, Mode::Read));
    reads.chain(part.ranges_written().map(|range| (range, Mode::Write)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::RangeOp;
    use quorate_kv::across::Write;

    fn part(reads: &[KeyRange], writes: &[Write]) -> Part {
        Part { reads: reads.iter().cloned().map(RangeOp::of).collect(), success: writes.to_vec(), ..Part::default() }
    }

    fn put(key: &'static str) -> Write {
        Write::Put { key: key.into(), value: "v".into() }
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut locks = Locks::default();
        let (reader, writer) = (part(&[KeyRange::prefix("a")], &[]), part(&[], &[put("k")]));
        locks.take(TxId(1), &reader);
        locks.take(TxId(2), &writer);
        let key = |key: &'static str| KeyRange::single(key);
        assert_eq!(locks.blocker(&key("a1"), Mode::Read), None);
        assert_eq!(locks.blocker(&key("a1"), Mode::Write), Some(Blocker { key: "a".into(), by: TxId(1) }));
        assert_eq!(locks.blocker(&key("k"), Mode::Read), Some(Blocker { key: "k".into(), by: TxId(2) }));
        assert_eq!(locks.blocker(&KeyRange::all(), Mode::Read), Some(Blocker { key: "k".into(), by: TxId(2) }));
        assert_eq!(locks.blocker(&key("b"), Mode::Write), None);
        assert_eq!(locks.blocker_of(&reader), None);
        assert_eq!(locks.blocker_of(&part(&[], &[Write::Delete(KeyRange::prefix("a"))])).map(|b| b.by), Some(TxId(1)));
        locks.release(TxId(1), &reader);
        locks.release(TxId(2), &writer);
        assert!(locks.is_empty());
    }

    #[test]
    fn a_key_that_is_read_and_written_is_held_for_writing() {
        for order in [false, true] {
            let mut locks = Locks::default();
            let (a, b) = (part(&[KeyRange::single("k")], &[]), part(&[], &[put("k")]));
            let (first, second) = if order { (&a, &b) } else { (&b, &a) };
            locks.take(TxId(1), first);
            locks.take(TxId(1), second);
            assert!(locks.blocker(&KeyRange::single("k"), Mode::Read).is_some());
        }
    }
}
