//! The store: the rows that shards have applied, in key order.
//!
//! The replicated log is the store's write-ahead log, so the store itself has none. Rows are visible as soon as they are written and
//! survive a crash once a flush has covered them; a shard writes its applied index together with its rows, and after a crash the
//! log is replayed from there. What an engine promises:
//!
//! - **Write-through.** [`Store::get`] and [`Store::scan`] see every batch written before the call, each batch whole.
//! - **Snapshots** see exactly what was [published](Store::publish) when they were taken, whatever is written, flushed or
//!   compacted afterwards.
//! - **Durability by seals.** All rows written between two [seals](Store::seal) survive a crash together or not at all, and never
//!   without the rows of earlier seals.
//! - **Nobody waits for a disk** in `write`, `publish`, `snapshot` or `seal`: all I/O happens in [`FlushJob::run`], and reads of
//!   rows that are not in memory.
//!
//! ```text
//!   write ──> active memtable ──seal──> sealed memtable ──FlushJob::run──> tables on disk ──> compaction
//!                     └─────────────────────┴────── get, scan, snapshot ──────┘
//! ```

mod files;
mod heal;
mod lsm;
mod model;
mod overlay;
#[cfg(test)]
mod tests;

pub use files::{Checked, TableCheck};
pub use heal::Healed;
pub use lsm::{LsmOptions, LsmStore};
pub use model::ModelStore;
pub use overlay::Overlay;

use bytes::Bytes;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use thiserror::Error;

/// The longest key, in bytes: the engine keeps key lengths in 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;

/// Rows of a scan, in key order (or against it), each read when it is asked for.
pub type Rows = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;

/// What can go wrong in a store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full. Nothing was lost: run the job again when there is room.
    #[error("no space left on the disk that holds the store")]
    NoSpace,
    /// The disk failed. What it holds is unknown from here on: stop the process.
    #[error("the store's disk failed: {0}")]
    Io(io::Error),
    /// A table or a version file does not match its checksum, and could not be healed: the replicas that live here need another copy of their rows.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was written by a newer release.
    #[error("the store has format version {found}, and this release knows only {known}: use a newer release")]
    NewerFormat {
        /// Version found.
        found: u32,
        /// Newest version that this release reads.
        known: u32,
    },
    /// A key is empty or longer than [`KEY_BYTES_MAX`]: the caller should have refused it. Nothing of its batch was written.
    #[error("a key of {bytes} bytes cannot be stored; 1 to {KEY_BYTES_MAX} bytes can")]
    KeySize {
        /// Its length in bytes.
        bytes: usize,
    },
}

/// Puts and deletes that become visible together. A later operation on the same key wins.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    ops: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a row.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(key.into(), Some(value.into()));
    }

    /// Removes a row, if it exists.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.push(key.into(), None);
    }

    fn push(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.ops.push((key, value));
    }

    /// Operations in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of the keys and values in the batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, keeping the memory for the next use.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.bytes = 0;
    }

    /// Fails, before anything was written, if a key cannot be stored.
    fn check(&self) -> Result<(), StoreError> {
        match self.ops.iter().find(|(key, _)| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            Some((key, _)) => Err(StoreError::KeySize { bytes: key.len() }),
            None => Ok(()),
        }
    }

    fn drain(&mut self) -> std::vec::Drain<'_, (Bytes, Option<Bytes>)> {
        self.bytes = 0;
        self.ops.drain(..)
    }
}

/// A store engine. All methods may be called from any thread; batches of concurrent writers are applied one after the other.
pub trait Store: Send + Sync {
    /// The newest value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The newest rows with keys between two bounds, ascending, or descending if `reverse`. Rows written after the call are not
    /// seen. Bounds the wrong way round give no rows.
    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows;

    /// Writes a batch, visible to `get` and `scan` when the call returns, and drains it. On an error nothing was written.
    fn write(&self, batch: &mut WriteBatch) -> Result<(), StoreError>;

    /// Makes everything written so far visible to new snapshots. Called between log entries.
    fn publish(&self);

    /// What is published now, for as long as it is held. It holds on to the memory and the files that it reads from.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Bytes in memory that no flush has written yet.
    fn memory_bytes(&self) -> u64;

    /// Publishes, and freezes what was written so far into a job that makes it durable. Called between log entries. `None` when
    /// nothing was written, or while an earlier job is still flushing. A job that is dropped without success loses nothing: its
    /// rows stay readable, and the next seal hands them out again.
    fn seal(&self) -> Option<Box<dyn FlushJob>>;

    /// Bytes that the store's live tables occupy on disk.
    fn disk_bytes(&self) -> u64;

    /// Deletes up to `limit` of the rows whose keys begin with `prefix` and lie behind `after`. Returns the last of them if there may be more: whoever goes on
    /// behind it need not pass over what was deleted before, which a tree remembers for long. Each call is one batch, so a crash leaves a cleared beginning; the
    /// caller (who remembers in a row of its own that the slot is dead) calls again.
    fn clear_prefix(&self, prefix: &[u8], after: Option<Bytes>, limit: usize) -> Result<Option<Bytes>, StoreError> {
        let (mut batch, mut last) = (WriteBatch::new(), None);
        let from = after.map_or_else(|| Bound::Included(Bytes::copy_from_slice(prefix)), Bound::Excluded);
        for row in self.scan(from, prefix_end(prefix), false).take(limit) {
            let (key, _) = row?;
            batch.delete(key.clone());
            last = Some(key);
        }
        let full = batch.len() == limit;
        self.write(&mut batch)?;
        Ok(last.filter(|_| full))
    }
}

/// A consistent view of a store at the moment it was taken.
pub trait Snapshot: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Rows with keys between two bounds, ascending, or descending if `reverse`.
    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows;
}

/// A flush that waits to be run, on any thread, while the store goes on.
pub trait FlushJob: Send {
    /// Writes tables and makes them durable, directories included. After `Ok` everything written before the seal survives a crash. After
    /// [`StoreError::NoSpace`] it may be run again; other errors mean that the process must stop.
    fn run(&self) -> Result<(), StoreError>;

    /// Merges tables, if that is due: to be called after a successful run. It does as little as it may when another job waits for this thread,
    /// since memory is given back by flushes. An error means that the process must stop; a full disk is none, merging is tried again later.
    fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The first key behind all keys that begin with `prefix`.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bound<Bytes> {
    match prefix.iter().rposition(|byte| *byte != 0xFF) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bound::Excluded(end.into())
        }
        None => Bound::Unbounded,
    }
}

/// Whether no key can lie between two bounds. Ordered maps panic on such bounds, so it is asked first.
fn bounds_are_empty(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        (Bound::Unbounded, Bound::Excluded(b)) => b.is_empty(),
        _ => false,
    }
}
