//! Messages between the replicas of a group, with their encoding (docs/design/wire-format.md).

use crate::Membership;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ReplicaId, Term, Writer};
use raft::eraftpb;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Commands, or nothing (a new leader's first entry).
    Normal = 0,
    /// A change of membership.
    Membership = 1,
}

impl EntryKind {
    /// From its number on disk or wire.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Normal),
            1 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub kind: EntryKind,
    /// The bytes; empty for a new leader's first entry.
    pub data: Bytes,
}

/// What a replica must never forget between two lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Whom it voted for in that term; 0 is nobody.
    pub vote: ReplicaId,
    /// An index known to be committed; may lag.
    pub commit: LogIndex,
}

/// The point a snapshot stands for. The rows travel separately; `data` says how to fetch them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry it covers.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The members as of that entry.
    pub membership: Membership,
    /// The owner's descriptor.
    pub data: Bytes,
}

/// The kinds of messages that travel. The numbers are the wire's and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum MessageKind {
    Append = 1,
    AppendResponse = 2,
    RequestVote = 3,
    RequestVoteResponse = 4,
    Snapshot = 5,
    Heartbeat = 6,
    HeartbeatResponse = 7,
    TransferLeader = 8,
    TimeoutNow = 9,
    ReadIndex = 10,
    ReadIndexResponse = 11,
    RequestPreVote = 12,
    RequestPreVoteResponse = 13,
}

const KINDS: [(MessageKind, eraftpb::MessageType); 13] = {
    use MessageKind as K;
    use eraftpb::MessageType as M;
    [
        (K::Append, M::MsgAppend),
        (K::AppendResponse, M::MsgAppendResponse),
        (K::RequestVote, M::MsgRequestVote),
        (K::RequestVoteResponse, M::MsgRequestVoteResponse),
        (K::Snapshot, M::MsgSnapshot),
        (K::Heartbeat, M::MsgHeartbeat),
        (K::HeartbeatResponse, M::MsgHeartbeatResponse),
        (K::TransferLeader, M::MsgTransferLeader),
        (K::TimeoutNow, M::MsgTimeoutNow),
        (K::ReadIndex, M::MsgReadIndex),
        (K::ReadIndexResponse, M::MsgReadIndexResp),
        (K::RequestPreVote, M::MsgRequestPreVote),
        (K::RequestPreVoteResponse, M::MsgRequestPreVoteResponse),
    ]
};

/// One message between two replicas of a group. Fields a kind does not use are zero or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The sender's term; 0 for kinds that carry none.
    pub term: Term,
    /// The term of the entry before the appended ones, or of the candidate's last entry.
    pub log_term: Term,
    /// The index of the entry before the appended ones, of the last matching one, or of the read.
    pub index: LogIndex,
    /// Appended entries.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// The term of the entry at `commit`.
    pub commit_term: Term,
    /// Of [`MessageKind::Snapshot`].
    pub snapshot: Option<Snapshot>,
    /// A follower's wish for a snapshot at or above this index.
    pub request_snapshot: LogIndex,
    /// Whether the request was refused.
    pub reject: bool,
    /// Where the follower believes that the logs may match.
    pub reject_hint: LogIndex,
    /// What a heartbeat or read carries to recognise its answer, or the reason of a vote.
    pub context: Bytes,
    /// Election priority.
    pub priority: i64,
}

impl Entry {
    pub(crate) fn to_engine(&self) -> eraftpb::Entry {
        let entry_type = match self.kind {
            EntryKind::Normal => eraftpb::EntryType::EntryNormal,
            EntryKind::Membership => eraftpb::EntryType::EntryConfChangeV2,
        };
        let (index, term, data) = (self.index.0, self.term.0, self.data.clone());
        eraftpb::Entry { entry_type, index, term, data, ..Default::default() }
    }

    pub(crate) fn from_engine(e: eraftpb::Entry) -> Self {
        Self {
            index: LogIndex(e.index),
            term: Term(e.term),
            kind: match e.entry_type {
                eraftpb::EntryType::EntryNormal => EntryKind::Normal,
                _ => EntryKind::Membership,
            },
            data: e.data,
        }
    }

    /// Bytes this entry takes in memory and on the wire, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + 32
    }
}

impl Snapshot {
    pub(crate) fn to_engine(&self) -> eraftpb::Snapshot {
        let mut s = eraftpb::Snapshot { data: self.data.clone(), ..Default::default() };
        let meta = s.mut_metadata();
        meta.index = self.index.0;
        meta.term = self.term.0;
        meta.set_conf_state(self.membership.to_engine());
        s
    }

    pub(crate) fn from_engine(s: &eraftpb::Snapshot) -> Self {
        let meta = s.get_metadata();
        Self {
            index: LogIndex(meta.index),
            term: Term(meta.term),
            membership: Membership::from_engine(meta.get_conf_state()),
            data: s.data.clone(),
        }
    }
}

impl Message {
    pub(crate) fn to_engine(&self) -> eraftpb::Message {
        let mut m = eraftpb::Message {
            msg_type: KINDS.iter().find(|(k, _)| *k == self.kind).expect("every kind is in the table").1,
            to: self.to.0,
            from: self.from.0,
            term: self.term.0,
            log_term: self.log_term.0,
            index: self.index.0,
            entries: self.entries.iter().map(Entry::to_engine).collect::<Vec<_>>().into(),
            commit: self.commit.0,
            commit_term: self.commit_term.0,
            request_snapshot: self.request_snapshot.0,
            reject: self.reject,
            reject_hint: self.reject_hint.0,
            context: self.context.clone(),
            priority: self.priority,
            ..Default::default()
        };
        if let Some(snapshot) = &self.snapshot {
            m.set_snapshot(snapshot.to_engine());
        }
        m
    }

    /// `None` for the engine's local messages, which never travel.
    pub(crate) fn from_engine(mut m: eraftpb::Message) -> Option<Self> {
        let kind = KINDS.iter().find(|(_, t)| *t == m.msg_type)?.0;
        Some(Self {
            kind,
            from: ReplicaId(m.from),
            to: ReplicaId(m.to),
            term: Term(m.term),
            log_term: Term(m.log_term),
            index: LogIndex(m.index),
            entries: m.take_entries().into_iter().map(Entry::from_engine).collect(),
            commit: LogIndex(m.commit),
            commit_term: Term(m.commit_term),
            snapshot: (kind == MessageKind::Snapshot).then(|| Snapshot::from_engine(m.get_snapshot())),
            request_snapshot: LogIndex(m.request_snapshot),
            reject: m.reject,
            reject_hint: LogIndex(m.reject_hint),
            context: m.context,
            priority: m.priority,
        })
    }

    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        w.u8(self.kind as u8);
        w.bool(self.reject);
        for n in [
            self.from.0,
            self.to.0,
            self.term.0,
            self.log_term.0,
            self.index.0,
            self.commit.0,
            self.commit_term.0,
            self.request_snapshot.0,
            self.reject_hint.0,
        ] {
            w.varint(n);
        }
        w.zigzag(self.priority);
        w.bytes(&self.context);
        w.varint(self.entries.len() as u64);
        for entry in &self.entries {
            w.varint(entry.index.0);
            w.varint(entry.term.0);
            w.u8(entry.kind as u8);
            w.bytes(&entry.data);
        }
        if let Some(snapshot) = &self.snapshot {
            w.varint(snapshot.index.0);
            w.varint(snapshot.term.0);
            snapshot.membership.encode(w);
            w.bytes(&snapshot.data);
        }
    }

    /// Reads one message; entries' data are slices of the reader's buffer.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let number = r.u8("message kind")?;
        let kind = KINDS.iter().map(|(k, _)| *k).find(|k| *k as u8 == number).ok_or_else(|| r.error("message kind"))?;
        let reject = r.bool("reject")?;
        let mut numbers = [0; 9];
        for n in &mut numbers {
            *n = r.varint("message field")?;
        }
        let [from, to, term, log_term, index, commit, commit_term, request_snapshot, reject_hint] = numbers;
        let priority = r.zigzag("priority")?;
        let context = r.bytes("context")?;
        let mut entries = Vec::new();
        for _ in 0..r.count("entries")? {
            entries.push(Entry {
                index: LogIndex(r.varint("entry index")?),
                term: Term(r.varint("entry term")?),
                kind: EntryKind::from_number(r.u8("entry kind")?).ok_or_else(|| r.error("entry kind"))?,
                data: r.bytes("entry data")?,
            });
        }
        let snapshot = if kind == MessageKind::Snapshot {
            Some(Snapshot {
                index: LogIndex(r.varint("snapshot index")?),
                term: Term(r.varint("snapshot term")?),
                membership: Membership::decode(r)?,
                data: r.bytes("snapshot data")?,
            })
        } else {
            None
        };
        Ok(Self {
            kind,
            from: ReplicaId(from),
            to: ReplicaId(to),
            term: Term(term),
            log_term: Term(log_term),
            index: LogIndex(index),
            entries,
            commit: LogIndex(commit),
            commit_term: Term(commit_term),
            snapshot,
            request_snapshot: LogIndex(request_snapshot),
            reject,
            reject_hint: LogIndex(reject_hint),
            context,
            priority,
        })
    }

    /// Whether the message's parts agree with each other as the engine expects. A frame that decodes but fails this came
    /// from no correct sender.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let consecutive = self.entries.windows(2).all(|w| w[1].index.0 == w[0].index.0.wrapping_add(1));
        let shape = match self.kind {
            MessageKind::Append => self.entries.first().is_none_or(|e| e.index.0 == self.index.0.wrapping_add(1)),
            MessageKind::ReadIndex | MessageKind::ReadIndexResponse => self.entries.len() == 1,
            _ => self.entries.is_empty(),
        };
        let snapshot = self.snapshot.as_ref().is_none_or(|s| s.index.0 > 0 && !s.membership.voters.is_empty());
        self.from.0 != 0 && self.to.0 != 0 && consecutive && shape && snapshot
    }
}
