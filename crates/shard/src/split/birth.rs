//! What a child begins with, besides its keys: written down in the parent's rows by the entry that splits it off, and kept until it is weaned.

use crate::merge::annex::Annex;
use crate::meta::{Meta, OpenError};
use crate::rows::{BIRTH, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Term, Timestamp, WallMs, Writer};
use quorate_kv::across::TxId;
use quorate_kv::{KeyRange, Revision};
use std::collections::BTreeMap;

/// Of a parent without timestamps.
const UNTIMED: u8 = 1;
/// Of one with timestamps, of whose keys none is reserved.
const UNRESERVED: u8 = 2;
/// Of one with timestamps, of whose keys none came from another shard.
const UNMERGED: u8 = 3;
const VERSION: u8 = 4;

/// See the module. Equal on every replica of the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The child.
    pub child: ShardId,
    /// Its keys.
    pub range: KeyRange,
    /// The entry of the parent that split it off. The child's log goes on from there, so that what was to be kept until some entry is.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The parent's revision then; the child's go on from it.
    pub revision: Revision,
    /// History below this is forgotten.
    pub compacted: Option<Revision>,
    /// What the child's chain of changes begins with.
    pub state_hash: u64,
    /// The wall clock of the entry's proposer.
    pub wall: WallMs,
    /// The members, in consensus' own encoding.
    pub membership: Bytes,
    /// What was committed under clients' names, as rows: a retry may find its home in the child.
    pub(crate) decisions: Vec<(TxId, Bytes)>,
    /// The parent's clock: the child's goes on from it.
    pub clock: Timestamp,
    /// Since when what happened to the keys has timestamps.
    pub since: Timestamp,
    /// What is reserved of its keys, as rows.
    pub(crate) reservations: Vec<(Bytes, Bytes)>,
    /// Which of its keys came from other shards.
    pub(crate) annexes: Vec<Annex>,
}

impl Birth {
    /// All that a parent's rows tell of.
    pub(crate) fn load(source: &Source, slot: Slot) -> Result<BTreeMap<ShardId, Self>, OpenError> {
        let (from, to) = slot.kind(BIRTH);
        let births = source.scan(from, to).map(|row| {
            let birth = Self::decode(row?.1)?;
            Ok((birth.child, birth))
        });
        births.collect()
    }

    /// The child's first row about itself.
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            applied: self.index,
            applied_term: self.term,
            revision: self.revision,
            compacted: self.compacted,
            state_hash: self.state_hash,
            wall: self.wall,
            membership: self.membership.clone(),
            range: self.range.clone(),
            closing: None,
            clock: self.clock,
            since: self.since,
            yielded: false,
            absorbing: None,
            annexes: self.annexes.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let timed = self.clock != Timestamp::ZERO;
        let reserved = !self.reservations.is_empty();
        let merged = !self.annexes.is_empty();
        w.u8(match (timed, reserved) {
            _ if merged => VERSION,
            (_, true) => UNMERGED,
            (true, false) => UNRESERVED,
            (false, false) => UNTIMED,
        });
        w.u64(self.child.0);
        self.range.encode(&mut w);
        for n in [self.index.0, self.term.0, self.revision.0, self.compacted.map_or(0, |r| r.0 + 1)] {
            w.varint(n);
        }
        w.u64(self.state_hash);
        w.u64(self.wall.0);
        w.bytes(&self.membership);
        w.varint(self.decisions.len() as u64);
        for (tx, row) in &self.decisions {
            tx.encode(&mut w);
            w.bytes(row);
        }
        if timed || reserved || merged {
            w.u64(self.clock.0);
            w.u64(self.since.0);
        }
        if reserved || merged {
            w.varint(self.reservations.len() as u64);
            for (key, row) in &self.reservations {
                w.bytes(key);
                w.bytes(row);
            }
        }
        if merged {
            Annex::encode_all(&self.annexes, &mut w);
        }
        w.finish()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let version = r.u8("birth version")?;
        if !(UNTIMED..=VERSION).contains(&version) {
            return Err(r.error("birth version"));
        }
        let mut birth = Self {
            child: ShardId(r.u64("child")?),
            range: KeyRange::decode(&mut r)?,
            index: LogIndex(r.varint("index")?),
            term: Term(r.varint("term")?),
            revision: Revision(r.varint("revision")?),
            compacted: r.varint("compaction")?.checked_sub(1).map(Revision),
            state_hash: r.u64("state hash")?,
            wall: WallMs(r.u64("wall clock")?),
            membership: r.bytes("membership")?,
            decisions: Vec::new(),
            clock: Timestamp::ZERO,
            since: Timestamp::ZERO,
            reservations: Vec::new(),
            annexes: Vec::new(),
        };
        for _ in 0..r.count("decisions")? {
            birth.decisions.push((TxId::decode(&mut r)?, r.bytes("decision")?));
        }
        if version > UNTIMED {
            (birth.clock, birth.since) = (Timestamp(r.u64("clock")?), Timestamp(r.u64("since")?));
        }
        if version > UNRESERVED {
            for _ in 0..r.count("reservations")? {
                birth.reservations.push((r.bytes("reserved key")?, r.bytes("reservation")?));
            }
        }
        if version > UNMERGED {
            birth.annexes = Annex::decode_all(&mut r)?;
        }
        r.end("birth")?;
        Ok(birth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::RangeEnd;

    #[test]
    fn a_birth_survives_its_row_and_no_part_of_it_is_taken_for_it() {
        let unreserved = Birth {
            child: ShardId(21),
            range: KeyRange { start: "m".into(), end: RangeEnd::Before("x".into()) },
            index: LogIndex(300),
            term: Term(4),
            revision: Revision(77),
            compacted: Some(Revision(0)),
            state_hash: 9,
            wall: WallMs(8),
            membership: "members".into(),
            decisions: vec![(TxId(7), "row".into())],
            clock: Timestamp(70),
            since: Timestamp(7),
            reservations: Vec::new(),
            annexes: Vec::new(),
        };
        let annex = Annex { range: unreserved.range.clone(), revision: Revision(70), since: Timestamp(60) };
        let merged = Birth { annexes: vec![annex], ..unreserved.clone() };
        let reserved = Birth { reservations: vec![("n".into(), "row".into())], ..unreserved.clone() };
        for birth in [unreserved, reserved, merged] {
            let row = Bytes::from(birth.encode());
            assert_eq!(Birth::decode(row.clone()), Ok(birth));
            for len in 0..row.len() {
                assert!(Birth::decode(row.slice(..len)).is_err(), "a cut at {len}");
            }
        }
    }
}
