//! Reading ranges of keys: now, or as of an earlier revision; and judging compares.
//!
//! Present values are one row per key (`C`). A value that was overwritten or removed moved to history (`H`). So a read of a
//! moment takes a present row if that moment sees it, and else the newest former value that it sees.

use crate::moment::Moment;
use crate::rows::{self, CURRENT, HISTORY, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::DecodeError;
use quorate_kv::{
    Compare, CompareOp, Expected, KeyRange, KeyValue, RangeEnd, RangeOp, RangeResult, Refusal, Revision, SortBy,
};
use quorate_storage::store::{Rows, StoreError};
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use thiserror::Error;

/// Why rows could not be read. Never the caller's fault: the replica must stop.
#[derive(Debug, Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a row cannot be read: {0}")]
    Malformed(#[from] DecodeError),
}

/// Former rows of one key that are skipped one by one before seeking past them.
const SKIP_MAX: usize = 8;

fn malformed() -> RowError {
    RowError::Malformed(DecodeError { what: "row key", at: 0 })
}

/// The present row of a key.
pub(crate) fn current(source: &Source, slot: Slot, key: &Bytes) -> Result<Option<KeyValue>, RowError> {
    match source.get(&slot.current(key))? {
        Some(row) => Ok(Some(rows::decode_value(key.clone(), row)?)),
        None => Ok(None),
    }
}

/// The value of a key at a moment.
pub(crate) fn as_of(source: &Source, slot: Slot, key: &Bytes, at: &Moment) -> Result<Option<KeyValue>, RowError> {
    match current(source, slot, key)? {
        Some(kv) if at.sees(key, kv.mod_revision) => Ok(Some(kv)),
        _ => former(source, slot, key, at),
    }
}

/// The newest former value of a key that a moment sees.
pub(crate) fn former(source: &Source, slot: Slot, key: &Bytes, at: &Moment) -> Result<Option<KeyValue>, RowError> {
    let (from, to) = (slot.history(key, at.youngest(key)), slot.history_behind(key));
    for row in source.scan(Bound::Included(from), Bound::Excluded(to)) {
        let (row, value) = row?;
        if at.sees(key, rows::parse_history(&row).ok_or_else(malformed)?.1) {
            return Ok(rows::decode_former(key.clone(), &value)?);
        }
    }
    Ok(None)
}

/// The value that a key had at exactly `revision`, if it is still kept.
pub(crate) fn exactly_at(
    source: &Source,
    slot: Slot,
    key: &Bytes,
    revision: Revision,
) -> Result<Option<KeyValue>, RowError> {
    match current(source, slot, key)? {
        Some(kv) if kv.mod_revision == revision => Ok(Some(kv)),
        _ => match source.get(&slot.history(key, revision))? {
            Some(row) => Ok(rows::decode_former(key.clone(), &row)?),
            None => Ok(None),
        },
    }
}

/// The present rows of a range.
pub(crate) fn current_rows(source: &Source, slot: Slot, range: &KeyRange) -> Rows {
    let from = slot.current(&range.start);
    match &range.end {
        RangeEnd::Single => source.scan(Bound::Included(from.clone()), Bound::Included(from)),
        RangeEnd::Before(end) => source.scan(Bound::Included(from), Bound::Excluded(slot.current(end))),
        RangeEnd::Unbounded => source.scan(Bound::Included(from), slot.kind_end(CURRENT)),
    }
}

/// Calls `f` for each key of the range that exists as of `at` (`None`: now), ascending.
pub(crate) fn visit(
    source: &Source,
    slot: Slot,
    range: &KeyRange,
    at: Option<&Moment>,
    f: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Result<(), RowError> {
    if range.is_single() {
        let kv = match at {
            None => current(source, slot, &range.start)?,
            Some(at) => as_of(source, slot, &range.start, at)?,
        };
        if let Some(kv) = kv {
            let _ = f(kv);
        }
        return Ok(());
    }
    let mut present = current_rows(source, slot, range)
        .map(|row| {
            let (key, value) = row?;
            Ok::<_, RowError>(rows::decode_value(rows::parse_current(&key), value)?)
        })
        .peekable();
    let mut past = at.map(|at| FormerAt::new(source.clone(), slot, range, at.clone())).into_iter().flatten().peekable();
    loop {
        let order = match (present.peek(), past.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(Ok(a)), Some(Ok((b, _)))) => a.key.cmp(b),
            (Some(Err(_)), _) => Ordering::Less,
            (_, Some(Err(_))) => Ordering::Greater,
        };
        let current = if order.is_le() { present.next().transpose()? } else { None };
        let former = if order.is_ge() { past.next().transpose()? } else { None };
        let visible = match (current, at) {
            (Some(kv), None) => Some(kv),
            (Some(kv), Some(at)) if at.sees(&kv.key, kv.mod_revision) => Some(kv),
            _ => former.and_then(|(_, kv)| kv),
        };
        if let Some(kv) = visible
            && f(kv).is_break()
        {
            return Ok(());
        }
    }
}

/// For each key of a range that has history: its newest former value that a moment sees, `None` for a tombstone.
struct FormerAt {
    source: Source,
    slot: Slot,
    at: Moment,
    to: Bound<Bytes>,
    rows: Rows,
    done: Option<Bytes>,
}

impl FormerAt {
    fn new(source: Source, slot: Slot, range: &KeyRange, at: Moment) -> Self {
        let from = slot.history_from(&range.start);
        let to = match &range.end {
            RangeEnd::Before(end) => Bound::Excluded(slot.history_from(end)),
            _ => slot.kind_end(HISTORY),
        };
        let rows = source.scan(Bound::Included(from), to.clone());
        Self { source, slot, at, to, rows, done: None }
    }

    fn seek(&mut self, from: Bytes) {
        self.rows = self.source.scan(Bound::Included(from), self.to.clone());
    }
}

impl Iterator for FormerAt {
    type Item = Result<(Bytes, Option<KeyValue>), RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut skipped = 0;
        loop {
            let (row, value) = match self.rows.next()? {
                Ok(row) => row,
                Err(e) => return Some(Err(e.into())),
            };
            let Some((key, revision)) = rows::parse_history(&row) else { return Some(Err(malformed())) };
            let finished = self.done.as_ref() == Some(&key);
            if finished || !self.at.sees(&key, revision) {
                skipped += 1;
                if skipped > SKIP_MAX {
                    skipped = 0;
                    let next = self.at.below(&key, revision);
                    let to = if finished { self.slot.history_behind(&key) } else { self.slot.history(&key, next) };
                    self.seek(to);
                }
                continue;
            }
            self.done = Some(key.clone());
            return Some(rows::decode_former(key.clone(), &value).map(|kv| (key, kv)).map_err(RowError::from));
        }
    }
}

/// Whether a read at a revision can be answered.
pub(crate) fn check_revision(op: &RangeOp, now: Revision, compacted: Option<Revision>) -> Result<(), Refusal> {
    match op.revision {
        Some(at) if at > now => Err(Refusal::RevisionInFuture { current: now }),
        Some(at) if compacted.is_some_and(|compacted| at < compacted || at == Revision(0)) => {
            Err(Refusal::RevisionCompacted { compacted: compacted.unwrap_or_default() })
        }
        _ => Ok(()),
    }
}

/// Evaluates a read of a revision or of now. The revision was checked. `now` is the revision that present rows belong to.
pub(crate) fn range(source: &Source, slot: Slot, op: &RangeOp, now: Revision) -> Result<RangeResult, RowError> {
    let at = op.revision.filter(|at| *at < now && *at != Revision(0)).map(Moment::of);
    range_at(source, slot, op, at.as_ref())
}

/// Evaluates a read of a moment, or of now.
pub(crate) fn range_at(
    source: &Source,
    slot: Slot,
    op: &RangeOp,
    at: Option<&Moment>,
) -> Result<RangeResult, RowError> {
    let filtered = [op.min_mod, op.max_mod, op.min_create, op.max_create].iter().any(|bound| *bound != 0);
    let all = op.sort.is_some_and(|sort| !sort.after_limit) || filtered || op.limit == 0;
    let keep_max = if all { usize::MAX } else { usize::try_from(op.limit).unwrap_or(usize::MAX).saturating_add(1) };
    let mut result = RangeResult::default();
    let (mut bytes, mut cut) = (0, false);
    visit(source, slot, &op.range, at, &mut |mut kv| {
        bytes += (kv.key.len() + kv.value.len()) as u64;
        if op.bytes_max > 0 && result.count > 0 && bytes > op.bytes_max {
            cut = true;
            return ControlFlow::Break(());
        }
        result.count += 1;
        if !op.count_only && result.kvs.len() < keep_max && in_bounds(op, &kv) {
            if op.keys_only && op.sort.is_none_or(|sort| sort.by != SortBy::Value) {
                kv.value = Bytes::new();
            }
            result.kvs.push(kv);
        }
        ControlFlow::Continue(())
    })?;
    result.more = cut;
    if let Some(sort) = op.sort {
        result.kvs.sort_by(|a, b| {
            let order = match sort.by {
                SortBy::Key => a.key.cmp(&b.key),
                SortBy::Version => a.version.cmp(&b.version),
                SortBy::Create => a.create_revision.cmp(&b.create_revision),
                SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortBy::Value => a.value.cmp(&b.value),
            };
            if sort.descending { order.reverse() } else { order }
        });
    }
    let limit = usize::try_from(op.limit).unwrap_or(usize::MAX);
    if limit > 0 && result.kvs.len() > limit {
        result.kvs.truncate(limit);
        result.more = true;
    }
    if op.keys_only {
        for kv in &mut result.kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(result)
}

fn in_bounds(op: &RangeOp, kv: &KeyValue) -> bool {
    let within = |value: Revision, min: u64, max: u64| value.0 >= min && (max == 0 || value.0 <= max);
    within(kv.mod_revision, op.min_mod, op.max_mod) && within(kv.create_revision, op.min_create, op.max_create)
}

/// Whether a compare holds now, for every key of its range.
pub(crate) fn holds(source: &Source, slot: Slot, compare: &Compare) -> Result<bool, RowError> {
    let mut found = false;
    let mut holds = true;
    visit(source, slot, &compare.range, None, &mut |kv| {
        found = true;
        holds = judge(compare, Some(&kv));
        if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(if found { holds } else { judge(compare, None) })
}

fn judge(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let number = |f: fn(&KeyValue) -> i64| kv.map_or(0, f);
    let order = match &compare.expected {
        Expected::Version(v) => number(|kv| kv.version as i64).cmp(v),
        Expected::Create(v) => number(|kv| kv.create_revision.0 as i64).cmp(v),
        Expected::Mod(v) => number(|kv| kv.mod_revision.0 as i64).cmp(v),
        Expected::Lease(v) => number(|kv| kv.lease.0).cmp(v),
        Expected::Value(v) => match kv {
            Some(kv) => kv.value.cmp(v),
            None => return false,
        },
    };
    match compare.op {
        CompareOp::Equal => order.is_eq(),
        CompareOp::NotEqual => order.is_ne(),
        CompareOp::Greater => order.is_gt(),
        CompareOp::Less => order.is_lt(),
    }
}
