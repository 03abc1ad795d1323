//! The write-ahead log: one stream of records for all consensus groups of a node.
//!
//! [`Wal`] is pure. It is given records and returns [`DiskOp`]s; a driver executes them strictly in order, on real files or on the
//! simulator's disk, and nothing is acknowledged before the [`DiskOp::Sync`] that ends an append has succeeded. The bytes are drawn
//! in docs/design/log-format.md. What it guarantees:
//!
//! - After a crash at any point, with any subset of the unsynced sectors lost, recovery yields every acknowledged record and a prefix
//!   of the records behind it, each whole.
//! - Nothing that was acknowledged and has changed since is handed out or cut off. One flipped bit is turned back; of what cannot be
//!   restored the names are known ([`RecoveredLog::rotted`]), so that it can be fetched from another replica and
//!   [put back](Wal::repair); and if not even the names are, the log is refused ([`WalError::Rot`]).
//! - What never was acknowledged and is incomplete is *torn*, and cut.
//! - Bytes from the earlier life of a recycled segment are neither data nor rot: every checksum is seeded with the segment's number.
//! - A durable block is never written again while it is needed.
//! - A quiet group does not pin old segments: its live records are written forward, and disk space stays within about twice the
//!   live bytes plus a few segments.
//!
//! ```text
//!          oldest needed                     current             prepared
//!   ┌─────────┬─────────┬─────────┬───────────────────────┬──────────────────┐
//!   │ dead    │ live    │ live    │ flush flush flush │   │ zeros or stale   │
//!   └────┬────┴─────────┴─────────┴───────────────────────┴──────────────────┘
//!        └── renamed to become the next prepared segment
//! ```

#[cfg(any(test, feature = "enumerate"))]
pub mod crash;
mod format;
mod ledger;
mod recover;
mod salvage;
#[cfg(test)]
mod tests;
mod writer;

pub use format::FORMAT_VERSION;
pub use recover::{Damage, Part, PromisesLost, Recovered, RecoveredLog, Rotted};
pub use writer::{Preparation, Wal, WalStats};

use bytes::Bytes;
use quorate_env::{ClusterId, Incarnation, LogIndex, NodeId, ReplicaId, ShardId, Term};
use std::fmt;
use thiserror::Error;

/// The largest payload of one record, in bytes: a request of the largest size and room for what wraps it.
pub const RECORD_BYTES_MAX: usize = (8 << 20) + (64 << 10);

/// Flushes begin and end on multiples of this many bytes, so that a durable block is never rewritten.
pub const BLOCK: usize = 4096;

/// Something to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// An entry. At or below the shard's last index it replaces that entry and everything after it.
    Entry(LogEntry),
    /// An entry that [rotted](RecoveredLog::rotted), as it was fetched from another replica. It stands where it stood and replaces
    /// nothing else.
    Repair(LogEntry),
    /// A replica's promises.
    HardState(HardState),
    /// The shard's log now begins after `index`: it was compacted, or a snapshot was installed.
    Start {
        /// Which log.
        shard: ShardId,
        /// The last index that is no longer in the log.
        index: LogIndex,
        /// That entry's term.
        term: Term,
        /// Whether later entries are void too, as after an installed snapshot.
        discard_after: bool,
    },
}

/// An entry of a shard's replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Which log.
    pub shard: ShardId,
    /// Its position.
    pub index: LogIndex,
    /// The term it was proposed in.
    pub term: Term,
    /// What the payload is, in the words of consensus; the log does not look at it.
    pub kind: u8,
    /// At most [`RECORD_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

/// What a replica must never forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardState {
    /// Which shard.
    pub shard: ShardId,
    /// Which replica of it.
    pub replica: ReplicaId,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: ReplicaId,
    /// The highest index it knew to be committed.
    pub commit: LogIndex,
}

/// A file of the log, named by its segment number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(pub u64);

impl FileName {
    /// The segment of a file of that name; `None` if it is not one of the log's files.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Self).filter(|file| file.to_string() == name)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.wal", self.0)
    }
}

/// One thing for the disk to do. Executed strictly in order; an error in any of them except [`DiskOp::Create`] for lack of space
/// ends the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Make a file of `bytes` zeros, replacing one of that name. On a full disk it may be repeated.
    Create {
        /// The file.
        file: FileName,
        /// Its size.
        bytes: u64,
    },
    /// Overwrite part of a file, within its size.
    Write {
        /// The file.
        file: FileName,
        /// Where, in bytes; a multiple of [`BLOCK`].
        offset: u64,
        /// What; a multiple of [`BLOCK`] long.
        bytes: Bytes,
    },
    /// Make the file's contents and size durable.
    Sync {
        /// The file.
        file: FileName,
    },
    /// Give a file another name, which is free.
    Rename {
        /// Its name so far.
        from: FileName,
        /// Its new name.
        to: FileName,
    },
    /// Make creations, renames and deletions durable.
    SyncDir,
    /// Remove a file, if it exists.
    Delete {
        /// The file.
        file: FileName,
    },
}

/// Whose log it is. A log of somebody else is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The data directory.
    pub incarnation: Incarnation,
}

/// Sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalLimits {
    /// Bytes per segment: a multiple of [`BLOCK`] in which the largest record fits.
    pub segment_bytes: u32,
    /// The largest payload of one record, in bytes; at most [`RECORD_BYTES_MAX`].
    pub record_bytes: u32,
    /// Segments in use above which live records are written forward, if fewer than half of the bytes in use are live.
    pub segments_target: u32,
    /// Bytes of live records that one upkeep writes forward at most, unless a single record is larger.
    pub rewrite_bytes: u32,
}

impl Default for WalLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            record_bytes: RECORD_BYTES_MAX as u32,
            segments_target: 4,
            rewrite_bytes: 1 << 20,
        }
    }
}

/// Why a log cannot be recovered. None of these is cured by trying again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WalError {
    /// Durable bytes have changed, and what they held cannot be restored here.
    #[error(
        "the log is damaged: {file} at byte {offset} ({}) no longer matches its checksum. Nothing was changed, and the other nodes have \
         what was here: replace this node by a new member with an empty data directory. An older copy of this directory would have forgotten \
         promises",
        describe(*.shard, *.index, *.term)
    )]
    Rot {
        /// The file.
        file: FileName,
        /// Where in it, in bytes.
        offset: u64,
        /// The shard whose record was hit, if that is known.
        shard: Option<ShardId>,
        /// The index of the entry that was hit; none if these were promises.
        index: Option<LogIndex>,
        /// The term of what was hit.
        term: Option<Term>,
    },
    /// A segment that is needed is not there.
    #[error("the log is incomplete: {file} is missing")]
    Missing {
        /// The lowest file that is missing.
        file: FileName,
    },
    /// There is no log here: no segment holds a single flush. Right only where creation did not finish.
    #[error("there is no log in this directory")]
    Empty,
    /// The log belongs to another node, cluster or data directory.
    #[error("{file} belongs to {cluster}, node {node}, incarnation {incarnation}")]
    Foreign {
        /// The file.
        file: FileName,
        /// The cluster it names.
        cluster: ClusterId,
        /// The node it names.
        node: NodeId,
        /// The data directory it names.
        incarnation: Incarnation,
    },
    /// The log was written by a newer release.
    #[error("{file} has format version {found}, and this release knows only {FORMAT_VERSION}: use a newer release")]
    NewerFormat {
        /// The file.
        file: FileName,
        /// The version found.
        found: u32,
    },
    /// Every checksum is right, but the records contradict each other.
    #[error("the log of {shard} has no entry {index}, though it has later ones")]
    Gap {
        /// Which log.
        shard: ShardId,
        /// The first missing index.
        index: LogIndex,
    },
}

fn describe(shard: Option<ShardId>, index: Option<LogIndex>, term: Option<Term>) -> String {
    match (shard, index, term) {
        (Some(shard), Some(index), Some(term)) => format!("shard {shard}, index {index}, term {term}"),
        (Some(shard), None, Some(term)) => format!("shard {shard}, the promises of term {term}"),
        _ => String::from("unknown records"),
    }
}
