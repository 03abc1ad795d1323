//! A replica's one row about itself, written with every entry it applies.

use crate::rows::Slot;
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, Term, WallMs, Writer};
use quorate_kv::Revision;
use quorate_storage::store::StoreError;
use thiserror::Error;

const VERSION: u8 = 1;

/// Where a replica's state machine stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last entry applied.
    pub applied: LogIndex,
    /// Its term.
    pub applied_term: Term,
    /// The keyspace's revision.
    pub revision: Revision,
    /// History below this is forgotten; `None` until the first compaction.
    pub compacted: Option<Revision>,
    /// The chain over everything ever written, in order. Equal on replicas that stand at the same index.
    pub state_hash: u64,
    /// The wall clock of the last entry's proposer.
    pub wall: WallMs,
    /// The members as of `applied`, in consensus' own encoding.
    pub membership: Bytes,
}

/// Why a replica's rows could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The slot has no meta row.
    #[error("slot {0} holds no replica")]
    Absent(u32),
    /// A row does not make sense although its checksum held.
    #[error("a row of the store cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// A newer release wrote it.
    #[error("the rows have format version {0}, this release reads up to 1: start the newer release")]
    NewerFormat(u8),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Meta {
    /// A keyspace that was never written to. Revisions count from 1, as etcd's do.
    pub(crate) fn fresh(membership: Bytes) -> Self {
        Self { revision: Revision(1), membership, ..Self::default() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION);
        for n in [self.applied.0, self.applied_term.0, self.revision.0, self.compacted.map_or(0, |r| r.0 + 1)] {
            w.varint(n);
        }
        w.u64(self.state_hash);
        w.u64(self.wall.0);
        w.bytes(&self.membership);
        w.finish()
    }

    pub(crate) fn read(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let row = source.get(&slot.meta())?.ok_or(OpenError::Absent(slot.0))?;
        Self::decode(row)
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, OpenError> {
        let mut r = Reader::new(row);
        let version = r.u8("meta version")?;
        if version != VERSION {
            return Err(OpenError::NewerFormat(version));
        }
        let meta = Self {
            applied: LogIndex(r.varint("applied index")?),
            applied_term: Term(r.varint("applied term")?),
            revision: Revision(r.varint("revision")?),
            compacted: r.varint("compaction")?.checked_sub(1).map(Revision),
            state_hash: r.u64("state hash")?,
            wall: WallMs(r.u64("wall clock")?),
            membership: r.bytes("membership")?,
        };
        r.end("meta")?;
        Ok(meta)
    }
}
