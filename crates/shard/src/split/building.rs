//! A child's rows, copied from its parent's, a little at a time. Every replica of the parent does that by itself, and all come to the same rows: the
//! parent neither changes nor collects them until the child is weaned.

use super::birth::Birth;
use crate::flaw::Flaw;
use crate::machine::{Machine, MachineError};
use crate::rows::{self, CURRENT, EVENTS, HISTORY, SLOT_BYTES, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, Timestamp};
use quorate_kv::{KeyRange, RangeEnd};
use quorate_storage::store::{Store, WriteBatch};
use std::ops::Bound;
use std::sync::Arc;

/// What comes next.
enum Phase {
    /// Rows of this kind, from here on.
    Rows {
        kind: u8,
        from: Bound<Bytes>,
    },
    /// The child's first row about itself; with it, it can be opened.
    Meta,
    Done,
}

/// A child in the making.
pub struct Building {
    store: Arc<dyn Store>,
    /// The parent as it was when this began.
    source: Source,
    parent: Slot,
    slot: Slot,
    birth: Birth,
    phase: Phase,
    /// Only a planted bug leaves it out.
    with_history: bool,
    /// Whether the events at which history was compacted are behind, if it was.
    history_begun: bool,
}

impl Machine {
    /// Begins to build a child in `slot`, which must be empty. `None` if the parent has none of that number, or not any more.
    #[must_use]
    pub fn build(&self, child: quorate_env::ShardId, slot: Slot) -> Option<Building> {
        let birth = self.birth(child)?.clone();
        let (store, _, parent, _) = self.parts();
        let phase = Phase::Rows { kind: CURRENT, from: Bound::Included(parent.current(&birth.range.start)) };
        Some(Building {
            store: store.clone(),
            source: Source::Frozen(store.snapshot()),
            parent,
            slot,
            // Not when the parent's history begins by now: that may have been compacted since, and all replicas build the same.
            history_begun: birth.compacted.is_none(),
            birth,
            phase,
            with_history: !self.has(Flaw::HistoryLeftInSplit),
        })
    }
}

impl Building {
    /// Where the rows go.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Copies about `bytes_max` bytes of rows, and returns whether all are there.
    pub fn step(&mut self, bytes_max: usize) -> Result<bool, MachineError> {
        let mut left = bytes_max;
        while left > 0 {
            match &self.phase {
                Phase::Rows { kind, from } => {
                    let (kind, from) = (*kind, from.clone());
                    self.copy(kind, from, &mut left)?;
                }
                Phase::Meta => {
                    let mut batch = WriteBatch::new();
                    for (tx, row) in &self.birth.decisions {
                        batch.put(self.slot.decided(*tx), row.clone());
                    }
                    for (key, row) in &self.birth.reservations {
                        batch.put(self.slot.reserved(key), row.clone());
                    }
                    batch.put(self.slot.meta(), self.birth.meta().encode());
                    self.write(&mut batch)?;
                    self.phase = Phase::Done;
                }
                Phase::Done => return Ok(true),
            }
        }
        Ok(matches!(self.phase, Phase::Done))
    }

    /// Copies rows of one kind until there are no more, or enough for now.
    fn copy(&mut self, kind: u8, from: Bound<Bytes>, left: &mut usize) -> Result<(), MachineError> {
        let mut batch = WriteBatch::new();
        let mut next = None;
        for row in self.source.scan(from, self.end_of(kind)) {
            let (key, value) = row?;
            let cost = key.len() + value.len() + 16;
            if kind == HISTORY && !self.with_history {
                break;
            }
            if let Some(value) = self.inherited(kind, &key, &value)? {
                let place = [self.slot.prefix().as_slice(), &key[SLOT_BYTES..]].concat();
                batch.put(place, value);
            }
            *left = left.saturating_sub(cost);
            if *left == 0 {
                next = Some(key);
                break;
            }
        }
        self.write(&mut batch)?;
        self.phase = match (next, kind) {
            (Some(key), _) => Phase::Rows { kind, from: Bound::Excluded(key) },
            (None, CURRENT) => {
                Phase::Rows { kind: HISTORY, from: Bound::Included(self.parent.history_from(&self.birth.range.start)) }
            }
            (None, HISTORY) => Phase::Rows { kind: EVENTS, from: self.parent.kind(EVENTS).0 },
            (None, _) => Phase::Meta,
        };
        Ok(())
    }

    fn end_of(&self, kind: u8) -> Bound<Bytes> {
        match (&self.birth.range.end, kind) {
            (RangeEnd::Before(end), CURRENT) => Bound::Excluded(self.parent.current(end)),
            (RangeEnd::Before(end), HISTORY) => Bound::Excluded(self.parent.history_from(end)),
            _ => self.parent.kind_end(kind),
        }
    }

    /// What of a row the child has; none if nothing. The events at which history was compacted it has in any case, though they be none of its keys: they say which
    /// moments it can still tell of.
    fn inherited(&mut self, kind: u8, key: &Bytes, value: &Bytes) -> Result<Option<Bytes>, DecodeError> {
        if kind != EVENTS {
            return Ok(Some(value.clone()));
        }
        let (range, until): (&KeyRange, _) = (&self.birth.range, self.birth.revision);
        let mut when = rows::decode_when(value)?;
        let mut events = rows::decode_events(value.clone())?;
        events.retain(|event| event.revision <= until && range.contains(&event.key));
        let reaches = self.birth.compacted.is_none_or(|compacted| rows::parse_events(key) >= Some(compacted));
        let first = reaches && !self.history_begun && self.birth.since != Timestamp::ZERO;
        if first && events.is_empty() {
            // Of what happened before there were timestamps it is known that it was before.
            when.at = when.at.max(Timestamp::ZERO.next());
        }
        self.history_begun |= reaches;
        Ok((first || !events.is_empty()).then(|| rows::encode_events(&when, &events).into()))
    }

    fn write(&self, batch: &mut WriteBatch) -> Result<(), MachineError> {
        self.store.write(batch)?;
        self.store.publish();
        Ok(())
    }
}
