//! What a store would hold if more were written to it: rows in memory on top of a snapshot, which nobody ever makes durable.
//!
//! ```text
//!   get, scan ──> rows written here ──(none)──> the snapshot below
//!   the store below has caught up ──> a newer snapshot, and the rows that it has are forgotten here
//! ```

use super::{FlushJob, Rows, Snapshot, Store, StoreError, WriteBatch, bounds_are_empty};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row as it was last written here, and the mark that it was written under; nothing, if that was a delete.
type Written = (u64, Option<Bytes>);

/// Cheap to copy: it is what a snapshot is.
#[derive(Clone)]
struct Layers {
    below: Arc<dyn Snapshot>,
    rows: Arc<BTreeMap<Bytes, Written>>,
}

struct State {
    layers: Layers,
    mark: u64,
    bytes: u64,
}

/// See the top of this file.
pub struct Overlay {
    state: Mutex<State>,
}

impl Overlay {
    /// On top of a snapshot, with nothing written yet.
    #[must_use]
    pub fn over(below: Arc<dyn Snapshot>) -> Self {
        let layers = Layers { below, rows: Arc::default() };
        Self { state: Mutex::new(State { layers, mark: 0, bytes: 0 }) }
    }

    /// What is written from now on is written under this mark, which is no smaller than the one before.
    pub fn mark(&self, mark: u64) {
        self.lock().mark = mark;
    }

    /// Rows that are kept here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().layers.rows.len()
    }

    /// Whether nothing is kept here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A newer snapshot is below, which has everything that was written under marks up to `covered`.
    pub fn rebase(&self, below: Arc<dyn Snapshot>, covered: u64) {
        let mut state = self.lock();
        let mut rows = std::mem::take(Arc::make_mut(&mut state.layers.rows));
        rows.retain(|_, (mark, _)| *mark > covered);
        state.bytes = rows.iter().map(|(key, (_, value))| size(key, value.as_ref())).sum();
        state.layers = Layers { below, rows: Arc::new(rows) };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(key: &Bytes, value: Option<&Bytes>) -> u64 {
    (key.len() + value.map_or(0, Bytes::len)) as u64
}

impl Snapshot for Layers {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.rows.get(key) {
            Some((_, value)) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        if bounds_are_empty(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let range = self.rows.range::<Bytes, _>((from.as_ref(), to.as_ref()));
        let mut above: Vec<(Bytes, Option<Bytes>)> =
            range.map(|(key, (_, value))| (key.clone(), value.clone())).collect();
        if reverse {
            above.reverse();
        }
        let below = self.below.scan(from, to, reverse).peekable();
        Box::new(Merged { below, above: above.into_iter().peekable(), reverse })
    }
}

impl Store for Overlay {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.lock().layers.get(key)
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        let layers = self.lock().layers.clone();
        layers.scan(from, to, reverse)
    }

    fn write(&self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        batch.check()?;
        let mut state = self.lock();
        let State { layers, mark, bytes } = &mut *state;
        let rows = Arc::make_mut(&mut layers.rows);
        for (key, value) in batch.drain() {
            *bytes += size(&key, value.as_ref());
            if let Some((_, before)) = rows.insert(key.clone(), (*mark, value)) {
                *bytes -= size(&key, before.as_ref());
            }
        }
        Ok(())
    }

    /// Everything is visible at once.
    fn publish(&self) {}

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.lock().layers.clone())
    }

    fn memory_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Nothing here is ever written to a disk.
    fn seal(&self) -> Option<Box<dyn FlushJob>> {
        None
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// Rows of both layers in order; of a key that both have, the one above.
struct Merged {
    below: Peekable<Rows>,
    above: Peekable<std::vec::IntoIter<(Bytes, Option<Bytes>)>>,
    reverse: bool,
}

impl Iterator for Merged {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.below.peek(), self.above.peek()) {
                (Some(Ok((below, _))), Some((above, _))) if self.reverse => above.cmp(below),
                (Some(Ok((below, _))), Some((above, _))) => below.cmp(above),
                (None, Some(_)) => Ordering::Greater,
                (_, _) => Ordering::Less,
            };
            if order == Ordering::Less {
                return self.below.next();
            }
            if order == Ordering::Equal {
                self.below.next();
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}
