//! Merging: a shard gives all that it has to the one before it, and is no more (docs/design/merging.md).

use crate::{KeyRange, Revision};
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Timestamp, WallMs, Writer};

/// Some rows of a shard that has yielded, on their way into the log of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The shard that has yielded.
    pub from: ShardId,
    /// Its keys.
    pub range: KeyRange,
    /// The last row of the page before; empty if there is none.
    pub after: Bytes,
    /// Rows, without their slot, in key order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether there are no more.
    pub last: bool,
    /// How the shard stands.
    pub given: Given,
}

/// What a shard that has yielded leaves behind, besides rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// How far its log is.
    pub index: LogIndex,
    /// Its revision.
    pub revision: Revision,
    /// Nothing that it knows happened later.
    pub clock: Timestamp,
    /// From this moment on its keys are what they are now.
    pub since: Timestamp,
    /// The wall clock of its last entry's proposer.
    pub wall: WallMs,
}

impl Page {
    /// Where no shard's rows go on: who is asked to take this, takes nothing, and says where it stands.
    pub const NOWHERE: Bytes = Bytes::from_static(&[0xFF]);

    /// An upper estimate of the encoded size, in bytes.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        let rows: usize = self.rows.iter().map(|(key, value)| key.len() + value.len() + 12).sum();
        self.range.size_estimate() + self.after.len() + rows + 96
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.from.0);
        self.range.encode(w);
        w.bytes(&self.after);
        w.varint(self.rows.len() as u64);
        for (key, value) in &self.rows {
            w.bytes(key);
            w.bytes(value);
        }
        w.bool(self.last);
        let Given { index, revision, clock, since, wall } = self.given;
        w.varint(index.0);
        w.varint(revision.0);
        [clock.0, since.0, wall.0].into_iter().for_each(|time| w.u64(time));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let (from, range) = (ShardId(r.u64("merged shard")?), KeyRange::decode(r)?);
        let after = r.bytes("row before")?;
        let mut rows = Vec::new();
        for _ in 0..r.count("rows")? {
            rows.push((r.bytes("row key")?, r.bytes("row")?));
        }
        let last = r.bool("last page")?;
        let given = Given {
            index: LogIndex(r.varint("index")?),
            revision: Revision(r.varint("revision")?),
            clock: Timestamp(r.u64("clock")?),
            since: Timestamp(r.u64("since")?),
            wall: WallMs(r.u64("wall clock")?),
        };
        Ok(Self { from, range, after, rows, last, given })
    }
}
