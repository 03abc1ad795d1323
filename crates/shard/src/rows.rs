//! The rows of a shard: their keys and values, byte by byte (docs/design/store-format.md).
//!
//! Every key begins with the replica's slot, so that a snapshot can be installed beside the old rows and switched to at once.
//!
//! ```text
//!   slot A                      meta: applied index, revision, compaction, state hash, members
//!   slot B child                what a shard begins with that was split off, until it is weaned
//!   slot C key                  the key's present value
//!   slot H esc(key) ~revision   a former value, or the tombstone of a removal
//!   slot E revision             the events of one log entry, under its last revision, and when they happened
//!   slot G                      how far this replica has collected compacted history (local, not replicated state)
//!   slot K lease key            a key attached to a lease
//!   slot L lease                a lease
//!   slot M shard                a shard whose keys came here when it yielded: it is not split off again
//!   slot P tx                   the part of a transaction over several shards that is prepared here
//!   slot R key                  who has reserved the key
//!   slot S session              a session's answered commands
//!   slot T tx                   what was decided of a transaction whose home this is
//! ```

use bytes::Bytes;
use quorate_env::{DecodeError, Reader, ShardId, Timestamp, Writer};
use quorate_kv::across::TxId;
use quorate_kv::{EventKind, KeyValue, LeaseId, Revision, SessionId};
use std::ops::Bound;

/// Where a replica's rows live in its node's store. Local to the node, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

pub(crate) const META: u8 = b'A';
pub(crate) const BIRTH: u8 = b'B';
pub(crate) const CURRENT: u8 = b'C';
pub(crate) const EVENTS: u8 = b'E';
pub(crate) const COLLECTED: u8 = b'G';
pub(crate) const HISTORY: u8 = b'H';
pub(crate) const LEASE_KEY: u8 = b'K';
pub(crate) const LEASE: u8 = b'L';
pub(crate) const MERGED: u8 = b'M';
pub(crate) const PREPARED: u8 = b'P';
pub(crate) const RESERVED: u8 = b'R';
pub(crate) const SESSION: u8 = b'S';
pub(crate) const DECIDED: u8 = b'T';

/// Bytes before the kind of a row: the slot. What comes after is the same on every replica.
pub(crate) const SLOT_BYTES: usize = 4;

impl Slot {
    /// The prefix of all rows of the slot.
    #[must_use]
    pub fn prefix(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn key(self, kind: u8, rest: &[&[u8]]) -> Bytes {
        let mut key = Vec::with_capacity(SLOT_BYTES + 1 + rest.iter().map(|part| part.len()).sum::<usize>());
        key.extend_from_slice(&self.0.to_be_bytes());
        key.push(kind);
        for part in rest {
            key.extend_from_slice(part);
        }
        key.into()
    }

    pub(crate) fn meta(self) -> Bytes {
        self.key(META, &[])
    }

    pub(crate) fn collected(self) -> Bytes {
        self.key(COLLECTED, &[])
    }

    pub(crate) fn current(self, key: &[u8]) -> Bytes {
        self.key(CURRENT, &[key])
    }

    pub(crate) fn history(self, key: &[u8], revision: Revision) -> Bytes {
        self.key(HISTORY, &[&escape(key), &(!revision.0).to_be_bytes()])
    }

    /// The first possible row behind all history of `key`.
    pub(crate) fn history_behind(self, key: &[u8]) -> Bytes {
        self.key(HISTORY, &[&escape(key), &[0xFF; 9]])
    }

    /// The first possible history row of the first key at or after `key`.
    pub(crate) fn history_from(self, key: &[u8]) -> Bytes {
        let mut escaped = escape(key);
        escaped.truncate(escaped.len() - 2);
        self.key(HISTORY, &[&escaped])
    }

    pub(crate) fn events(self, last: Revision) -> Bytes {
        self.key(EVENTS, &[&last.0.to_be_bytes()])
    }

    pub(crate) fn lease(self, id: LeaseId) -> Bytes {
        self.key(LEASE, &[&id.0.to_be_bytes()])
    }

    pub(crate) fn lease_key(self, id: LeaseId, key: &[u8]) -> Bytes {
        self.key(LEASE_KEY, &[&id.0.to_be_bytes(), key])
    }

    pub(crate) fn prepared(self, tx: TxId) -> Bytes {
        self.key(PREPARED, &[&tx.0.to_be_bytes()])
    }

    pub(crate) fn decided(self, tx: TxId) -> Bytes {
        self.key(DECIDED, &[&tx.0.to_be_bytes()])
    }

    pub(crate) fn reserved(self, key: &[u8]) -> Bytes {
        self.key(RESERVED, &[key])
    }

    pub(crate) fn birth(self, child: ShardId) -> Bytes {
        self.key(BIRTH, &[&child.0.to_be_bytes()])
    }

    pub(crate) fn merged(self, shard: ShardId) -> Bytes {
        self.key(MERGED, &[&shard.0.to_be_bytes()])
    }

    pub(crate) fn session(self, id: SessionId) -> Bytes {
        self.key(SESSION, &[&id.0.to_be_bytes()])
    }

    /// All rows of one kind.
    pub(crate) fn kind(self, kind: u8) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Included(self.key(kind, &[])), Bound::Excluded(self.key(kind + 1, &[])))
    }

    /// The end of one kind of rows.
    pub(crate) fn kind_end(self, kind: u8) -> Bound<Bytes> {
        Bound::Excluded(self.key(kind + 1, &[]))
    }
}

/// Order-preserving and prefix-free: 0x00 becomes 0x00 0xFF, the end is 0x00 0x00.
fn escape(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
    out
}

/// The key and revision of a history row's key (with its slot).
pub(crate) fn parse_history(row: &[u8]) -> Option<(Bytes, Revision)> {
    let body = row.get(SLOT_BYTES + 1..)?;
    let split = body.len().checked_sub(10)?;
    let (escaped, tail) = body.split_at(split);
    if tail[..2] != [0, 0] {
        return None;
    }
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        key.push(byte);
        if byte == 0 && bytes.next() != Some(&0xFF) {
            return None;
        }
    }
    let revision = Revision(!u64::from_be_bytes(tail[2..].try_into().ok()?));
    Some((key.into(), revision))
}

/// The revision of an events row's key (with its slot).
pub(crate) fn parse_events(row: &[u8]) -> Option<Revision> {
    Some(Revision(u64::from_be_bytes(row.get(SLOT_BYTES + 1..)?.try_into().ok()?)))
}

/// The key of a current row's key (with its slot), as a slice of it.
pub(crate) fn parse_current(row: &Bytes) -> Bytes {
    row.slice(SLOT_BYTES + 1..)
}

/// The value of a current row.
pub(crate) fn encode_value(kv: &KeyValue) -> Vec<u8> {
    let mut w = Writer::appending(Vec::with_capacity(kv.value.len() + 24));
    w.varint(kv.create_revision.0);
    w.varint(kv.mod_revision.0);
    w.varint(kv.version);
    w.zigzag(kv.lease.0);
    w.raw(&kv.value);
    w.finish()
}

/// Reads a current row back; the value is a slice of `row`.
pub(crate) fn decode_value(key: Bytes, row: Bytes) -> Result<KeyValue, DecodeError> {
    let mut r = Reader::new(row);
    let create_revision = Revision(r.varint("create revision")?);
    let mod_revision = Revision(r.varint("mod revision")?);
    let version = r.varint("version")?;
    let lease = LeaseId(r.zigzag("lease")?);
    let value = r.raw(r.remaining(), "value")?;
    Ok(KeyValue { key, value, create_revision, mod_revision, version, lease })
}

const TOMBSTONE: u8 = 0;
const VALUE: u8 = 1;

/// The value of a history row: a former value, or `None` for a tombstone.
pub(crate) fn encode_former(current_row: Option<&[u8]>) -> Vec<u8> {
    match current_row {
        None => vec![TOMBSTONE],
        Some(row) => {
            let mut out = Vec::with_capacity(row.len() + 1);
            out.push(VALUE);
            out.extend_from_slice(row);
            out
        }
    }
}

/// Reads a history row back.
pub(crate) fn decode_former(key: Bytes, row: &Bytes) -> Result<Option<KeyValue>, DecodeError> {
    match row.first() {
        Some(&TOMBSTONE) if row.len() == 1 => Ok(None),
        Some(&VALUE) => decode_value(key, row.slice(1..)).map(Some),
        _ => Err(DecodeError { what: "history row", at: 0 }),
    }
}

/// One event as its row keeps it: the value is found under the key and the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub revision: Revision,
    pub kind: EventKind,
    /// Where the key's former value is; 0 if there was none.
    pub prev: Revision,
    pub key: Bytes,
    /// The value row of a put that the same revision overtook, by removing the key again: it is found nowhere else.
    pub overtaken: Option<Bytes>,
}

/// When the events of one entry happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct When {
    /// The entry's timestamp; [`Timestamp::ZERO`] if it has none.
    pub at: Timestamp,
    /// What a later entry tells of happened later than this.
    pub closed: Timestamp,
    /// Revisions of transactions that were decided elsewhere, and had happened by this moment already.
    pub late: Vec<(Revision, Timestamp)>,
}

/// What begins an events row with timestamps; those without begin with how many events there are.
const TIMED: u64 = 0;

pub(crate) fn encode_events(when: &When, events: &[EventRow]) -> Vec<u8> {
    let mut w = Writer::new();
    if when.at != Timestamp::ZERO {
        w.varint(TIMED);
        w.u64(when.at.0);
        w.u64(when.closed.0);
        w.varint(when.late.len() as u64);
        for (revision, at) in &when.late {
            w.varint(revision.0);
            w.u64(at.0);
        }
    }
    w.varint(events.len() as u64);
    for event in events {
        w.varint(event.revision.0);
        w.u8(match (event.kind, &event.overtaken) {
            (EventKind::Put, None) => 0,
            (EventKind::Delete, _) => 1,
            (EventKind::Put, Some(_)) => 2,
        });
        w.varint(event.prev.0);
        w.bytes(&event.key);
        if let (EventKind::Put, Some(row)) = (event.kind, &event.overtaken) {
            w.bytes(row);
        }
    }
    w.finish()
}

/// When the events of a row happened.
pub(crate) fn decode_when(row: &Bytes) -> Result<When, DecodeError> {
    Ok(read_when(&mut Reader::new(row.clone()))?.0)
}

/// And how many they are.
fn read_when(r: &mut Reader) -> Result<(When, usize), DecodeError> {
    match r.count("events")? {
        0 => {}
        events => return Ok((When::default(), events)),
    }
    let (at, closed) = (Timestamp(r.u64("entry's timestamp")?), Timestamp(r.u64("closed timestamp")?));
    let mut late = Vec::new();
    for _ in 0..r.count("late revisions")? {
        late.push((Revision(r.varint("late revision")?), Timestamp(r.u64("its timestamp")?)));
    }
    Ok((When { at, closed, late }, r.count("events")?))
}

pub(crate) fn decode_events(row: Bytes) -> Result<Vec<EventRow>, DecodeError> {
    let mut r = Reader::new(row);
    let mut events = Vec::new();
    for _ in 0..read_when(&mut r)?.1 {
        let revision = Revision(r.varint("event revision")?);
        let (kind, overtaken) = match r.u8("event kind")? {
            0 => (EventKind::Put, false),
            1 => (EventKind::Delete, false),
            2 => (EventKind::Put, true),
            _ => return Err(r.error("event kind")),
        };
        let (prev, key) = (Revision(r.varint("previous revision")?), r.bytes("event key")?);
        let overtaken = if overtaken { Some(r.bytes("overtaken value")?) } else { None };
        events.push(EventRow { revision, kind, prev, key, overtaken });
    }
    r.end("events")?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_sorts_by_key_then_newest_first() {
        let slot = Slot(7);
        let order = [
            slot.history_from(b"a"),
            slot.history(b"a", Revision(9)),
            slot.history(b"a", Revision(2)),
            slot.history_behind(b"a"),
            slot.history(b"a\0", Revision(5)),
            slot.history(b"a\0\0", Revision(5)),
            slot.history(b"a\x01", Revision(5)),
            slot.history(b"b", Revision(1)),
        ];
        assert!(order.windows(2).all(|w| w[0] < w[1]));
        for key in [&b"a"[..], b"", b"a\0", b"\0\xFF\0"] {
            assert_eq!(
                parse_history(&slot.history(key, Revision(6))),
                Some((Bytes::copy_from_slice(key), Revision(6)))
            );
        }
        assert_eq!(parse_history(b"short"), None);
    }

    #[test]
    fn events_survive_their_rows_with_a_time_and_without() {
        let event = |key: &'static str, revision| EventRow {
            revision: Revision(revision),
            kind: EventKind::Put,
            prev: Revision(0),
            key: key.into(),
            overtaken: None,
        };
        let events = vec![event("a", 7), event("b", 8)];
        let late = vec![(Revision(7), Timestamp(60)), (Revision(8), Timestamp(50))];
        for when in [When::default(), When { at: Timestamp(70), closed: Timestamp(65), late }] {
            let row = Bytes::from(encode_events(&when, &events));
            assert_eq!(decode_when(&row).as_ref(), Ok(&when));
            assert_eq!(decode_events(row.clone()).as_ref(), Ok(&events));
            (0..row.len()).for_each(|len| assert!(decode_events(row.slice(..len)).is_err(), "a cut at {len}"));
        }
    }

    #[test]
    fn values_survive_their_rows() {
        let kv = KeyValue {
            key: "k".into(),
            value: "value".into(),
            create_revision: Revision(3),
            mod_revision: Revision(300),
            version: 12,
            lease: LeaseId(-4),
        };
        let row = Bytes::from(encode_value(&kv));
        assert_eq!(decode_value("k".into(), row.clone()), Ok(kv.clone()));
        assert_eq!(decode_former("k".into(), &encode_former(Some(&row)).into()), Ok(Some(kv)));
        assert_eq!(decode_former("k".into(), &encode_former(None).into()), Ok(None));
        assert!(decode_former("k".into(), &Bytes::new()).is_err());
    }
}
