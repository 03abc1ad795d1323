//! Where rows are read from: the store as it is now (while applying), or a snapshot of it (while reading).

use bytes::Bytes;
use quorate_storage::store::{Rows, Snapshot, Store, StoreError};
use std::ops::Bound;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) enum Source {
    Live(Arc<dyn Store>),
    Frozen(Arc<dyn Snapshot>),
}

impl Source {
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self {
            Source::Live(store) => store.get(key),
            Source::Frozen(snapshot) => snapshot.get(key),
        }
    }

    pub fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>) -> Rows {
        match self {
            Source::Live(store) => store.scan(from, to, false),
            Source::Frozen(snapshot) => snapshot.scan(from, to, false),
        }
    }
}
