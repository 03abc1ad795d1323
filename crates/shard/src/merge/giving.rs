//! What a shard that has yielded gives to the one before it, page by page. Its rows do not change any more, so whoever leads it reads the same.

use crate::machine::MachineError;
use crate::rows::{self, CURRENT, DECIDED, EVENTS, MERGED, SLOT_BYTES};
use crate::view::View;
use bytes::Bytes;
use quorate_env::{ShardId, Timestamp};
use quorate_kv::RangeEnd;
use quorate_kv::merge::{Given, Page};
use std::ops::Bound;

/// The rows that go over, in the order of their kinds.
const GIVEN: [u8; 3] = [CURRENT, MERGED, DECIDED];

impl View {
    /// About `bytes_max` bytes of rows behind the one `after`; from the first on if that is empty.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn give(&self, shard: ShardId, after: &Bytes, bytes_max: usize) -> Result<Page, MachineError> {
        let (slot, range) = (self.slot, self.own_range().clone());
        let mut page =
            Page { from: shard, range, after: after.clone(), rows: Vec::new(), last: true, given: self.given()? };
        let (mut bytes, behind) = (0, [slot.prefix().as_slice(), after].concat());
        for kind in GIVEN.into_iter().filter(|kind| after.first().is_none_or(|at| at <= kind)) {
            let (mut from, mut to) = slot.kind(kind);
            if kind == CURRENT {
                from = Bound::Included(slot.current(&page.range.start));
                if let RangeEnd::Before(end) = &page.range.end {
                    to = Bound::Excluded(slot.current(end));
                }
            }
            if after.first() == Some(&kind) {
                from = Bound::Excluded(behind.clone().into());
            }
            for row in self.source.scan(from, to) {
                if bytes >= bytes_max {
                    page.last = false;
                    return Ok(page);
                }
                let (key, value) = row?;
                bytes += key.len() + value.len();
                page.rows.push((key.slice(SLOT_BYTES..), value));
            }
        }
        Ok(page)
    }

    /// A page that nobody takes.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn ask_for_neighbour(&self, shard: ShardId) -> Result<Page, MachineError> {
        let (range, after) = (self.own_range().clone(), Page::NOWHERE);
        Ok(Page { from: shard, range, after, rows: Vec::new(), last: false, given: self.given()? })
    }

    fn given(&self) -> Result<Given, MachineError> {
        let compacted = self.compacted().unwrap_or_default();
        let (from, to) = (Bound::Included(self.slot.events(compacted)), self.slot.kind_end(EVENTS));
        let last = self.source.scan(from, to).next().transpose()?;
        let since = match last {
            Some((_, row)) => rows::decode_when(&row)?.at,
            None => Timestamp::ZERO,
        };
        let meta = self.meta();
        let since = since.max(meta.since).max(crate::merge::annex::since(&meta.annexes, &meta.range));
        Ok(Given { index: meta.applied, revision: meta.revision, clock: meta.clock, since, wall: meta.wall })
    }
}
