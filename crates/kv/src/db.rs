//! The handle that a layer holds.

use crate::across::{Decision, Look, Transaction, TransactionResult, TxId};
use crate::reserve::{Granted, Wish};
use crate::{
    Command, CommandId, Error, Freshness, Keyspace, KeyspaceId, KeyspaceKind, LeaseId, Level, Looked, Outcome,
    PolicyChange, RangeOp, RangeResult, Revision, WatchControl, WatchEvents,
};
use quorate_env::{ClusterId, LogIndex, NodeId, ShardId, Term, WallMs};
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that a layer can hold `Arc<dyn Db>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects every write acknowledged before the read began.
    Linearizable,
    /// What this node's replica has applied; may be stale, never inconsistent.
    Serializable,
}

/// Where a keyspace's replica stood when it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The keyspace's revision.
    pub revision: Revision,
    /// The consensus term.
    pub term: Term,
}

/// A read's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// Where the keyspace stood.
    pub header: Header,
    /// The answer.
    pub result: T,
}

/// A command's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where the keyspace stood right after the command.
    pub header: Header,
    /// The answer.
    pub outcome: Outcome,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// A lease as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The lease.
    pub id: LeaseId,
    /// Seconds granted.
    pub granted_s: u64,
    /// Whole seconds left, rounded down.
    pub remaining_s: u64,
    /// Keys attached, if they were asked for, ascending.
    pub keys: Vec<bytes::Bytes>,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it, as `host:port`.
    pub peer_addresses: Vec<String>,
    /// Where clients reach it, as URLs; empty until the node has first started.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

/// A change of the cluster's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Expect a node that will listen for peers at one of these addresses, `host:port`.
    Add {
        /// The addresses.
        peer_addresses: Vec<String>,
        /// Without a vote, until it is promoted.
        learner: bool,
    },
    /// Let a member go.
    Remove(NodeId),
    /// Give a learner its vote.
    Promote(NodeId),
    /// Peers reach the member elsewhere.
    Update {
        /// The member.
        id: NodeId,
        /// The addresses.
        peer_addresses: Vec<String>,
    },
}

/// A keyspace's replica on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub header: Header,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The last log index known to be committed.
    pub committed: LogIndex,
    /// The last log index applied.
    pub applied: LogIndex,
    /// Bytes on this node's disk, log and store.
    pub disk_bytes: u64,
    /// Bytes of that which hold live rows.
    pub disk_bytes_in_use: u64,
    /// Whether this replica has no vote.
    pub learner: bool,
    /// Whether writes are refused for lack of disk space.
    pub no_space: bool,
    /// Commands of this node's clients whose outcome is not known yet.
    pub pending: u64,
    /// Times that this node saw a leader it had not known before, since it started.
    pub leader_changes: u64,
}

/// What this node's disk had lost and has again, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Pages of the store in which a bit was flipped back.
    pub bits: u64,
    /// Pages of the store that were made again from what lies beside them.
    pub pages: u64,
    /// Files that say what the store consists of, or that serve to heal it, restored or made again.
    pub files: u64,
    /// Times that something in the store could not be healed in its place.
    pub failures: u64,
    /// Entries of the log that had rotted and are mended.
    pub entries: u64,
    /// Bytes of rows that were fetched from other nodes.
    pub fetched_bytes: u64,
}

/// How many shards this node has replicas of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// All of them.
    pub here: u64,
    /// Those that it leads.
    pub led: u64,
    /// Those that sleep, because nobody asks for anything.
    pub asleep: u64,
}

/// What was acknowledged of a keyspace and lost, where a leader's disk was enough ([`crate::Replication::Leader`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Clients were told at most so often that something was done which was not, in the end.
    pub answers: u64,
    /// When that was last found, by the clock of who found it.
    pub found: WallMs,
}

/// Where a shard lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHomes {
    /// The shard.
    pub shard: ShardId,
    /// Whether it has a replica on this node.
    pub here: bool,
    /// The nodes that are to have a replica.
    pub wanted: Vec<Member>,
    /// The nodes whose replicas vote, as its leader last said. None, if nobody has.
    pub voters: Vec<Member>,
}

/// A member, and what it has to do with the keyspaces that clients see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Who it is.
    pub member: Member,
    /// What fails together with it; empty if it has said nothing.
    pub zone: String,
    /// Whether it is to have no replica of a shard that can live elsewhere.
    pub drained: bool,
    /// The member that is to have what it has, after which it goes.
    pub replaced_by: Option<NodeId>,
    /// Shards that are to have a replica there.
    pub replicas: usize,
    /// Shards whose replica there votes, as their leaders last said.
    pub votes: usize,
}

/// A hash of what a keyspace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceHash {
    /// Equal on replicas that hold the same.
    pub hash: u32,
    /// The revision up to which keys were hashed.
    pub revision: Revision,
    /// The compaction revision from which they were hashed.
    pub compacted: Revision,
}

/// A watch session: where watches are opened, and where their notices come from.
pub type WatchSession = (Box<dyn WatchControl>, Box<dyn WatchEvents>);

/// The core, as a layer sees it. All methods may be called from any thread, any number of times at once. Those that are asked of one keyspace at a
/// revision, or of its leases, want an ordered one: a ranged one is refused with [`crate::Refusal::NotOrdered`], a log
/// with [`crate::Refusal::KeysInLog`].
pub trait Db: Send + Sync + 'static {
    /// Who this is.
    fn identity(&self) -> Identity;

    /// Reads a range.
    fn read(
        &self,
        keyspace: KeyspaceId,
        op: RangeOp,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<Read<RangeResult>, Error>>;

    /// Applies a command exactly once. Of a log's keyspace none but [`Command::Trim`] and [`Command::Compact`] can be asked, and that one of no other. Retried inside across changes of leader; when the deadline passes first, the outcome
    /// is unknown or, if it never left this node, [`crate::Unavailable::Timeout`].
    fn submit(&self, keyspace: KeyspaceId, command: Command) -> BoxFuture<'_, Result<Applied, Error>>;

    /// What became of a command: `Some(revision)` if it was applied.
    fn outcome_of(&self, keyspace: KeyspaceId, id: CommandId) -> BoxFuture<'_, Result<Option<Revision>, Error>>;

    /// Renews a lease for its full TTL, counted from no earlier than now. The answer's `remaining_s` is the TTL.
    fn lease_keep_alive(&self, keyspace: KeyspaceId, id: LeaseId) -> BoxFuture<'_, Result<Read<LeaseInfo>, Error>>;

    /// Asks a lease's leader about it.
    fn lease_info(
        &self,
        keyspace: KeyspaceId,
        id: LeaseId,
        with_keys: bool,
    ) -> BoxFuture<'_, Result<Read<LeaseInfo>, Error>>;

    /// Every lease, ascending.
    fn leases(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<Read<Vec<LeaseId>>, Error>>;

    /// Opens a watch session. In a log it is told of the rows of its records ([`crate::log`]).
    ///
    /// # Errors
    /// If this node knows of no such keyspace, it is ranged, or its shard has no replica here.
    fn watch(&self, keyspace: KeyspaceId) -> Result<WatchSession, Error>;

    /// Waits until history below the compaction has left this node's disk.
    fn compaction_done(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<(), Error>>;

    /// Hashes the history in `(compacted, revision]`; `None` hashes up to now.
    fn hash(
        &self,
        keyspace: KeyspaceId,
        revision: Option<Revision>,
    ) -> BoxFuture<'_, Result<Read<KeyspaceHash>, Error>>;

    /// This node's replica.
    fn status(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<Status, Error>>;

    /// At which feature level the cluster is, as this node knows: what belongs to a higher one is refused.
    fn feature_level(&self) -> Level;

    /// What was repaired on this node's disk.
    fn repairs(&self) -> Repairs;

    /// How many shards are here, as of the last tick.
    fn shard_counts(&self) -> ShardCounts;

    /// Changes the members, and returns the id of the one that was meant. A member that goes is gone when this returns.
    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<NodeId, Error>>;

    /// Lets `to` lead in this node's place, wherever this node leads. Answered when it does.
    fn move_leader(&self, keyspace: KeyspaceId, to: NodeId) -> BoxFuture<'_, Result<(), Error>>;

    /// The members.
    fn members(&self, consistency: Consistency) -> BoxFuture<'_, Result<Vec<Member>, Error>>;

    /// The keyspaces that clients see, as this node knows them: one that was just made elsewhere may be missing.
    fn known_keyspaces(&self) -> Vec<Keyspace>;

    /// Where the shards of a keyspace live, as this node knows.
    fn homes(&self, keyspace: KeyspaceId) -> Vec<ShardHomes>;

    /// How many replicas each shard of a keyspace is to have, as this node knows; `None` if one on every member.
    fn replicas(&self, keyspace: KeyspaceId) -> Option<usize>;

    /// What was acknowledged of a keyspace and lost, as this node knows; `None` if nothing was.
    fn losses(&self, keyspace: KeyspaceId) -> Option<Loss>;

    /// The members and what they have, as this node knows: it needs no other to say so.
    fn nodes(&self) -> Vec<NodeInfo>;

    /// The keyspaces that clients see, as a majority knows them.
    fn keyspaces(&self) -> BoxFuture<'_, Result<Vec<Keyspace>, Error>>;

    /// Makes a keyspace; its shards begin at the first key there is and at `starts`, and have so many replicas each, or as many as there are nodes if
    /// those are fewer. It can be used when this returns.
    fn create_keyspace(
        &self,
        name: String,
        kind: KeyspaceKind,
        starts: Vec<bytes::Bytes>,
        replicas: usize,
    ) -> BoxFuture<'_, Result<Keyspace, Error>>;

    /// Gives the keys of a ranged keyspace from `at` on, up to where the next shard begins, a shard of their own. They can be used when this returns.
    fn split_keyspace(&self, keyspace: KeyspaceId, at: bytes::Bytes) -> BoxFuture<'_, Result<Keyspace, Error>>;

    /// Wants something else of a keyspace. Nodes follow when they hear of it.
    fn change_policy(&self, keyspace: KeyspaceId, change: PolicyChange) -> BoxFuture<'_, Result<Keyspace, Error>>;

    /// Has shards that live on some nodes leave one of them, or lets them come back. Says whether they have left: what takes longer
    /// than some seconds goes on by itself.
    fn drain_node(&self, node: NodeId, drained: bool) -> BoxFuture<'_, Result<bool, Error>>;

    /// Has a member take another's place: it gets whatever the other has, and then the other is removed. Says whether that is done: what takes longer
    /// than some seconds goes on by itself.
    fn replace_node(&self, node: NodeId, by: NodeId) -> BoxFuture<'_, Result<bool, Error>>;

    /// Carries out a transaction, wherever its keys are: strictly serializable, all of it or nothing. Tried again inside while others are in
    /// the way, until the deadline.
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<TransactionResult, Error>>;

    /// Reads, wherever the keys are, and as fresh as is asked for.
    fn look(&self, looks: Vec<Look>, freshness: Freshness) -> BoxFuture<'_, Result<Looked, Error>>;

    /// Reserves keys for an interactive transaction, and reads them; waits for what is locked, and for older transactions, until the deadline. A reservation ends
    /// by itself some seconds after it was made.
    fn reserve(&self, wish: Wish) -> BoxFuture<'_, Result<Granted, Error>>;

    /// An interactive transaction is given up: others may have what it has reserved in the shards of these keys.
    fn release(&self, by: TxId, keys: Vec<(KeyspaceId, bytes::Bytes)>) -> BoxFuture<'_, Result<(), Error>>;

    /// What became of a transaction whose outcome was unknown. If nothing was decided yet, nothing ever will be. `None` if it is too long
    /// ago to tell.
    fn settle(&self, home: ShardId, tx: TxId) -> BoxFuture<'_, Result<Option<Decision>, Error>>;
}
