//! The session table: which commands were applied, so that a retry never applies twice.
//!
//! A session sends commands numbered from 1, several at once and in any order, and says below which number everything is
//! answered. The table keeps the numbers at and above that floor. It is replicated state: it changes in the same write as the
//! data, and travels in snapshots.

use crate::rows::{SESSION, SLOT_BYTES, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Writer};
use quorate_kv::{CommandId, Revision, SessionId};
use std::collections::BTreeMap;

use crate::OpenError;

/// Sessions kept. The one least recently used (by log order) goes first: 4096 is a hundred times the nodes of a large cluster,
/// and costs a few MiB.
pub(crate) const SESSIONS_MAX: usize = 4096;

/// Answered commands kept per session above its floor. A session with more in flight loses its oldest: far above what a node
/// may have in flight.
pub(crate) const ANSWERS_MAX: usize = 65_536;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    /// Everything below is answered.
    floor: u64,
    /// Log order of the last use, for eviction.
    used: u64,
    /// Applied commands at and above the floor, with the revision after each.
    applied: BTreeMap<u64, Revision>,
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: BTreeMap<SessionId, Session>,
}

/// What the table knows of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Never applied, as far as the table reaches.
    New,
    /// Applied; the keyspace stood at this revision afterwards.
    Applied(Revision),
    /// Below the session's floor: it was answered, and what became of it is forgotten.
    Forgotten,
}

impl Sessions {
    pub fn load(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let mut table = BTreeMap::new();
        let (from, to) = slot.kind(SESSION);
        for row in source.scan(from, to) {
            let (key, value) = row?;
            let id = key.get(SLOT_BYTES + 1..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id = id.ok_or(DecodeError { what: "session key", at: 0 })?;
            table.insert(SessionId(id), decode(value)?);
        }
        Ok(Self { table })
    }

    pub fn seen(&self, id: CommandId) -> Seen {
        match self.table.get(&id.session) {
            Some(session) if id.seq < session.floor => Seen::Forgotten,
            Some(session) => session.applied.get(&id.seq).map_or(Seen::New, |revision| Seen::Applied(*revision)),
            None => Seen::New,
        }
    }

    /// Remembers that a command was applied (or refused) at log position `order`.
    pub fn record(&mut self, id: CommandId, answered_below: u64, order: u64, revision: Revision) {
        let session = self.table.entry(id.session).or_default();
        session.used = order;
        if answered_below > session.floor {
            session.floor = answered_below;
            session.applied = session.applied.split_off(&answered_below);
        }
        if id.seq >= session.floor {
            session.applied.insert(id.seq, revision);
        }
        while session.applied.len() > ANSWERS_MAX {
            session.applied.pop_first();
        }
    }

    /// The sessions to drop now that there are too many.
    pub fn evict(&mut self) -> Vec<SessionId> {
        let mut evicted = Vec::new();
        while self.table.len() > SESSIONS_MAX {
            let oldest = self.table.iter().min_by_key(|(id, s)| (s.used, **id)).map(|(id, _)| *id);
            let oldest = oldest.expect("the table is not empty");
            self.table.remove(&oldest);
            evicted.push(oldest);
        }
        evicted
    }

    /// The row of a session.
    pub fn encode(&self, id: SessionId) -> Vec<u8> {
        let mut w = Writer::new();
        let session = &self.table[&id];
        w.varint(session.floor);
        w.varint(session.used);
        w.varint(session.applied.len() as u64);
        let (mut seq_before, mut revision_before) = (session.floor, 0i64);
        for (seq, revision) in &session.applied {
            w.varint(seq - seq_before);
            w.zigzag(revision.0 as i64 - revision_before);
            (seq_before, revision_before) = (*seq, revision.0 as i64);
        }
        w.finish()
    }

    /// Drops a session's rows in a planted bug of the simulator.
    pub fn forget_all(&mut self) {
        self.table.clear();
    }
}

fn decode(row: Bytes) -> Result<Session, DecodeError> {
    let mut r = Reader::new(row);
    let floor = r.varint("session floor")?;
    let used = r.varint("session use")?;
    let mut applied = BTreeMap::new();
    let (mut seq, mut revision) = (floor, 0i64);
    for _ in 0..r.count("answers")? {
        seq = seq.checked_add(r.varint("sequence")?).ok_or_else(|| r.error("sequence"))?;
        revision = revision.checked_add(r.zigzag("revision")?).ok_or_else(|| r.error("revision"))?;
        applied.insert(seq, Revision(revision as u64));
    }
    r.end("session")?;
    Ok(Session { floor, used, applied })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> CommandId {
        CommandId { session: SessionId(1), seq }
    }

    #[test]
    fn a_retry_is_recognised_until_it_was_answered() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.seen(id(2)), Seen::New);
        sessions.record(id(2), 1, 10, Revision(5));
        sessions.record(id(1), 1, 11, Revision(6));
        assert_eq!(sessions.seen(id(2)), Seen::Applied(Revision(5)));
        sessions.record(id(3), 3, 12, Revision(7));
        assert_eq!(sessions.seen(id(2)), Seen::Forgotten);
        assert_eq!(sessions.seen(id(3)), Seen::Applied(Revision(7)));
        let row = sessions.encode(SessionId(1));
        assert_eq!(decode(row.into()).as_ref(), Ok(&sessions.table[&SessionId(1)]));
    }

    #[test]
    fn the_least_recently_used_session_goes_first() {
        let mut sessions = Sessions::default();
        for n in 0..=SESSIONS_MAX as u64 {
            sessions.record(CommandId { session: SessionId(n), seq: 1 }, 1, n, Revision(1));
        }
        sessions.record(CommandId { session: SessionId(0), seq: 2 }, 1, u64::MAX, Revision(1));
        assert_eq!(sessions.evict(), vec![SessionId(1)]);
        assert_eq!(sessions.evict(), vec![]);
    }
}
