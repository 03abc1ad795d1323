//! Logs: keyspaces that hold records instead of keys, each at an offset. Appended at the end, read from any offset on, cut off at the beginning.
//!
//! ```text
//!   swept     first               end
//!     |  cut    |  o  o  o  o  o   |        offsets ascend by one, from 0; none is left out, and none is given twice
//!     |  off    |                  └─ the next append is written here, in the order of decisions
//!     |         └─ the first that is kept: what is before it is gone for readers
//!     └─ and up to here its rows are gone, too
//! ```
//!
//! A record is an ordinary row of its shard, under its offset, so it is in snapshots, moves and moments as keys are. Beside the records the shard keeps one more row, the
//! [`Bounds`]. Whoever may append holds that row locked until it is decided: so offsets are given in the order of decisions, and what is aborted leaves no gap.
//!
//! What clients do with a log is made of what there is: an append is a [`crate::across::Write`] of a transaction, a fetch is a read of two ranges.

use crate::across::Look;
use crate::{Freshness, KeyRange, KeyspaceId, Looked, RangeEnd, Refusal, limits};
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Timestamp, Writer};

/// The key of the row that says where a log begins and ends. It sorts before all offsets, whose keys are longer.
pub const BOUNDS: &[u8] = &[0];

/// Of the first encoding of a record's row, and of the bounds'.
const VERSION: u8 = 1;

/// What a client appends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What it is about; may be empty, and need not be unique.
    pub key: Bytes,
    /// What it says.
    pub value: Bytes,
}

/// A record in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub offset: u64,
    /// When it was appended; no earlier than the one before it.
    pub at: Timestamp,
    /// What it says.
    pub record: Record,
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub first: u64,
    /// The first offset that has a row; below `first` rows are on their way out.
    pub swept: u64,
    /// The next offset to be given.
    pub end: u64,
    /// Bytes of the records that have rows.
    pub bytes: u64,
}

/// What a client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The log.
    pub keyspace: KeyspaceId,
    /// The first offset wanted; the end of the log, if nothing is there yet.
    pub from: u64,
    /// At most so many records, 1 to [`limits::FETCH_RECORDS_MAX`].
    pub max: u64,
    /// No more once so many bytes of keys and values were found; no more than [`limits::FETCH_BYTES_MAX`].
    pub bytes_max: usize,
    /// How fresh it is to be.
    pub freshness: Freshness,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Consecutive, from the offset that was asked for; empty if the log ends there.
    pub entries: Vec<Entry>,
    /// Where to go on.
    pub next: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The next offset to be given.
    pub end: u64,
    /// Stands for all that was seen.
    pub token: Timestamp,
}

/// The key of an offset's row.
#[must_use]
pub fn key_of(offset: u64) -> Bytes {
    Bytes::copy_from_slice(&offset.to_be_bytes())
}

/// The offset whose row has this key.
#[must_use]
pub fn offset_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The rows of offsets from one on, up to but not including another.
#[must_use]
pub fn between(from: u64, to: u64) -> KeyRange {
    KeyRange { start: key_of(from), end: RangeEnd::Before(key_of(to)) }
}

impl Record {
    /// A record.
    #[must_use]
    pub fn of(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// Bytes of its key and its value.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }

    pub(crate) fn size_estimate(&self) -> usize {
        self.key.len() + self.value.len() + 16
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.key);
        w.bytes(&self.value);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { key: r.bytes("record's key")?, value: r.bytes("record's value")? })
    }

    /// Its row's value (docs/design/store-format.md).
    #[must_use]
    pub fn row(&self, at: Timestamp) -> Bytes {
        let mut w = Writer::appending(Vec::with_capacity(self.key.len() + self.value.len() + 16));
        w.u8(VERSION);
        w.u64(at.0);
        w.bytes(&self.key);
        w.raw(&self.value);
        w.finish().into()
    }
}

impl Entry {
    /// Reads a record's row. Key and value are slices of it.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(key: &[u8], row: Bytes) -> Result<Self, DecodeError> {
        let offset = offset_of(key).ok_or(DecodeError { what: "offset", at: 0 })?;
        let mut r = Reader::new(row);
        if r.u8("record version")? != VERSION {
            return Err(r.error("record version"));
        }
        let at = Timestamp(r.u64("record's timestamp")?);
        let key = r.bytes("record's key")?;
        let value = r.raw(r.remaining(), "record's value")?;
        Ok(Self { offset, at, record: Record { key, value } })
    }
}

impl Bounds {
    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        [self.first, self.swept, self.end, self.bytes].into_iter().for_each(|n| w.varint(n));
        w.finish().into()
    }

    /// Reads them.
    ///
    /// # Errors
    /// If they are not readable, or contradict themselves.
    pub fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        if r.u8("log's bounds version")? != VERSION {
            return Err(r.error("log's bounds version"));
        }
        let (first, swept) = (r.varint("first offset kept")?, r.varint("swept offset")?);
        let bounds = Self { first, swept, end: r.varint("end of the log")?, bytes: r.varint("bytes of the log")? };
        r.end("log's bounds")?;
        if bounds.swept > bounds.first || bounds.first > bounds.end {
            return Err(r.error("log's bounds"));
        }
        Ok(bounds)
    }
}

impl Fetch {
    /// What is to be looked at for it, in one shard and so at one moment.
    #[must_use]
    pub fn looks(&self) -> Vec<Look> {
        let to = self.from.saturating_add(self.max.clamp(1, limits::FETCH_RECORDS_MAX));
        [KeyRange::single(BOUNDS), between(self.from, to)]
            .map(|range| Look { keyspace: self.keyspace, range, limit: 0 })
            .into()
    }

    /// What was seen.
    ///
    /// # Errors
    /// [`Refusal::Trimmed`] if what is wanted was cut off. [`Refusal::BeyondEnd`] if it lies behind the end; a replica that may be behind says nothing of the end.
    ///
    /// # Panics
    /// If rows cannot be read that the shard has written.
    pub fn read(&self, looked: Looked) -> Result<Fetched, Refusal> {
        let mut looks = looked.looks.into_iter().map(|look| look.kvs);
        let bounds = looks.next().and_then(|kvs| kvs.into_iter().next());
        let bounds = bounds.map(|kv| Bounds::decode(kv.value).expect("a log's bounds are readable"));
        let Bounds { first, end, .. } = bounds.unwrap_or_default();
        if self.from < first {
            return Err(Refusal::Trimmed { first });
        }
        if self.from > end && self.freshness == Freshness::Strict {
            return Err(Refusal::BeyondEnd { end });
        }
        let mut entries = Vec::new();
        let (mut bytes, bytes_max) = (0, self.bytes_max.min(limits::FETCH_BYTES_MAX) as u64);
        for kv in looks.next().unwrap_or_default() {
            let entry = Entry::read(&kv.key, kv.value).expect("a log's records are readable");
            bytes += entry.record.bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry);
        }
        let next = entries.last().map_or(self.from, |last| last.offset + 1);
        Ok(Fetched { entries, next, first, end, token: looked.token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyValue, LeaseId, RangeResult, Revision};

    fn kv(key: Bytes, value: Bytes) -> KeyValue {
        let (create_revision, mod_revision) = (Revision(2), Revision(2));
        KeyValue { key, value, create_revision, mod_revision, version: 1, lease: LeaseId::NONE }
    }

    fn fetch(from: u64) -> Fetch {
        Fetch { keyspace: KeyspaceId(16), from, max: 10, bytes_max: 10, freshness: Freshness::Strict }
    }

    /// A log of the records 3 to 5, each of four bytes.
    fn looked(from: u64) -> Looked {
        let bounds = Bounds { first: 3, swept: 1, end: 6, bytes: 20 };
        let row = |n: u64| kv(key_of(n), Record::of("k", "val").row(Timestamp(n)));
        let all = |kvs: Vec<KeyValue>| RangeResult { count: kvs.len() as u64, kvs, more: false };
        let looks = vec![all(vec![kv(BOUNDS.into(), bounds.encode())]), all((from.max(3)..6).map(row).collect())];
        Looked { looks, token: Timestamp(9) }
    }

    #[test]
    fn rows_survive_and_offsets_ascend_as_their_keys_do() {
        let record = Record::of("k", vec![0xFF; 300]);
        let entry = Entry { offset: 1 << 40, at: Timestamp(7), record: record.clone() };
        assert_eq!(Entry::read(&key_of(1 << 40), record.row(Timestamp(7))), Ok(entry));
        assert!(Entry::read(BOUNDS, record.row(Timestamp(7))).is_err());
        let offsets = [0, 1, 255, 256, 1 << 40, u64::MAX];
        assert!(offsets.windows(2).all(|pair| key_of(pair[0]) < key_of(pair[1])));
        assert!(offsets.iter().all(|offset| offset_of(&key_of(*offset)) == Some(*offset)));
        assert!(offsets.iter().all(|offset| !between(*offset, u64::MAX).contains(BOUNDS)));
        assert!(!between(0, u64::MAX).contains(&[]) && offset_of(BOUNDS).is_none());
    }

    #[test]
    fn the_bytes_of_rows_stay_what_they_are() {
        let bounds = Bounds { first: 3, swept: 1, end: 300, bytes: 70_000 };
        assert_eq!(bounds.encode()[..], [1, 3, 1, 0xAC, 2, 0xF0, 0xA2, 4]);
        assert_eq!(Bounds::decode(bounds.encode()), Ok(bounds));
        assert_eq!(Record::of("k", "v").row(Timestamp(0x0102))[..], [1, 0x02, 0x01, 0, 0, 0, 0, 0, 0, 1, b'k', b'v']);
        for broken in [Bounds { swept: 4, ..bounds }, Bounds { first: 301, ..bounds }] {
            assert!(Bounds::decode(broken.encode()).is_err());
        }
    }

    #[test]
    fn a_fetch_is_what_is_there_up_to_its_bounds() {
        let fetched = fetch(3).read(looked(3)).expect("there");
        assert_eq!(fetched.entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((fetched.next, fetched.first, fetched.end), (5, 3, 6));
        let one = Fetch { bytes_max: 0, ..fetch(4) }.read(looked(4)).expect("there");
        assert_eq!((one.entries.len(), one.next), (1, 5), "one is always told");
        let none = fetch(6).read(looked(6)).expect("nothing yet");
        assert_eq!((none.entries.len(), none.next), (0, 6));
        assert_eq!(fetch(2).read(looked(2)), Err(Refusal::Trimmed { first: 3 }));
        assert_eq!(fetch(7).read(looked(7)), Err(Refusal::BeyondEnd { end: 6 }));
        let behind = Fetch { freshness: Freshness::Any, ..fetch(7) }.read(looked(7)).expect("it may be behind");
        assert_eq!(behind.next, 7);
        let empty = Looked { looks: vec![RangeResult::default(); 2], token: Timestamp::ZERO };
        assert_eq!(fetch(0).read(empty), Ok(Fetched::default()));
    }
}
