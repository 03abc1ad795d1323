//! A planted disk that tears the applied index from the rows it belongs to.

use crate::planted::DriverBug;
use bytes::Bytes;
use quorate_storage::store::{ModelStore, Store, WriteBatch};
use std::ops::Bound;

/// The rows in which replicas keep their applied indexes.
pub(crate) type MetaRows = Vec<(Bytes, Bytes)>;

/// Bytes of a slot, and the kind of the row that holds the applied index (docs/design/store-format.md).
const META_ROW: (usize, u8) = (4, b'A');

/// What a crash leaves of the applied indexes.
pub(crate) struct AppliedLies {
    pub bug: Option<DriverBug>,
    /// As they were durable before the last flush.
    pub older: MetaRows,
}

impl AppliedLies {
    /// Puts a wrong index into what a crash left of `before`.
    pub fn tell(self, before: &ModelStore, crashed: &ModelStore) {
        let rows = match self.bug {
            Some(DriverBug::AppliedTooNew) => meta_rows(before),
            Some(DriverBug::AppliedTooOld) => self.older,
            _ => return,
        };
        let mut batch = WriteBatch::new();
        rows.into_iter().for_each(|(key, value)| batch.put(key, value));
        crashed.write(&mut batch).expect("the model takes any row");
        crashed.publish();
    }
}

pub(crate) fn meta_rows(store: &ModelStore) -> MetaRows {
    let (slot, kind) = META_ROW;
    let rows = store.scan(Bound::Unbounded, Bound::Unbounded, false).filter_map(Result::ok);
    rows.filter(|(key, _)| key.len() == slot + 1 && key[slot] == kind).collect()
}
