//! A consistent picture of a shard, readable from any thread while the shard goes on.

use crate::across::locks::{Blocker, Locks, Mode};
use crate::eval;
use crate::flaw::Flaw;
use crate::machine::MachineError;
use crate::merge::annex::{self, Annex};
use crate::meta::Meta;
use crate::moment::Moment;
use crate::rows::{self, CURRENT, EVENTS, HISTORY, Slot};
use crate::source::Source;
use quorate_env::{DecodeError, LogIndex, Timestamp, Writer, checksum};
use quorate_kv::{
    Event, EventKind, KeyRange, KeyValue, KeyspaceHash, LeaseId, RangeEnd, RangeOp, RangeResult, Refusal, Revision,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What a shard held when the view was taken.
#[derive(Clone)]
pub struct View {
    pub(crate) source: Source,
    pub(crate) slot: Slot,
    meta: Arc<Meta>,
    /// What is locked; `None` if nothing is.
    locks: Option<Arc<Locks>>,
    closed: Timestamp,
    pub(crate) flaw: Option<Flaw>,
}

/// A stretch of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// Whole revisions, ascending.
    pub events: Vec<Event>,
    /// Everything below this has been looked at.
    pub next: Revision,
}

impl View {
    pub(crate) fn new(
        source: Source,
        slot: Slot,
        meta: Arc<Meta>,
        locks: Option<Arc<Locks>>,
        closed: Timestamp,
        flaw: Option<Flaw>,
    ) -> Self {
        Self { source, slot, meta, locks, closed, flaw }
    }

    /// What keeps a linearizable read of the range from being answered from this view: a transaction over several shards may have been
    /// decided, and acknowledged, whose writes are not here yet. History does not change, so a read of a revision is never kept.
    #[must_use]
    pub fn blocker(&self, op: &RangeOp) -> Option<Blocker> {
        let locks =
            self.locks.as_ref().filter(|_| op.revision.is_none() && self.flaw != Some(Flaw::ReadThroughLocks))?;
        locks.blocker(&op.range, Mode::Read)
    }

    /// The keyspace's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.meta.revision
    }

    /// The keys that are the shard's own.
    #[must_use]
    pub fn own_range(&self) -> &KeyRange {
        &self.meta.range
    }

    fn is_elsewhere(&self, range: &KeyRange) -> bool {
        let yielded = self.meta.yielded && self.flaw != Some(Flaw::ServeYielded);
        yielded || (!range.is_within(&self.meta.range) && self.flaw != Some(Flaw::ServeMoved))
    }

    /// Which of them came from other shards, as far as history reaches back to that.
    #[must_use]
    pub fn annexes(&self) -> &[Annex] {
        &self.meta.annexes
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The last entry that the view reflects.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.meta.applied
    }

    /// Nothing that is here happened later than this.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        self.meta.clock
    }

    /// Since when entries have timestamps: of moments before it nothing is known.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.meta.since
    }

    /// Up to this moment, all that ever will have happened is here.
    #[must_use]
    pub fn closed(&self) -> Timestamp {
        self.closed
    }

    /// Evaluates a read of a moment. Whatever the read says of a revision does not count.
    ///
    /// # Errors
    /// [`Refusal::MomentAhead`] if the moment is not closed, [`Refusal::MomentForgotten`] if history does not reach back to it.
    pub fn range_at(&self, op: &RangeOp, at: Timestamp) -> Result<Result<RangeResult, Refusal>, MachineError> {
        if self.is_elsewhere(&op.range) {
            return Ok(Err(Refusal::Moved { key: op.range.start.clone() }));
        }
        if at > self.closed {
            return Ok(Err(Refusal::MomentAhead { at, now: self.closed }));
        }
        let moment = Moment::find(&self.source, self.slot, self.meta.revision, at)?;
        let moment = if self.flaw == Some(Flaw::LateLeftOut) { moment.without_late() } else { moment };
        let since = self.meta.since.max(annex::since(&self.meta.annexes, &op.range));
        if at < since || self.meta.compacted.is_some_and(|compacted| moment.revision() < compacted) {
            return Ok(Err(Refusal::MomentForgotten { at }));
        }
        let moment = if self.flaw == Some(Flaw::AnnexUnread) { moment } else { moment.with(&self.meta.annexes) };
        Ok(Ok(eval::range_at(&self.source, self.slot, op, Some(&moment))?))
    }

    /// Where history may end so that all moments from this one on can still be read; `None` if it ends there or later already, or nothing is known of such a
    /// moment.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn history_before(&self, at: Timestamp) -> Result<Option<Revision>, MachineError> {
        // Without timestamps nothing is known to be old.
        if self.meta.since == Timestamp::ZERO || at < self.meta.since || at > self.closed {
            return Ok(None);
        }
        let revision = Moment::find(&self.source, self.slot, self.meta.revision, at)?.revision();
        Ok(Some(revision).filter(|revision| *revision > self.meta.compacted.unwrap_or_default()))
    }

    /// When each revision from this one on happened, as far as history still tells, for checkers.
    pub fn happened(&self, from: Revision) -> Result<BTreeMap<Revision, Timestamp>, MachineError> {
        let mut times = BTreeMap::new();
        let start = Bound::Included(self.slot.events(from));
        for row in self.source.scan(start, self.slot.kind_end(EVENTS)) {
            let row = row?.1;
            let when = rows::decode_when(&row)?;
            times.extend(rows::decode_events(row)?.iter().map(|event| (event.revision, when.at)));
            times.extend(when.late);
        }
        Ok(times)
    }

    /// The oldest readable revision, once something was compacted.
    #[must_use]
    pub fn compacted(&self) -> Option<Revision> {
        self.meta.compacted
    }

    /// Evaluates a read.
    pub fn range(&self, op: &RangeOp) -> Result<Result<RangeResult, Refusal>, MachineError> {
        if self.is_elsewhere(&op.range) {
            return Ok(Err(Refusal::Moved { key: op.range.start.clone() }));
        }
        if let Err(refusal) = eval::check_revision(op, self.meta.revision, self.meta.compacted) {
            return Ok(Err(refusal));
        }
        Ok(Ok(eval::range(&self.source, self.slot, op, self.meta.revision)?))
    }

    /// The events of `range` from revision `from` on, up to the view's own revision; about `bytes_max` bytes of them, but
    /// always whole revisions and at least one. `from` must not be below the compaction.
    pub fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        with_prev: bool,
        bytes_max: usize,
    ) -> Result<EventPage, MachineError> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut last = Revision(0);
        let start = Bound::Included(self.slot.events(from));
        for row in self.source.scan(start, self.slot.kind_end(EVENTS)) {
            for event in rows::decode_events(row?.1)? {
                if event.revision < from || event.revision > self.meta.revision {
                    continue;
                }
                if bytes >= bytes_max && event.revision > last {
                    return Ok(EventPage { events, next: event.revision });
                }
                if range.contains(&event.key) {
                    last = event.revision;
                    let event = self.event(&event, with_prev)?;
                    bytes += 64 + event.kv.key.len() + event.kv.value.len();
                    bytes += event.prev.as_ref().map_or(0, |kv| kv.value.len());
                    events.push(event);
                }
            }
        }
        Ok(EventPage { events, next: Revision(self.meta.revision.0 + 1).max(from) })
    }

    fn event(&self, row: &rows::EventRow, with_prev: bool) -> Result<Event, MachineError> {
        let (source, slot) = (&self.source, self.slot);
        let prev =
            if with_prev && row.prev.0 != 0 { eval::exactly_at(source, slot, &row.key, row.prev)? } else { None };
        let kv = match (row.kind, &row.overtaken) {
            (EventKind::Put, Some(value)) => Some(rows::decode_value(row.key.clone(), value.clone())?),
            (EventKind::Put, None) => eval::exactly_at(source, slot, &row.key, row.revision)?,
            (EventKind::Delete, _) => None,
        };
        let kv = kv.unwrap_or_else(|| KeyValue {
            key: row.key.clone(),
            value: bytes::Bytes::new(),
            create_revision: Revision(0),
            mod_revision: row.revision,
            version: 0,
            lease: LeaseId::NONE,
        });
        Ok(Event { kind: row.kind, kv, prev })
    }

    /// A hash of the history that is visible at or after the compaction, up to `revision`. Equal on all replicas, whatever
    /// each has collected.
    pub fn hash(&self, revision: Option<Revision>) -> Result<Result<KeyspaceHash, Refusal>, MachineError> {
        let at = revision.unwrap_or(self.meta.revision);
        if at > self.meta.revision {
            return Ok(Err(Refusal::RevisionInFuture { current: self.meta.revision }));
        }
        let compacted = self.meta.compacted.unwrap_or_default();
        if at < compacted {
            return Ok(Err(Refusal::RevisionCompacted { compacted }));
        }
        // All versions of one key, by revision; `None` is a tombstone.
        let mut hash = 0;
        let mut fold = |key: &[u8], versions: &BTreeMap<Revision, Option<KeyValue>>| {
            let mut younger = versions.keys().skip(1).copied();
            for (mod_revision, kv) in versions {
                let superseded = younger.next().is_some_and(|next| next <= compacted);
                let dead = kv.is_none() && *mod_revision <= compacted;
                if *mod_revision > at || superseded || dead {
                    continue;
                }
                let mut w = Writer::new();
                w.bytes(key);
                w.u64(mod_revision.0);
                match kv {
                    Some(kv) => {
                        w.u64(kv.create_revision.0);
                        w.u64(kv.version);
                        w.zigzag(kv.lease.0);
                        w.bytes(&kv.value);
                    }
                    None => w.u8(0),
                }
                hash = checksum::chain(hash, w.as_slice());
            }
        };
        // Behind the range may be rows of keys that were given away.
        let (present_to, history_to) = match &self.meta.range.end {
            RangeEnd::Before(end) => {
                (Bound::Excluded(self.slot.current(end)), Bound::Excluded(self.slot.history_from(end)))
            }
            _ => (self.slot.kind_end(CURRENT), self.slot.kind_end(HISTORY)),
        };
        let mut present = self.source.scan(self.slot.kind(CURRENT).0, present_to).peekable();
        let mut history = self.source.scan(self.slot.kind(HISTORY).0, history_to).peekable();
        let history_key = |row: &[u8]| rows::parse_history(row).ok_or(DecodeError { what: "history key", at: 0 });
        loop {
            let current_key = match present.peek() {
                Some(Ok((row, _))) => Some(rows::parse_current(row)),
                Some(Err(_)) => return Err(present.next().expect("peeked").expect_err("peeked").into()),
                None => None,
            };
            let former_key = match history.peek() {
                Some(Ok((row, _))) => Some(history_key(row)?.0),
                Some(Err(_)) => return Err(history.next().expect("peeked").expect_err("peeked").into()),
                None => None,
            };
            let key = match (&current_key, &former_key) {
                (None, None) => break,
                (Some(a), Some(b)) => a.min(b).clone(),
                (Some(a), None) | (None, Some(a)) => a.clone(),
            };
            let mut versions = BTreeMap::new();
            if current_key.as_ref() == Some(&key) {
                let (_, row) = present.next().expect("peeked")?;
                let kv = rows::decode_value(key.clone(), row)?;
                versions.insert(kv.mod_revision, Some(kv));
            }
            while let Some(Ok((row, _))) = history.peek() {
                let (row_key, revision) = history_key(row)?;
                if row_key != key {
                    break;
                }
                let (_, value) = history.next().expect("peeked")?;
                versions.insert(revision, rows::decode_former(key.clone(), &value)?);
            }
            fold(&key, &versions);
        }
        Ok(Ok(KeyspaceHash { hash: (hash ^ (hash >> 32)) as u32, revision: at, compacted }))
    }
}
