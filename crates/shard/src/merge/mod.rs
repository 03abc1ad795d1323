//! A shard gives all that it has to the one before it, and is no more (docs/design/merging.md).
//!
//! ```text
//!   the one behind:   Yield ──> nothing is under way, and history says nothing: nothing changes here any more (`giving` reads what it has)
//!                           └─> else it goes on as before
//!   the one before:   Absorb, page by page ──> rows that nobody sees yet
//!                     Absorb, the last one ──> its range ends where the other's did
//! ```
//!
//! What was absorbed keeps its revisions, and those of two shards say nothing of each other: an [`annex::Annex`] says how they are read.

pub(crate) mod annex;
mod giving;

use crate::across::ledger::{Decided, Ledger};
use crate::flaw::Flaw;
use crate::leases::Leases;
use crate::machine::{Machine, MachineError, Transaction};
use crate::meta::Meta;
use crate::rows::{self, CURRENT, DECIDED, EVENTS, MERGED, Slot};
use crate::source::Source;
use annex::Annex;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, ShardId};
use quorate_kv::across::TxId;
use quorate_kv::merge::Page;
use quorate_kv::{KeyRange, Outcome, RangeEnd, Refusal, Revision};
use std::ops::Bound;

/// How far a shard is in taking over another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absorbing {
    /// The other.
    pub from: ShardId,
    /// The last of its rows that is here.
    pub at: Bytes,
}

impl Machine {
    /// Whether it may yield to the shard before it: nothing is under way here, and what history tells of its keys is what they are now.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn may_yield(&self) -> Result<bool, MachineError> {
        let (_, source, slot, meta) = self.parts();
        let may = may_yield(source, slot, meta, self.leases_and_ledger(), self.nurses())?;
        Ok(may || self.has(Flaw::YieldAtOnce))
    }

    /// Whether a shard's keys have come here: it is not split off again.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn has_absorbed(&self, shard: ShardId) -> Result<bool, MachineError> {
        let (_, source, slot, _) = self.parts();
        Ok(source.get(&slot.merged(shard))?.is_some())
    }
}

fn may_yield(
    source: &Source,
    slot: Slot,
    meta: &Meta,
    (leases, ledger): (&Leases, &Ledger),
    nurses: bool,
) -> Result<bool, MachineError> {
    let busy = nurses || meta.closing.is_some() || meta.absorbing.is_some() || !leases.is_empty();
    if busy || !ledger.is_settled() || meta.range.start.is_empty() {
        return Ok(false);
    }
    is_silent(source, slot, meta)
}

/// Whether no event is readable any more but those at which history ends.
fn is_silent(source: &Source, slot: Slot, meta: &Meta) -> Result<bool, MachineError> {
    let behind = Revision(meta.compacted.map_or(0, |compacted| compacted.0) + 1);
    let mut events = source.scan(Bound::Included(slot.events(behind)), slot.kind_end(EVENTS));
    Ok(events.next().transpose()?.is_none())
}

impl Transaction<'_> {
    pub(crate) fn give_up(&mut self, range: &KeyRange) -> Result<Outcome, MachineError> {
        self.flush()?;
        let parts = (&*self.leases, &*self.ledger);
        let may = may_yield(self.source, self.slot, self.meta, parts, !self.births.is_empty())?;
        let unasked = self.flaw == Some(Flaw::YieldAtOnce);
        self.meta.yielded |= *range == self.meta.range && (may || unasked);
        Ok(Outcome::Yielded(self.meta.yielded))
    }

    pub(crate) fn absorb(&mut self, page: &Page) -> Result<Result<Outcome, Refusal>, MachineError> {
        if !self.meta.yielded && self.meta.range.contains(&page.range.start) {
            return Ok(Ok(Outcome::Absorbed(None)));
        }
        let ends_there = matches!(&self.meta.range.end, RangeEnd::Before(end) if *end == page.range.start);
        if self.meta.yielded || !ends_there || !self.births.is_empty() {
            return Ok(Err(Refusal::Moved { key: page.range.start.clone() }));
        }
        let at = self.meta.absorbing.as_ref().filter(|it| it.from == page.from).map(|it| it.at.clone());
        let at = at.unwrap_or_default();
        if at != page.after {
            return Ok(Ok(Outcome::Absorbed(Some(at))));
        }
        if at.is_empty() {
            self.clear_behind(&page.range.start)?;
        }
        for (key, value) in &page.rows {
            self.absorb_row(page, key, value)?;
        }
        let at = page.rows.last().map_or(at, |(key, _)| key.clone());
        if page.last {
            self.annex(page);
            return Ok(Ok(Outcome::Absorbed(None)));
        }
        self.meta.absorbing = Some(Absorbing { from: page.from, at: at.clone() });
        Ok(Ok(Outcome::Absorbed(Some(at))))
    }

    fn absorb_row(&mut self, page: &Page, key: &Bytes, value: &Bytes) -> Result<(), MachineError> {
        match key.first() {
            Some(&DECIDED) if self.flaw != Some(Flaw::ForgetKeysInMerge) => {
                let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u128::from_be_bytes);
                let tx = TxId(id.ok_or(DecodeError { what: "decided key", at: 0 })?);
                let decided = Decided::decode(value.clone())?;
                if self.ledger.decided(tx).is_none() {
                    // It is kept for as many entries as it would have been.
                    let left = decided.fence.0.saturating_sub(page.given.index.0);
                    self.keep(tx, Decided { fence: LogIndex(self.now().0 + left), ..decided });
                }
            }
            Some(&DECIDED) => {}
            Some(&(CURRENT | MERGED)) => {
                self.put_row([self.slot.prefix().as_slice(), key].concat().into(), value.clone());
            }
            _ => return Err(DecodeError { what: "row of a page", at: 0 }.into()),
        }
        Ok(())
    }

    /// All rows are here: the keys are this shard's.
    fn annex(&mut self, page: &Page) {
        let given = page.given;
        self.meta.range.end = page.range.end.clone();
        self.meta.revision = self.meta.revision.max(given.revision);
        self.meta.wall = self.meta.wall.max(given.wall);
        self.meta.clock = self.meta.clock.max(given.clock.next());
        self.meta.annexes.push(Annex { range: page.range.clone(), revision: given.revision, since: given.since });
        self.meta.absorbing = None;
        self.put_row(self.slot.merged(page.from), Bytes::new());
    }

    /// Rows that a child left behind, and that nobody has cleared away yet, are gone before others take their place.
    fn clear_behind(&mut self, end: &Bytes) -> Result<(), MachineError> {
        self.flush()?;
        let behind = self.slot.behind(end);
        for (from, to) in behind {
            for row in self.source.scan(from, to) {
                self.discard(row?.0);
            }
        }
        Ok(())
    }
}

impl Slot {
    /// Where the rows of keys from one on are.
    pub(crate) fn behind(self, end: &[u8]) -> [(Bound<Bytes>, Bound<Bytes>); 2] {
        let behind = [(self.current(end), CURRENT), (self.history_from(end), rows::HISTORY)];
        behind.map(|(from, kind)| (Bound::Included(from), self.kind_end(kind)))
    }
}
