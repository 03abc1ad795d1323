//! Collecting compacted history, a little at a time.
//!
//! Compaction is a command: from then on nobody reads below its revision, on any replica. The rows themselves are removed
//! afterwards by each replica at its own pace; that is not replicated state and not part of the state hash.
//!
//! Walking the events in order, each event at or below the compaction makes the key's value *before* it unreachable; a
//! tombstone makes itself unreachable too. So one pass over the events finds every dead row by its exact key.

use crate::flaw::Flaw;
use crate::machine::{Machine, MachineError};
use crate::rows::{self, EVENTS, EventRow};
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Writer};
use quorate_kv::{EventKind, Revision};
use quorate_storage::store::WriteBatch;
use std::collections::HashSet;
use std::ops::Bound;

impl Machine {
    /// Removes the rows of up to about `events_max` compacted events. Returns whether anything is left to do.
    pub fn collect_garbage(&mut self, events_max: usize) -> Result<bool, MachineError> {
        let (store, source, slot, meta) = self.parts();
        let Some(mut compacted) = meta.compacted else { return Ok(false) };
        if self.nurses() {
            // A child is still to be built from these rows. When it is weaned, this is asked again.
            return Ok(false);
        }
        if self.has(Flaw::CollectTooMuch) {
            compacted.0 += 1;
        }
        let done = match source.get(&slot.collected())? {
            Some(row) => Revision(Reader::new(row).varint("collected revision")?),
            None => Revision(0),
        };
        if done >= compacted {
            return Ok(false);
        }
        let mut batch = WriteBatch::new();
        let mut reached = compacted;
        let mut seen = 0;
        // The row that ends at the last compaction was still readable then.
        let from = Bound::Included(slot.events(done));
        for row in source.scan(from, slot.kind_end(EVENTS)) {
            let (key, value) = row?;
            let last = rows::parse_events(&key).ok_or(DecodeError { what: "events key", at: 0 })?;
            let events = rows::decode_events(value)?;
            // A key that was removed and then written by the same revision has its value under the tombstone's name.
            let kept: HashSet<_> = events.iter().filter(|e| outlived(e)).map(|e| (e.revision, &e.key)).collect();
            for event in events.iter().filter(|e| e.revision > done && e.revision <= compacted) {
                if event.prev.0 != 0 {
                    batch.delete(slot.history(&event.key, event.prev));
                }
                if event.kind == EventKind::Delete && !kept.contains(&(event.revision, &event.key)) {
                    batch.delete(slot.history(&event.key, event.revision));
                }
                seen += 1;
            }
            if last < compacted {
                batch.delete(key);
            }
            if last >= compacted {
                break;
            }
            if seen >= events_max {
                reached = last;
                break;
            }
        }
        let mut w = Writer::new();
        w.varint(reached.0);
        batch.put(slot.collected(), Bytes::from(w.finish()));
        store.write(&mut batch)?;
        store.publish();
        Ok(reached < compacted)
    }
}

/// Whether an event is a put whose value its own revision left in place.
fn outlived(event: &EventRow) -> bool {
    event.kind == EventKind::Put && event.overtaken.is_none()
}
