//! What a shard held at a timestamp.
//!
//! Entries have ascending timestamps, so a moment is a revision: that of the last entry which is not younger. But what a transaction over several shards wrote happened
//! in all of them when it was decided, and each shard but one hears of that later. So to a moment also belong the *late* revisions behind it: of transactions
//! that had been decided by then. They stand in for each other in each key's history as their timestamps do, since a key is locked from the prepare to the decision.
//!
//! ```text
//!   revision   7     8     9            10
//!   entry at   100   110   120          130
//!                          prepare tx   tx was decided at 121
//!   the moment 125 is revision 9, and the late revision 10
//! ```

use crate::machine::MachineError;
use crate::merge::annex::{self, Annex};
use crate::rows::{self, EVENTS, Slot};
use crate::source::Source;
use quorate_env::Timestamp;
use quorate_kv::Revision;
use std::ops::Bound;

/// Which versions of keys are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// All up to this one.
    revision: Revision,
    /// And these, ascending.
    late: Vec<Revision>,
    /// Keys that came from other shards, with revisions of theirs.
    annexes: Vec<Annex>,
}

impl Moment {
    /// The moment right after a revision.
    pub fn of(revision: Revision) -> Self {
        Self { revision, late: Vec::new(), annexes: Vec::new() }
    }

    /// The moment of a timestamp that is closed. `newest` is the shard's revision.
    pub fn find(source: &Source, slot: Slot, newest: Revision, at: Timestamp) -> Result<Self, MachineError> {
        let (mut low, mut high) = (0, newest.0 + 1);
        // The first revision that is younger lies within `low < it <= high`.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let row = source.scan(Bound::Included(slot.events(Revision(middle))), slot.kind_end(EVENTS)).next();
            let younger = match row {
                Some(row) => rows::decode_when(&row?.1)?.at > at,
                None => true,
            };
            if younger {
                high = middle;
            } else {
                low = middle;
            }
        }
        let revision = Revision(high - 1);
        let mut late = Vec::new();
        for row in source.scan(Bound::Included(slot.events(Revision(high))), slot.kind_end(EVENTS)) {
            let when = rows::decode_when(&row?.1)?;
            late.extend(when.late.iter().filter(|(_, decided)| *decided <= at).map(|(revision, _)| *revision));
            if when.closed >= at {
                break;
            }
        }
        Ok(Self { revision, late, annexes: Vec::new() })
    }

    /// The last revision that it lies behind, but for late ones.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// In a shard that has taken over others.
    pub fn with(self, annexes: &[Annex]) -> Self {
        Self { annexes: annexes.to_vec(), ..self }
    }

    /// Up to which revision all versions of a key are seen.
    fn all_of(&self, key: &[u8]) -> Revision {
        if self.annexes.is_empty() {
            return self.revision;
        }
        self.revision.max(annex::revision_of(&self.annexes, key))
    }

    /// Forgets the late revisions, as no correct replica does.
    pub fn without_late(self) -> Self {
        Self::of(self.revision)
    }

    /// Whether what was written to a key at a revision is seen.
    pub fn sees(&self, key: &[u8], revision: Revision) -> bool {
        revision <= self.all_of(key) || self.late.binary_search(&revision).is_ok()
    }

    /// The youngest revision below `than` of a key that could be seen.
    pub fn below(&self, key: &[u8], than: Revision) -> Revision {
        let late = self.late.iter().rev().find(|late| **late < than).copied();
        late.unwrap_or_default().max(self.all_of(key))
    }

    /// The youngest revision of a key that could be seen.
    pub fn youngest(&self, key: &[u8]) -> Revision {
        self.late.last().copied().unwrap_or_default().max(self.all_of(key))
    }
}
