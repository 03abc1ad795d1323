//! The replicated state machine: what a shard's log entries mean.
//!
//! ```text
//!   entry ──decode──> commands ──evaluate──> rows ──> Store          results for the session that asked
//!                                    └──> events ──> watch hub, history
//! ```
//!
//! [`Machine::apply`] is a pure function of the rows and the entry: every replica writes the same rows, in the same order, and
//! chains their hash. It either succeeds, refuses deterministically ([`quorate_kv::Refusal`]), or the replica stops
//! ([`MachineError`]). The applied index, the session table and the data change in one store write.
//!
//! Reading happens elsewhere: a [`View`] is a consistent picture that any thread may read for as long as it likes.
//!
//! The shard does not know that there is a network, a disk, a clock or another shard.

mod across;
mod ahead;
mod entry;
mod eval;
mod flaw;
mod gc;
mod leases;
mod logs;
mod machine;
mod merge;
mod meta;
mod moment;
mod reserve;
mod rows;
mod sessions;
mod source;
mod split;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;
mod transfer;
mod view;
mod watch;

pub use across::ledger::{Decided, Prepared};
pub use across::locks::Blocker;
pub use ahead::Ahead;
pub use entry::{EntryPayload, encode_entry};
pub use flaw::Flaw;
pub use machine::{Grant, Machine, MachineError, Output, Procedure, Procedures, Transaction};
pub use merge::Absorbing;
pub use merge::annex::Annex;
pub use meta::{Meta, OpenError};
pub use rows::Slot;
pub use split::birth::Birth;
pub use split::building::Building;
pub use split::weighing::{Weighing, Weight};
pub use transfer::{Chunk, Export, Import, ImportError, Remains};
pub use view::{EventPage, View};
pub use watch::{Attach, WatchHub, WatcherKey};
