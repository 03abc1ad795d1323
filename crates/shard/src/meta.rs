//! A replica's one row about itself, written with every entry it applies.

use crate::merge::Absorbing;
use crate::merge::annex::Annex;
use crate::rows::Slot;
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Term, Timestamp, WallMs, Writer};
use quorate_kv::{KeyRange, Revision};
use quorate_storage::store::StoreError;
use thiserror::Error;

/// Of a shard that was never split, so that the release before this one can read it.
const WHOLE: u8 = 1;
/// Of one that was.
const SPLIT: u8 = 2;
/// Of one that knows what time it is.
const TIMED: u8 = 3;
/// Of one that is merged with another.
const VERSION: u8 = 4;

/// Where a replica's state machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The keys that are its own. All, until it is split: nobody asks a shard for others.
    pub range: KeyRange,
    /// Keys from here on are about to go to another shard: nothing more of them is prepared for transactions.
    pub closing: Option<Bytes>,
    /// The timestamp of the last entry that had one: everything from now on happens later. [`Timestamp::ZERO`] until the cluster keeps timestamps.
    pub clock: Timestamp,
    /// Moments before this cannot be told apart: what happened then has no timestamps.
    pub since: Timestamp,
    /// Everything was given up to the shard before this one.
    pub yielded: bool,
    /// What the shard behind it has is on its way here.
    pub absorbing: Option<Absorbing>,
    /// Keys that came from other shards.
    pub annexes: Vec<Annex>,
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
    #[error("the rows have format version {0}, this release reads up to {VERSION}: start the newer release")]
    NewerFormat(u8),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Meta {
    /// A keyspace that was never written to. Revisions count from 1, as etcd's do.
    pub(crate) fn fresh(membership: Bytes) -> Self {
        Self {
            applied: LogIndex(0),
            applied_term: Term(0),
            revision: Revision::FIRST,
            compacted: None,
            state_hash: 0,
            wall: WallMs(0),
            membership,
            range: KeyRange::all(),
            closing: None,
            clock: Timestamp::ZERO,
            since: Timestamp::ZERO,
            yielded: false,
            absorbing: None,
            annexes: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let timed = self.clock != Timestamp::ZERO;
        let whole = self.range == KeyRange::all() && self.closing.is_none() && !timed;
        let merged = self.yielded || self.absorbing.is_some() || !self.annexes.is_empty();
        w.u8(match whole {
            true => WHOLE,
            false if merged => VERSION,
            false if timed => TIMED,
            false => SPLIT,
        });
        for n in [self.applied.0, self.applied_term.0, self.revision.0, self.compacted.map_or(0, |r| r.0 + 1)] {
            w.varint(n);
        }
        w.u64(self.state_hash);
        w.u64(self.wall.0);
        w.bytes(&self.membership);
        if !whole {
            self.range.encode(&mut w);
            w.bool(self.closing.is_some());
            self.closing.iter().for_each(|key| w.bytes(key));
        }
        if timed || merged {
            w.u64(self.clock.0);
            w.u64(self.since.0);
        }
        if merged {
            w.bool(self.yielded);
            w.bool(self.absorbing.is_some());
            if let Some(Absorbing { from, at }) = &self.absorbing {
                w.u64(from.0);
                w.bytes(at);
            }
            Annex::encode_all(&self.annexes, &mut w);
        }
        w.finish()
    }

    pub(crate) fn read(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let row = source.get(&slot.meta())?.ok_or(OpenError::Absent(slot.0))?;
        Self::decode(row)
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, OpenError> {
        let mut r = Reader::new(row);
        let version = r.u8("meta version")?;
        if version == 0 || version > VERSION {
            return Err(OpenError::NewerFormat(version));
        }
        let mut meta = Self {
            applied: LogIndex(r.varint("applied index")?),
            applied_term: Term(r.varint("applied term")?),
            revision: Revision(r.varint("revision")?),
            compacted: r.varint("compaction")?.checked_sub(1).map(Revision),
            state_hash: r.u64("state hash")?,
            wall: WallMs(r.u64("wall clock")?),
            membership: r.bytes("membership")?,
            range: KeyRange::all(),
            closing: None,
            clock: Timestamp::ZERO,
            since: Timestamp::ZERO,
            yielded: false,
            absorbing: None,
            annexes: Vec::new(),
        };
        if version > WHOLE {
            meta.range = KeyRange::decode(&mut r)?;
            meta.closing = if r.bool("closing")? { Some(r.bytes("closing from")?) } else { None };
        }
        if version > SPLIT {
            (meta.clock, meta.since) = (Timestamp(r.u64("clock")?), Timestamp(r.u64("since")?));
        }
        if version > TIMED {
            meta.yielded = r.bool("yielded")?;
            if r.bool("absorbing")? {
                meta.absorbing = Some(Absorbing { from: ShardId(r.u64("absorbed")?), at: r.bytes("last row")? });
            }
            meta.annexes = Annex::decode_all(&mut r)?;
        }
        r.end("meta")?;
        Ok(meta)
    }
}
