//! What nodes say to each other (docs/design/wire-format.md).
//!
//! Every message names its shard and both replicas; one that reaches the wrong replica is dropped and counted. The cluster and the
//! incarnation are settled once per connection, by its handshake.

mod parts;
#[cfg(test)]
mod tests;

use crate::Standings;
use crate::recall::Sighting;
use parts::{
    decode_answers, decode_copy, decode_envelopes, decode_lease, encode_answers, encode_copy, encode_envelopes,
    encode_lease,
};
use quorate_consensus::Message;
use quorate_env::{DecodeError, LogIndex, NodeId, Reader, ReplicaId, ShardId, Term, Timestamp, Writer};
use quorate_kv::across::PartResult;
use quorate_kv::{Applied, CommandId, Envelope, Freshness, LeaseId, RangeOp, Refusal, decode_sight, encode_sight};
use quorate_shard::Chunk;

/// The version of everything in this file, first byte of every frame.
pub const VERSION: u8 = 3;

/// The largest frame: a request of the largest size, and what travels with it.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// Bytes of messages that travel in one frame, if they are not one message: those of other shards wait behind it.
const FRAME_BYTES: usize = 4 << 20;

/// One message between two replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerMessage {
    /// The shard.
    pub shard: ShardId,
    /// The sender's replica of it.
    pub from: ReplicaId,
    /// The receiver's.
    pub to: ReplicaId,
    /// What is said.
    pub body: PeerBody,
}

/// Everything that can be said.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerBody {
    /// Consensus.
    Raft(Message),
    /// Commands of a follower's clients, for the leader to propose.
    Forward(Vec<Envelope>),
    /// A question about a lease, for the leader.
    LeaseAsk {
        /// Names the answer.
        ask: u64,
        /// The lease.
        lease: LeaseId,
        /// Renew it.
        renew: bool,
        /// List its keys.
        with_keys: bool,
    },
    /// The answer.
    LeaseAnswer {
        /// The question.
        ask: u64,
        /// What the leader says.
        answer: crate::LeaseAnswer,
    },
    /// The receiver of a snapshot asks for a chunk.
    ChunkAsk {
        /// The transfer.
        transfer: u64,
        /// Where the chunk begins.
        cursor: bytes::Bytes,
    },
    /// A chunk.
    Chunk {
        /// The transfer.
        transfer: u64,
        /// Where it begins.
        cursor: bytes::Bytes,
        /// The rows.
        chunk: Chunk,
    },
    /// A transfer was given up: ask anew.
    TransferGone {
        /// The transfer.
        transfer: u64,
    },
    /// The sender's state hash, for comparison at equal index.
    StateHash {
        /// Applied up to here.
        applied: LogIndex,
        /// The hash there.
        hash: u64,
    },
    /// The sender's copy of this entry rotted: who has it?
    EntryAsk {
        /// Its position.
        index: LogIndex,
        /// The term it was proposed in.
        term: Term,
    },
    /// The answer. Only the asker can check the payload: its checksum is seeded with the place that it had on the asker's disk.
    EntryAnswer {
        /// Of the question.
        index: LogIndex,
        /// Of the question.
        term: Term,
        /// What became of the entry here.
        copy: EntryCopy,
    },
    /// The sender's log has rotted where no other log reaches any more: it asks for the rows instead.
    RowsAsk {
        /// They must cover this index.
        index: LogIndex,
    },
    /// The answer: rows may be fetched, as those of a snapshot.
    RowsOffer {
        /// The transfer.
        transfer: u64,
    },
    /// Asks what the next chunk hashes to: the asker may have its rows.
    DigestAsk {
        /// The transfer.
        transfer: u64,
        /// Where the chunk begins.
        cursor: bytes::Bytes,
    },
    /// The answer.
    Digest {
        /// The transfer.
        transfer: u64,
        /// Where the chunk begins.
        cursor: bytes::Bytes,
        /// Where the next one begins; `None` if this is the last.
        next: Option<bytes::Bytes>,
        /// The chain over all rows up to the end of the chunk.
        hash: u64,
    },
    /// How does the group stand? For its leader.
    StandingAsk {
        /// Names the answer.
        ask: u64,
    },
    /// The answer.
    StandingAnswer {
        /// The question.
        ask: u64,
        /// Each replica.
        standings: Vec<Standings>,
    },
    /// What did you see of me? The sender starts, and does not take part before it knows.
    RecallAsk {
        /// Names the answer, and the sender's life.
        ask: u64,
    },
    /// The answer.
    RecallAnswer {
        /// The question.
        ask: u64,
        /// What the sender saw the receiver promise, ascending by shard.
        seen: Vec<(ShardId, Sighting)>,
    },
    /// Commands of a node that has no replica of the shard, for one that has. None at all asks only how far the receiver is.
    Petition(Vec<Envelope>),
    /// To a petition: what became of some commands.
    Answers {
        /// Who leads, as far as the sender knows.
        leader: Option<ReplicaId>,
        /// What the sender has applied.
        applied: LogIndex,
        /// The commands.
        answers: Vec<(CommandId, Answer)>,
    },
    /// To a petition: the sender cannot help.
    NotHere,
    /// The sender's replica is to go. Does the receiver know for good that the group goes on without it?
    LeaveAsk {
        /// Names the answer: the entry behind which the group's leader said so.
        index: LogIndex,
    },
    /// It does.
    LeaveAnswer {
        /// The question.
        index: LogIndex,
    },
    /// A read of a node that has no replica of the shard, for one that has.
    LookAsk {
        /// Names the answer.
        ask: u64,
        /// How fresh it must be.
        freshness: Freshness,
        /// What is read.
        reads: Vec<RangeOp>,
    },
    /// The answer.
    LookAnswer {
        /// The question.
        ask: u64,
        /// What is seen.
        sight: Result<PartResult, Refusal>,
    },
    /// A replica wants to know that nothing more happens up to a moment. For the leader, whose next entry says so.
    CloseAsk {
        /// The moment.
        at: Timestamp,
    },
    /// The sender leads, nobody asks for anything, and all have all of the log: let the group sleep.
    Sleep {
        /// In which it leads.
        term: Term,
        /// Where the log ends.
        end: LogIndex,
    },
    /// To a leader that may be asleep: somebody of its group is awake.
    Rouse,
    /// The sender's node is there: the one message for all groups that sleep on both nodes.
    Beat,
    /// A client is to be told of a write only when all voters have it. For the leader: do they?
    EverywhereAsk {
        /// The write's entry, or one behind it.
        index: LogIndex,
    },
    /// They do, or not yet of that one: all voters have everything up to here on their disks, and who gets a vote later has it then.
    Everywhere {
        /// The entry.
        index: LogIndex,
    },
    /// What will come of commands that are on the leader's disk, and perhaps on no other: for clients to whom that is enough.
    Early {
        /// The commands.
        answers: Vec<(CommandId, Answer)>,
    },
}

/// What became of a command of a petition.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// This.
    Given(Result<Applied, Refusal>),
    /// It was applied; what came of that nobody here knows.
    Forgotten,
}

/// What became of an entry at another replica.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryCopy {
    /// It is here.
    Held {
        /// What the payload is, in the words of consensus.
        kind: u8,
        /// The payload.
        payload: bytes::Bytes,
    },
    /// It is not in this log, and no leader of a term before this one can put it there any more: the term is durable.
    Absent {
        /// The replica's term.
        in_term: Term,
        /// Whether it leads in that term.
        leads: bool,
    },
    /// The log begins after it: something at this index was committed and applied.
    Compacted,
    /// Another entry is committed at this index: this one never was, nor will be.
    Replaced,
}

impl PeerBody {
    /// About how many bytes it is encoded in.
    fn size_estimate(&self) -> usize {
        128 + match self {
            Self::Raft(message) => message.entries.iter().map(|entry| entry.data.len() + 32).sum(),
            Self::Forward(envelopes) | Self::Petition(envelopes) => envelopes.iter().map(Envelope::size_estimate).sum(),
            Self::Chunk { chunk, .. } => chunk.rows.iter().map(|(key, value)| key.len() + value.len() + 16).sum(),
            Self::Answers { answers, .. } | Self::Early { answers } => {
                answers.iter().map(|(_, answer)| 24 + answer.size_estimate()).sum()
            }
            Self::EntryAnswer { copy: EntryCopy::Held { payload, .. }, .. } => payload.len(),
            Self::LookAsk { reads, .. } => reads.iter().map(|read| read.range.size_estimate() + 64).sum(),
            Self::LookAnswer { sight: Ok(sight), .. } => sight.size_estimate(),
            Self::LeaseAnswer { answer: Ok(read), .. } => read.result.keys.iter().map(|key| key.len() + 8).sum(),
            _ => 0,
        }
    }
}

impl Answer {
    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        match self {
            Self::Given(Ok(applied)) => applied.size_estimate(),
            Self::Given(Err(_)) | Self::Forgotten => 64,
        }
    }
}

impl PeerMessage {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.shard.0);
        w.varint(self.from.0);
        w.varint(self.to.0);
        match &self.body {
            PeerBody::Raft(message) => {
                w.u8(1);
                message.encode(w);
            }
            PeerBody::Forward(envelopes) => {
                w.u8(2);
                encode_envelopes(envelopes, w);
            }
            PeerBody::LeaseAsk { ask, lease, renew, with_keys } => {
                w.u8(3);
                w.varint(*ask);
                w.zigzag(lease.0);
                w.bool(*renew);
                w.bool(*with_keys);
            }
            PeerBody::LeaseAnswer { ask, answer } => {
                w.u8(4);
                w.varint(*ask);
                encode_lease(answer, w);
            }
            PeerBody::ChunkAsk { transfer, cursor } => {
                w.u8(5);
                w.varint(*transfer);
                w.bytes(cursor);
            }
            PeerBody::Chunk { transfer, cursor, chunk } => {
                w.u8(6);
                w.varint(*transfer);
                w.bytes(cursor);
                chunk.encode(w);
            }
            PeerBody::TransferGone { transfer } => {
                w.u8(7);
                w.varint(*transfer);
            }
            PeerBody::StateHash { applied, hash } => {
                w.u8(8);
                w.varint(applied.0);
                w.u64(*hash);
            }
            PeerBody::EntryAsk { index, term } => {
                w.u8(9);
                w.varint(index.0);
                w.varint(term.0);
            }
            PeerBody::EntryAnswer { index, term, copy } => {
                w.u8(10);
                w.varint(index.0);
                w.varint(term.0);
                encode_copy(copy, w);
            }
            PeerBody::RowsAsk { index } => {
                w.u8(11);
                w.varint(index.0);
            }
            PeerBody::RowsOffer { transfer } => {
                w.u8(12);
                w.varint(*transfer);
            }
            PeerBody::DigestAsk { transfer, cursor } => {
                w.u8(13);
                w.varint(*transfer);
                w.bytes(cursor);
            }
            PeerBody::Digest { transfer, cursor, next, hash } => {
                w.u8(14);
                w.varint(*transfer);
                w.bytes(cursor);
                w.bool(next.is_some());
                next.iter().for_each(|next| w.bytes(next));
                w.u64(*hash);
            }
            PeerBody::StandingAsk { ask } => {
                w.u8(15);
                w.varint(*ask);
            }
            PeerBody::StandingAnswer { ask, standings } => {
                w.u8(16);
                w.varint(*ask);
                w.varint(standings.len() as u64);
                for Standings { node, voter, alive, in_sync } in standings {
                    w.varint(node.0);
                    [*voter, *alive, *in_sync].into_iter().for_each(|is| w.bool(is));
                }
            }
            PeerBody::RecallAsk { ask } => {
                w.u8(17);
                w.varint(*ask);
            }
            PeerBody::RecallAnswer { ask, seen } => {
                w.u8(18);
                w.varint(*ask);
                w.varint(seen.len() as u64);
                for (shard, Sighting { term, voted, acknowledged: (in_term, index) }) in seen {
                    [shard.0, term.0, voted.0, in_term.0, index.0].into_iter().for_each(|part| w.varint(part));
                }
            }
            PeerBody::Petition(envelopes) => {
                w.u8(19);
                encode_envelopes(envelopes, w);
            }
            PeerBody::Answers { leader, applied, answers } => {
                w.u8(20);
                w.varint(leader.map_or(0, |leader| leader.0));
                w.varint(applied.0);
                encode_answers(answers, w);
            }
            PeerBody::NotHere => w.u8(21),
            PeerBody::LeaveAsk { index } => {
                w.u8(22);
                w.varint(index.0);
            }
            PeerBody::LookAsk { ask, freshness, reads } => {
                w.u8(24);
                w.varint(*ask);
                freshness.encode(w);
                w.varint(reads.len() as u64);
                reads.iter().for_each(|read| read.encode(w));
            }
            PeerBody::LookAnswer { ask, sight } => {
                w.u8(25);
                w.varint(*ask);
                encode_sight(sight, w);
            }
            PeerBody::CloseAsk { at } => {
                w.u8(26);
                w.u64(at.0);
            }
            PeerBody::Sleep { term, end } => {
                w.u8(27);
                w.varint(term.0);
                w.varint(end.0);
            }
            PeerBody::Rouse => w.u8(28),
            PeerBody::Beat => w.u8(29),
            PeerBody::EverywhereAsk { index } => {
                w.u8(32);
                w.varint(index.0);
            }
            PeerBody::Everywhere { index } => {
                w.u8(33);
                w.varint(index.0);
            }
            PeerBody::Early { answers } => {
                w.u8(34);
                encode_answers(answers, w);
            }
            PeerBody::LeaveAnswer { index } => {
                w.u8(23);
                w.varint(index.0);
            }
        }
    }

    /// Reads one message.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let shard = ShardId(r.varint("shard")?);
        let from = ReplicaId(r.varint("sender")?);
        let to = ReplicaId(r.varint("receiver")?);
        let body = match r.u8("message body")? {
            1 => PeerBody::Raft(Message::decode(r)?),
            2 => PeerBody::Forward(decode_envelopes(r)?),
            3 => PeerBody::LeaseAsk {
                ask: r.varint("ask")?,
                lease: LeaseId(r.zigzag("lease")?),
                renew: r.bool("renew")?,
                with_keys: r.bool("with keys")?,
            },
            4 => PeerBody::LeaseAnswer { ask: r.varint("ask")?, answer: decode_lease(r)? },
            5 => PeerBody::ChunkAsk { transfer: r.varint("transfer")?, cursor: r.bytes("cursor")? },
            6 => PeerBody::Chunk {
                transfer: r.varint("transfer")?,
                cursor: r.bytes("cursor")?,
                chunk: Chunk::decode(r)?,
            },
            7 => PeerBody::TransferGone { transfer: r.varint("transfer")? },
            8 => PeerBody::StateHash { applied: LogIndex(r.varint("applied")?), hash: r.u64("state hash")? },
            9 => PeerBody::EntryAsk { index: LogIndex(r.varint("index")?), term: Term(r.varint("term")?) },
            10 => PeerBody::EntryAnswer {
                index: LogIndex(r.varint("index")?),
                term: Term(r.varint("term")?),
                copy: decode_copy(r)?,
            },
            11 => PeerBody::RowsAsk { index: LogIndex(r.varint("index")?) },
            12 => PeerBody::RowsOffer { transfer: r.varint("transfer")? },
            13 => PeerBody::DigestAsk { transfer: r.varint("transfer")?, cursor: r.bytes("cursor")? },
            14 => {
                let (transfer, cursor) = (r.varint("transfer")?, r.bytes("cursor")?);
                let next = if r.bool("more chunks")? { Some(r.bytes("next cursor")?) } else { None };
                PeerBody::Digest { transfer, cursor, next, hash: r.u64("chunk hash")? }
            }
            15 => PeerBody::StandingAsk { ask: r.varint("ask")? },
            16 => {
                let ask = r.varint("ask")?;
                let mut standings = Vec::new();
                for _ in 0..r.count("replicas")? {
                    standings.push(Standings {
                        node: NodeId(r.varint("node")?),
                        voter: r.bool("voter")?,
                        alive: r.bool("alive")?,
                        in_sync: r.bool("in sync")?,
                    });
                }
                PeerBody::StandingAnswer { ask, standings }
            }
            17 => PeerBody::RecallAsk { ask: r.varint("ask")? },
            18 => {
                let (ask, mut seen) = (r.varint("ask")?, Vec::new());
                for _ in 0..r.count("shards")? {
                    let shard = ShardId(r.varint("shard")?);
                    let (term, voted) = (Term(r.varint("term")?), Term(r.varint("voted")?));
                    let acknowledged = (Term(r.varint("acknowledged in")?), LogIndex(r.varint("acknowledged")?));
                    seen.push((shard, Sighting { term, voted, acknowledged }));
                }
                PeerBody::RecallAnswer { ask, seen }
            }
            19 => PeerBody::Petition(decode_envelopes(r)?),
            20 => {
                let leader = Some(r.varint("leader")?).filter(|leader| *leader != 0).map(ReplicaId);
                let applied = LogIndex(r.varint("applied")?);
                PeerBody::Answers { leader, applied, answers: decode_answers(r)? }
            }
            21 => PeerBody::NotHere,
            22 => PeerBody::LeaveAsk { index: LogIndex(r.varint("index")?) },
            23 => PeerBody::LeaveAnswer { index: LogIndex(r.varint("index")?) },
            24 => {
                let (ask, freshness) = (r.varint("ask")?, Freshness::decode(r)?);
                let mut reads = Vec::new();
                for _ in 0..r.count("reads")? {
                    reads.push(RangeOp::decode(r)?);
                }
                PeerBody::LookAsk { ask, freshness, reads }
            }
            25 => PeerBody::LookAnswer { ask: r.varint("ask")?, sight: decode_sight(r)? },
            26 => PeerBody::CloseAsk { at: Timestamp(r.u64("moment")?) },
            27 => PeerBody::Sleep { term: Term(r.varint("term")?), end: LogIndex(r.varint("end of the log")?) },
            28 => PeerBody::Rouse,
            29 => PeerBody::Beat,
            32 => PeerBody::EverywhereAsk { index: LogIndex(r.varint("index")?) },
            33 => PeerBody::Everywhere { index: LogIndex(r.varint("index")?) },
            34 => PeerBody::Early { answers: decode_answers(r)? },
            _ => return Err(r.error("message body")),
        };
        Ok(Self { shard, from, to, body })
    }
}

/// Messages to one node, by the frames that they travel in: none is larger than a frame may be, as long as no message is.
#[must_use]
pub fn frames(messages: Vec<PeerMessage>) -> Vec<Vec<PeerMessage>> {
    let (mut frames, mut bytes): (Vec<Vec<PeerMessage>>, usize) = (Vec::new(), usize::MAX);
    for message in messages {
        let size = message.body.size_estimate();
        if bytes.saturating_add(size) > FRAME_BYTES {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        frames.last_mut().expect("there is one").push(message);
    }
    frames
}

/// Encodes messages to one node as the body of one frame.
#[must_use]
pub fn encode_batch<'a>(messages: impl ExactSizeIterator<Item = &'a PeerMessage>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    w.varint(messages.len() as u64);
    for message in messages {
        message.encode(&mut w);
    }
    w.finish()
}

/// Reads the body of one frame.
pub fn decode_batch(frame: bytes::Bytes) -> Result<Vec<PeerMessage>, DecodeError> {
    let mut r = Reader::new(frame);
    if r.u8("frame version")? != VERSION {
        return Err(r.error("frame version"));
    }
    let mut messages = Vec::new();
    for _ in 0..r.count("messages")? {
        messages.push(PeerMessage::decode(&mut r)?);
    }
    r.end("frame")?;
    Ok(messages)
}

/// The node at which a replica lives: a replica's id is that of its node. A node that lost its disk comes back under a new id.
#[must_use]
pub fn node_of(replica: ReplicaId) -> NodeId {
    NodeId(replica.0)
}
