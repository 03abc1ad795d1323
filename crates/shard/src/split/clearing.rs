//! Rows of keys that a shard has given away go, a little at a time, when no child needs them any more. As with compacted history, each replica does
//! that at its own pace.

use crate::machine::{Machine, MachineError};
use bytes::Bytes;
use quorate_kv::RangeEnd;
use quorate_storage::store::WriteBatch;

impl Machine {
    /// Removes up to `rows_max` rows of keys outside the shard's range. Returns whether any are left.
    pub fn clear_outside(&mut self, rows_max: usize) -> Result<bool, MachineError> {
        let (store, source, slot, meta) = self.parts();
        let RangeEnd::Before(end) = &meta.range.end else { return Ok(false) };
        if self.nurses() || meta.yielded || meta.absorbing.is_some() {
            return Ok(false);
        }
        let mut batch = WriteBatch::new();
        let gone = slot.behind(end).into_iter().flat_map(|(from, to)| source.scan(from, to));
        let mut cleared = 0;
        for row in gone.take(rows_max) {
            let (key, _): (Bytes, Bytes) = row?;
            batch.delete(key);
            cleared += 1;
        }
        if cleared > 0 {
            store.write(&mut batch)?;
            store.publish();
        }
        Ok(cleared == rows_max)
    }
}
