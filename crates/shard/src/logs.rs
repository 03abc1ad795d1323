//! Logs, as a shard keeps them. What they are for is told in `kv::log`.
//!
//! Records are rows under their offsets, and one row more says where the log begins and ends. That row is read and written with each append and each cut, in the
//! same write as the records: so what a replica has of a log always fits together, wherever it came from.

use crate::flaw::Flaw;
use crate::machine::{MachineError, Transaction};
use crate::view::View;
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::log::{BOUNDS, Bounds, Entry, Record, between, key_of, offset_of};
use quorate_kv::{KeyRange, LeaseId, RangeOp};

/// Records whose rows go with one entry: about a millisecond of a core.
const SWEPT_PER_ENTRY: u64 = 256;

impl Transaction<'_> {
    /// Where the log begins and ends.
    pub(crate) fn log_bounds(&mut self) -> Result<Bounds, MachineError> {
        let row = self.get(&Bytes::from_static(BOUNDS))?;
        let mut bounds = row.map(|kv| Bounds::decode(kv.value)).transpose()?.unwrap_or_default();
        if self.flaw == Some(Flaw::EndFromRows) {
            let kept = self.keys_in(&between(bounds.first, u64::MAX))?;
            bounds.end = kept.last().and_then(|key| offset_of(key)).map_or(0, |last| last + 1);
            bounds.first = bounds.first.min(bounds.end);
            bounds.swept = bounds.swept.min(bounds.first);
        }
        Ok(bounds)
    }

    fn put_bounds(&mut self, bounds: Bounds) -> Result<(), MachineError> {
        self.put(&Bytes::from_static(BOUNDS), bounds.encode(), LeaseId::NONE)?;
        Ok(())
    }

    /// Appends records, at the moment at which that was decided.
    pub(crate) fn append(&mut self, records: &[Record], at: Timestamp) -> Result<(), MachineError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bounds = self.log_bounds()?;
        for record in records {
            let before = self.put(&key_of(bounds.end), record.row(at), LeaseId::NONE)?;
            assert!(before.is_none(), "offset {} was given before", bounds.end);
            bounds.end += 1;
            bounds.bytes += record.bytes();
        }
        self.put_bounds(bounds)
    }

    /// Cuts off what comes before an offset, and removes some of the rows of what is cut off. Says which offset is the first that is kept.
    pub(crate) fn trim(&mut self, before: u64) -> Result<u64, MachineError> {
        let was = self.log_bounds()?;
        let mut bounds = was;
        bounds.first = bounds.first.max(before.min(bounds.end));
        let to = bounds.first.min(bounds.swept + SWEPT_PER_ENTRY);
        let ahead = u64::from(self.flaw == Some(Flaw::SweepAhead) && to > bounds.swept);
        for offset in bounds.swept..to + ahead {
            if let Some(gone) = self.delete(&key_of(offset))? {
                let bytes = Entry::read(&gone.key, gone.value)?.record.bytes();
                bounds.bytes = bounds.bytes.saturating_sub(bytes);
            }
        }
        bounds.swept = to;
        if self.flaw == Some(Flaw::CutUnmarked) {
            (bounds.first, bounds.swept) = (was.first, was.swept);
        }
        if bounds != was {
            self.put_bounds(bounds)?;
        }
        Ok(bounds.first)
    }
}

impl View {
    /// Where a log begins and ends.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn log_bounds(&self) -> Result<Bounds, MachineError> {
        let found = self.range(&RangeOp::of(KeyRange::single(BOUNDS)))?.unwrap_or_default();
        let bounds = found.kvs.into_iter().next().map(|kv| Bounds::decode(kv.value)).transpose()?;
        Ok(bounds.unwrap_or_default())
    }

    /// The records of a log from an offset on, up to but not including another.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn log_entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, MachineError> {
        let found = self.range(&RangeOp::of(between(from, to)))?.unwrap_or_default();
        found.kvs.into_iter().map(|kv| Ok(Entry::read(&kv.key, kv.value)?)).collect()
    }
}
