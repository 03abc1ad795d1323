//! All that a node can be told and all that it can ask for.

use crate::keyspaces::Keyspaces;
use crate::levels::Levels;
use crate::looking::{Observation, Observed};
use crate::losses::Losses;
use crate::members::Roster;
use crate::placement::Placements;
use crate::wire::PeerMessage;
use bytes::Bytes;
use quorate_consensus::Role;
use quorate_env::{LogIndex, NodeId, ReplicaId, ShardId, Term, WallMs};
use quorate_kv::across::{Decision, Look, Transaction, TransactionResult, TxId};
use quorate_kv::reserve::{Granted, Wish};
use quorate_kv::{
    Applied, Command, CommandId, Consistency, Error, Event, Freshness, Header, KeyspaceId, LeaseId, LeaseInfo, Looked,
    Read, Revision, Status, WatchSpec,
};
use quorate_shard::{View, WatcherKey};
use quorate_storage::store::FlushJob;
use quorate_storage::wal::LogRecord;
use std::sync::Arc;

/// Names a client's request on its node; chosen by the driver.
pub type RequestId = u64;

/// Everything that can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// Time passed. The driver sends one each tick.
    Tick {
        /// The wall clock, to be written into entries.
        wall: WallMs,
    },
    /// Nothing has happened, and there is time for what is unfinished ([`Outputs::unfinished`]).
    GoOn,
    /// A peer's message arrived.
    Peer {
        /// The node at the other end of the connection.
        from: NodeId,
        /// What it sent.
        message: PeerMessage,
    },
    /// A connection to a peer stands.
    PeerUp(NodeId),
    /// The connection to a peer closed: its process is probably gone.
    PeerDown(NodeId),
    /// Every [`Persist`] up to this ticket is durable.
    Persisted {
        /// The ticket.
        ticket: u64,
    },
    /// The flush of this ticket is durable.
    Flushed {
        /// The ticket.
        ticket: u64,
    },
    /// A read is done.
    Observed(Observed),
    /// The disk ran out of space, or has space again.
    Space {
        /// Whether writes that need more of it must be refused.
        exhausted: bool,
    },
    /// The node is about to stop: where it leads, another is to lead. Goes on until [`crate::Node::may_stop`], and for a bounded time.
    Leave,
    /// The node stops: whoever waits for a command is told what is known of it.
    Stop,
    /// A client asks.
    Request {
        /// Names the answer.
        id: RequestId,
        /// Time from now after which it is given up.
        timeout: std::time::Duration,
        /// What is asked.
        request: Request,
    },
    /// Nobody waits for the answer to a request any more. What is under way for it and has not been decided is given up; there may be an answer all the same.
    Abandon {
        /// The request.
        id: RequestId,
    },
    /// A client asks about a watch.
    Watch {
        /// The watch.
        key: WatcherKey,
        /// The shard.
        shard: ShardId,
        /// What is asked.
        request: WatchRequest,
    },
}

/// What a client can ask of a shard's replica.
#[derive(Clone, Debug)]
pub enum Request {
    /// A consistent view, for a read.
    View {
        /// Of which shard.
        shard: ShardId,
        /// How fresh.
        consistency: Consistency,
    },
    /// Apply a command exactly once.
    Submit {
        /// To which shard.
        shard: ShardId,
        /// The command.
        command: Command,
    },
    /// What became of a command.
    OutcomeOf {
        /// On which shard.
        shard: ShardId,
        /// The command.
        id: CommandId,
    },
    /// About a lease.
    Lease {
        /// On which shard.
        shard: ShardId,
        /// Which.
        lease: LeaseId,
        /// Renew it.
        renew: bool,
        /// List its keys.
        with_keys: bool,
    },
    /// All leases.
    Leases {
        /// On which shard.
        shard: ShardId,
    },
    /// Where the replica stands.
    Status {
        /// Of which shard.
        shard: ShardId,
    },
    /// Answered when compacted history has been collected.
    Collected {
        /// On which shard.
        shard: ShardId,
    },
    /// How the group's leader sees its replicas.
    Standings {
        /// Of which shard.
        shard: ShardId,
    },
    /// Carry out a transaction, wherever the keys are.
    Transact(Transaction),
    /// Read, wherever the keys are.
    Look {
        /// What.
        looks: Vec<Look>,
        /// How fresh.
        freshness: Freshness,
    },
    /// What became of a transaction; if nothing was decided, nothing ever will be.
    Settle {
        /// The shard that decides it.
        home: ShardId,
        /// Which.
        tx: TxId,
    },
    /// Reserve keys for an interactive transaction, wherever they are.
    Reserve(Wish),
    /// An interactive transaction is given up.
    Release {
        /// Which.
        by: TxId,
        /// What it has reserved.
        keys: Vec<(KeyspaceId, Bytes)>,
    },
    /// Another is to lead. Only the leader can be asked.
    MoveLeader {
        /// Which shard.
        shard: ShardId,
        /// Who.
        to: NodeId,
    },
}

impl Request {
    /// The shard whose replica is asked; none if it is the node.
    #[must_use]
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Transact(_) | Self::Settle { .. } | Self::Look { .. } | Self::Reserve(_) | Self::Release { .. } => {
                None
            }
            Self::View { shard, .. }
            | Self::Submit { shard, .. }
            | Self::OutcomeOf { shard, .. }
            | Self::Lease { shard, .. }
            | Self::Leases { shard }
            | Self::Status { shard }
            | Self::Collected { shard }
            | Self::Standings { shard }
            | Self::MoveLeader { shard, .. } => Some(*shard),
        }
    }
}

/// What is asked about a watch.
#[derive(Clone, Debug)]
pub enum WatchRequest {
    /// Deliver everything from a revision on; `None` is the next one.
    Attach {
        /// What is watched.
        spec: WatchSpec,
        /// From where.
        from: Option<Revision>,
    },
    /// Deliver nothing any more.
    Detach,
    /// Say how far it is.
    Progress,
}

/// A lease's state, or that there is none.
pub type LeaseAnswer = Result<Read<LeaseInfo>, Error>;

/// What a request is answered with.
#[derive(Clone)]
pub enum Reply {
    /// To [`Request::View`].
    View {
        /// The view.
        view: View,
        /// Where the replica stood.
        header: Header,
    },
    /// To [`Request::Submit`].
    Applied(Applied),
    /// To [`Request::OutcomeOf`].
    Outcome(Option<Revision>),
    /// To [`Request::Lease`].
    Lease(Read<LeaseInfo>),
    /// To [`Request::Leases`].
    Leases(Read<Vec<LeaseId>>),
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Collected`].
    Collected,
    /// To [`Request::Standings`].
    Standings(Vec<Standings>),
    /// To [`Request::Transact`], and to a [`Request::Look`] that had to be one.
    Transacted(TransactionResult),
    /// To [`Request::Look`].
    Looked(Looked),
    /// To [`Request::Settle`]; `None` if it is too long ago to tell.
    Settled(Option<Decision>),
    /// To [`Request::Reserve`].
    Reserved(Granted),
    /// To [`Request::Release`].
    Released,
    /// To [`Request::MoveLeader`]: who was asked for leads.
    Moved,
}

/// How a group's leader sees one of its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standings {
    /// Where it lives.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it answered lately.
    pub alive: bool,
    /// Whether it has about as much of the log as is committed.
    pub in_sync: bool,
}

/// What a watch is told, in order.
#[derive(Clone)]
pub enum WatchOutput {
    /// It is attached; everything from its start on comes.
    Attached {
        /// The keyspace's revision.
        revision: Revision,
        /// Recent events that it missed.
        backlog: Vec<Arc<[Event]>>,
    },
    /// It starts before what is in memory: read the view's history first, then attach behind it.
    Behind {
        /// The history.
        view: View,
        /// Where it starts.
        from: Revision,
    },
    /// It starts before what is kept.
    Compacted {
        /// The keyspace's revision.
        revision: Revision,
        /// The oldest revision kept.
        compacted: Revision,
    },
    /// Events.
    Events {
        /// The keyspace's revision.
        revision: Revision,
        /// Whole revisions.
        events: Arc<[Event]>,
    },
    /// Everything up to here was delivered.
    Progress {
        /// The mark.
        revision: Revision,
    },
    /// The replica was replaced by a snapshot: attach again behind the last revision seen.
    Detached,
    /// There is no replica here any more: ask another node.
    Gone,
}

/// Records that must be durable, together, before the ticket is reported.
#[derive(Debug, Default)]
pub struct Persist {
    /// Ascending from one persist to the next.
    pub ticket: u64,
    /// In order.
    pub records: Vec<LogRecord>,
}

/// A flush of the store to run on the side.
pub struct FlushTask {
    /// Names it in [`Input::Flushed`].
    pub ticket: u64,
    /// The work.
    pub job: Box<dyn FlushJob>,
}

/// Everything that a node asks for. Messages may be sent at once and in any order; what had to wait for the disk has waited.
#[derive(Default)]
pub struct Outputs {
    /// To write to the log.
    pub persist: Option<Persist>,
    /// To send.
    pub messages: Vec<(NodeId, PeerMessage)>,
    /// To answer.
    pub replies: Vec<(RequestId, Result<Reply, Error>)>,
    /// To tell watches, in order.
    pub watch: Vec<(WatcherKey, WatchOutput)>,
    /// To run.
    pub flush: Option<FlushTask>,
    /// To read on the side, each for itself, and to hand back as [`Input::Observed`].
    pub observations: Vec<Observation>,
    /// Questions of this node that a replica here cannot answer. Empty when the driver sees it.
    pub(crate) unseen: Vec<(u64, ShardId, Error)>,
    /// What became of entries that had rotted.
    pub mended: Vec<Mended>,
    /// The members' rows, when they have changed: whom to connect to.
    pub roster: Option<Arc<Roster>>,
    /// The keyspaces, when they have changed. Those of their shards that are to have replicas here have them by then.
    pub keyspaces: Option<Arc<Keyspaces>>,
    /// Where shards live, when that may have changed.
    pub placements: Option<Arc<Placements>>,
    /// What was acknowledged and lost, when that may have changed.
    pub losses: Option<Arc<Losses>>,
    /// The levels, when they may have changed.
    pub levels: Option<Arc<Levels>>,
    /// There is more to do than was done at one time: drain again as soon as what has arrived meanwhile was taken, or hand in [`Input::GoOn`].
    pub unfinished: bool,
    /// To whom leaderships are offered, because this node's disk is far slower than theirs.
    pub too_slow: Vec<(ShardId, NodeId)>,
    /// The replica's state contradicts itself or its peers: stop the process and say this.
    pub fatal: Option<String>,
    /// What the disk has lost, if that is what is fatal.
    pub lost: Option<Lost>,
}

/// What a disk has lost while the node relied on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Rows of the store: another replica's to give back.
    Rows,
    /// Entries that this replica had acknowledged: what else it has promised is not known any more, so it must come back as another.
    Acknowledged,
}

/// What became of a replica's entries that had rotted, and of its rows if they were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// The shard.
    pub shard: ShardId,
    /// Its rows had not been lost: the shard comes back to a node that it had left.
    pub came_back: bool,
    /// Fetched from other replicas and put back.
    pub fetched: u64,
    /// Not needed: the store has what they did.
    pub covered: u64,
    /// Covered by rows that were fetched from another replica.
    pub by_rows: u64,
    /// Never committed, and cut off.
    pub cut: u64,
    /// Bytes of rows that came from another replica.
    pub fetched_bytes: u64,
    /// Bytes of rows that were found whole in the damaged store.
    pub kept_bytes: u64,
}

/// A replica seen from outside, for status pages and checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The replica.
    pub replica: ReplicaId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Known to be committed.
    pub committed: LogIndex,
    /// Applied.
    pub applied: LogIndex,
    /// The chain over everything applied.
    pub state_hash: u64,
    /// The keyspace's revision.
    pub revision: Revision,
    /// The log in memory begins after this.
    pub log_start: LogIndex,
    /// The last index of the log.
    pub last: LogIndex,
    /// Whether it takes no more writes until the disk has caught up.
    pub held_back: bool,
    /// Whether it takes no more writes until a replica that it brings up has made a step.
    pub waits_for_newcomer: bool,
    /// Whether it votes, as far as it knows.
    pub voter: bool,
    /// A hash of the membership that it goes by.
    pub membership: u64,
    /// Entries of its log that rotted and are being fetched; until none is left it takes no part in anything else.
    pub rotted: usize,
    /// Whether it sleeps: nobody asks its group for anything.
    pub asleep: bool,
}
