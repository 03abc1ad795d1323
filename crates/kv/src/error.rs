//! Errors, named by the caller's next move. There are three outcomes: done, refused, unknown.

use crate::across::TxId;
use crate::{CommandId, Level, Revision};
use bytes::Bytes;
use quorate_env::{ShardId, Timestamp};
use thiserror::Error as ThisError;

/// Why a command or read was not done.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The state machine said no, for every replica alike. Sending it again unchanged will not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing happened. Sending it again later is safe.
    #[error("unavailable: {0}")]
    Unavailable(#[from] Unavailable),
    /// It may have happened, may happen later, or may never happen; never twice. Ask again under the same id.
    #[error("the outcome of command {0} is unknown; ask about it or send it again under the same id")]
    UnknownOutcome(CommandId),
    /// The same, of a transaction.
    #[error(
        "the outcome of transaction {tx} is unknown; ask its home, shard {home}, or send it again under the same key"
    )]
    UnknownTransaction {
        /// The transaction.
        tx: TxId,
        /// The shard that decides it.
        home: ShardId,
    },
}

/// A deterministic refusal.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Refusal {
    /// A put that keeps the value or the lease of a key that does not exist.
    #[error("the key does not exist")]
    KeyNotFound,
    /// No such lease.
    #[error("the lease does not exist")]
    LeaseNotFound,
    /// A lease of that id exists.
    #[error("a lease of that id exists already")]
    LeaseExists,
    /// The TTL exceeds [`crate::limits::LEASE_TTL_S_MAX`].
    #[error("the lease's time to live is too large")]
    LeaseTtlTooLarge,
    /// The revision is below the compaction.
    #[error("that revision was compacted; the oldest readable one is {compacted}", compacted = .compacted.0)]
    RevisionCompacted {
        /// The oldest revision that can still be read.
        compacted: Revision,
    },
    /// The revision lies ahead of the keyspace.
    #[error("that revision lies in the future; the keyspace is at {current}", current = .current.0)]
    RevisionInFuture {
        /// Where the keyspace is.
        current: Revision,
    },
    /// The procedure, or its version, is not registered on this feature level.
    #[error("no such procedure")]
    UnknownProcedure,
    /// The command exceeds the keyspace's limits.
    #[error("the request is too large: {bytes} bytes, at most {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A transaction over several shards holds a lock on the key. Whoever proposed the command waits and sends it again.
    #[error("the key {key:?} is locked by transaction {by}; retry, or give the transaction more time")]
    Locked {
        /// The first key of what is locked.
        key: Bytes,
        /// Who holds it.
        by: TxId,
    },
    /// A key that a transaction had reserved is not its own any more, so it has read what may have changed, and nothing of it is written.
    #[error(
        "the reservation of the key {key:?} was lost, to an older transaction or because its time was up: begin anew under the same name and age"
    )]
    ReservationLost {
        /// The key.
        key: Bytes,
    },
    /// More keys are reserved than may be.
    #[error("at most {max} keys are reserved by one transaction, or in one shard: reserve fewer at once")]
    TooManyReserved {
        /// So many are allowed.
        max: usize,
    },
    /// The transaction was given up before this step of it came.
    #[error("transaction {tx} was aborted before this step of it came; start it again under a new id")]
    Aborted {
        /// The transaction.
        tx: TxId,
    },
    /// Another shard has the key by now, or is about to. Whoever coordinates asks there.
    #[error("the key {key:?} has moved to another shard; retry")]
    Moved {
        /// The first key that was asked for and is not here.
        key: Bytes,
    },
    /// No keyspace of that id.
    #[error("the keyspace does not exist")]
    KeyspaceNotFound,
    /// A keyspace of that name exists.
    #[error("a keyspace of that name exists already")]
    KeyspaceExists,
    /// A keyspace cannot be named so.
    #[error("a keyspace's name is 1 to {max} of the characters a-z 0-9 - _ .", max = crate::limits::KEYSPACE_NAME_BYTES_MAX)]
    KeyspaceName,
    /// Shards begin at distinct keys, and an ordered keyspace has one shard.
    #[error("shards begin at distinct keys, at most {max} of them; an ordered keyspace has one, and so has a log", max = crate::limits::KEYSPACE_SHARDS_MAX)]
    KeyspaceShards,
    /// A shard has some replicas, and not too many.
    #[error("a shard has 1 to {max} replicas", max = crate::limits::REPLICAS_MAX)]
    Replicas,
    /// An ordered keyspace has one shard for ever.
    #[error("an ordered keyspace is never split: its one shard is its one order; make a ranged one")]
    OrderedSplit,
    /// A log has one shard for ever.
    #[error("a log is never split: its one shard is its one order; make several logs")]
    LogSplit,
    /// A log holds records, not keys.
    #[error(
        "a log holds records, not keys: append, fetch and trim them (/v1/logs/NAME), and keep keys in an ordered or a ranged keyspace"
    )]
    KeysInLog,
    /// Only a log has records.
    #[error("that keyspace holds keys, not records: put and read them, or append to a keyspace of the kind log")]
    NotLog,
    /// The records before an offset were cut off.
    #[error("what came before offset {first} was cut off: go on from there")]
    Trimmed {
        /// The first offset that is kept.
        first: u64,
    },
    /// More records are appended at once than may be.
    #[error("at most {max} records are appended at once: append fewer, one after the other")]
    TooManyRecords {
        /// So many are allowed.
        max: usize,
    },
    /// An offset that is not the next one to be given, but lies behind it.
    #[error("the log ends before that offset: the next one to be given is {end}")]
    BeyondEnd {
        /// The next offset to be given.
        end: u64,
    },
    /// A ranged keyspace has no one order of what happens in it, nor one revision.
    #[error(
        "a ranged keyspace has no one order of what happens in it, so it cannot be watched: keep what is watched in an ordered keyspace"
    )]
    NotOrdered,
    /// A shard is split at a key within it, not at its first.
    #[error("a shard begins at that key already")]
    AlreadySplit,
    /// Leases have one shard.
    #[error("a shard with leases is not split: revoke them first")]
    LeasesSplit,
    /// A moment that lies ahead of what the cluster's clocks say.
    #[error("the moment {at} lies ahead: it is {now} here. Ask for an earlier one, or compare the nodes' clocks")]
    MomentAhead {
        /// What was asked for.
        at: Timestamp,
        /// Where the answering node is.
        now: Timestamp,
    },
    /// A moment of which there is no history (any more).
    #[error("the moment {at} is not known any more: ask for a later one")]
    MomentForgotten {
        /// What was asked for.
        at: Timestamp,
    },
    /// A key is never empty.
    #[error("a key is empty")]
    EmptyKey,
    /// The transaction touches too many shards.
    #[error("the transaction touches {shards} shards, at most {max} are allowed: make it smaller", max = crate::limits::TRANSACTION_SHARDS_MAX)]
    TooManyShards {
        /// How many.
        shards: usize,
    },
    /// The members cannot be changed in this way.
    #[error(transparent)]
    Member(#[from] MemberRefusal),
    /// Leadership cannot be moved in this way.
    #[error(transparent)]
    Move(#[from] MoveRefusal),
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum MoveRefusal {
    /// Only the leader can hand over.
    #[error("this node does not lead")]
    NotLeader,
    /// There is no such member, or it has no vote.
    #[error("the one who is to lead is no voting member")]
    BadTarget,
    /// It did not come about in time, and may still.
    #[error("handing over took too long")]
    TooLong,
}

/// Why the cluster's members are not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum MemberRefusal {
    /// No such member, or not any more.
    #[error("there is no such member")]
    NotFound,
    /// Another member has that address.
    #[error("another member has that peer address")]
    AddressTaken,
    /// An address is no `host:port`.
    #[error("a peer address is not of the form host:port")]
    BadAddress,
    /// Only a learner can be promoted.
    #[error("only a learner can be promoted")]
    NotLearner,
    /// The learner lacks too much of the log, or did not answer lately.
    #[error("the learner is not in sync with the leader")]
    NotInSync,
    /// There is a learner already that waits for its promotion.
    #[error("there is a learner already")]
    TooManyLearners,
    /// It is the last one with a vote.
    #[error("the last voting member cannot be removed")]
    LastVoter,
    /// A keyspace would have fewer replicas than it asks for.
    #[error("a keyspace would have fewer replicas than it asks for: add a node first")]
    Needed,
    /// Without it, no majority of the members would answer.
    #[error("no healthy majority would be left")]
    Unhealthy,
    /// One member cannot be replaced by itself.
    #[error("a member cannot take its own place")]
    Itself,
    /// Who leaves, or is to be replaced, neither is replaced nor takes another's place.
    #[error("a member that is leaving, or is to be replaced itself, takes nobody's place")]
    Leaves,
    /// Who is drained takes nobody's place.
    #[error("a member that is drained takes nobody's place: quorate node drain --undo")]
    Drained,
    /// Only who votes, or is about to, can take the place of another.
    #[error("a learner takes nobody's place: promote it first")]
    NoVote,
    /// One member takes one member's place at a time.
    #[error("it is to take another member's place, or its own place is being taken by another")]
    Taken,
    /// A shard would be in fewer zones than it is.
    #[error(
        "a shard would be in fewer zones than now: choose a node in the zone of the one that goes, or in one of its own"
    )]
    FewerZones,
}

/// Why nothing could be done right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Unavailable {
    /// No leader is known, or a majority cannot be reached.
    #[error("no leader")]
    NoLeader,
    /// The request's deadline passed before it entered the log.
    #[error("timed out before it entered the log")]
    Timeout,
    /// Too much is in flight here.
    #[error("overloaded: too many requests in flight")]
    Overloaded,
    /// The disk has no room for more; reads and deletes go on.
    #[error("no space left on the disk")]
    NoSpace,
    /// Not every member runs a release that knows how: the cluster's level rises when all do.
    #[error(
        "that needs feature level {needs}, the cluster is at {is} until every member runs a release that knows more"
    )]
    FeatureLevel {
        /// The lowest level that knows how.
        needs: Level,
        /// The cluster's.
        is: Level,
    },
    /// This node has no replica of the shard that is asked, and what is asked needs one.
    #[error("this node has no replica of that shard: ask one that has")]
    NotHere,
    /// A writer is to wait until its timestamp is over everywhere, and nobody has told this node how far clocks may be from true time.
    #[error(
        "the keyspace wants commit-wait, and this node was started without --clock-bound: ask one that has it, or start this one with it"
    )]
    NoClockBound,
    /// The node is stopping.
    #[error("shutting down")]
    Stopping,
}
