//! What a node keeps on its disk: its identity, the write-ahead log and the store.
//!
//! - [`identity`]: whose directory this is, in several checksummed copies. Encoding only.
//! - [`wal`]: one log for all consensus groups of the node. A pure state machine: records in, disk operations out, so that the
//!   simulator's disk and the real one run the same code.
//! - [`store`]: the rows that were applied, behind a trait with two engines: `lsm-tree` on disk, and a model in memory.
//!
//! An acknowledged write is in the log, synced. The store may lose what it has not flushed; the log is replayed over it. The formats are
//! drawn in docs/design/log-format.md and docs/design/store-format.md.

pub mod identity;
pub mod store;
pub mod wal;
