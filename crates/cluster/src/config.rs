//! How a node is set up.

use quorate_env::{ClusterId, NodeId};
use quorate_kv::Level;
use quorate_shard::Flaw;
use std::time::Duration;

/// A member as the cluster's first configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMember {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
}

/// How patient the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One tick.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Ticks of silence for which nobody votes for another leader; elections begin a little later, one replica after the other.
    pub election_ticks: u32,
    /// Ticks that a replica which starts waits for what others have seen of it.
    pub recall_ticks: u32,
    /// Ticks for which a leader leads before it offers its place to the voter that is to have it.
    pub prefer_ticks: u32,
    /// Ticks in which nobody asks a group for anything until it sleeps.
    pub sleep_ticks: u32,
}

impl Default for Timing {
    /// Heartbeats each 100 ms, elections after 0.6 s of silence and, where those come to nothing, 80 ms after each other. A crashed process is
    /// noticed much earlier, by its closed connection. Who starts waits at most 200 ms for answers. Whom nobody asks for 3 s falls asleep; who
    /// leads in another's place does so for a minute.
    fn default() -> Self {
        let tick = Duration::from_millis(20);
        Self { tick, heartbeat_ticks: 5, election_ticks: 25, recall_ticks: 10, prefer_ticks: 3_000, sleep_ticks: 150 }
    }
}

/// How much a shard's leader may have to do before the shard is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitLoad {
    /// Operations a second: writes, and reads that the leader answers. [`u64::MAX`] is never. See [`crate::bounds::SPLIT_OPS`].
    pub ops_per_s: u64,
    /// For how long without a pause; see [`crate::bounds::SPLIT_SUSTAINED`].
    pub sustained: Duration,
    /// For how long a shard that was split, or split off, rests; see [`crate::bounds::SPLIT_REST`].
    pub rest: Duration,
}

impl SplitLoad {
    /// No shard is split by its load.
    pub const NEVER: Self = Self::beyond(u64::MAX);

    /// More than so many operations a second, for as long as is usual.
    #[must_use]
    pub const fn beyond(ops_per_s: u64) -> Self {
        Self { ops_per_s, sustained: crate::bounds::SPLIT_SUSTAINED, rest: crate::bounds::SPLIT_REST }
    }
}

/// Which shards are merged with those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merges {
    /// What they hold at most, in bytes of keys and values; see [`crate::bounds::MERGE_BYTES`]. Zero is none, [`u64::MAX`] all.
    pub bytes: u64,
    /// For how long they have not been split, or split off; see [`crate::bounds::MERGE_REST`].
    pub rest: Duration,
    /// Bytes of rows in one entry; see [`crate::bounds::MERGE_PAGE_BYTES`].
    pub page_bytes: usize,
}

impl Merges {
    /// None.
    pub const NEVER: Self = Self::below(0);

    /// Those that hold no more than so many bytes, in the way that is usual.
    #[must_use]
    pub const fn below(bytes: u64) -> Self {
        Self { bytes, rest: crate::bounds::MERGE_REST, page_bytes: crate::bounds::MERGE_PAGE_BYTES }
    }
}

/// A safety mechanism switched off, to see whether the checkers notice. Only the simulator ever sets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Answer a read that is to see what its client saw before with whatever is there.
    IgnoreTokens,
    /// Split a shard while its members change, and change them before its children are weaned.
    SplitWhileChanging,
    /// Take what was once confirmed for fresh, however long ago that was.
    FreshForEver,
    /// Remove a node from the group that tells it so before it has left the others.
    LeaveSystemFirst,
    /// Believe what is left in a damaged store, whatever it hashes to.
    TrustRemains,
    /// Serve linearizable reads from local state.
    ReadWithoutQuorum,
    /// Serve a confirmed read before the replica has applied what it was confirmed at.
    ReadBeforeApplied,
    /// Tell the group that entries are durable before they are.
    AckBeforePersist,
    /// As a leader, count entries as stored by a peer as soon as they are sent.
    CountSendsAsAcks,
    /// Grant every vote that is asked for.
    GrantEveryVote,
    /// Take appended entries whatever the term of the entry before them.
    TrustAnyPrefix,
    /// Take what a leader of an earlier term appends, and as such a leader do not hear of later terms.
    FollowOldLeaders,
    /// Lose the session table at every change of leader.
    DropSessions,
    /// Send a command again under a new id.
    RetryUnderNewId,
    /// Say of a command that was sent and has no outcome that nothing happened.
    RefuseWhatWasSent,
    /// Expire leases at half their time.
    ExpireEarly,
    /// Renew leases without confirming leadership.
    RenewUnconfirmed,
    /// Measure leases on the wall clock.
    LeaseByWallClock,
    /// Attach a watch behind the tail without reading history.
    SkipHistory,
    /// Attach a watch one revision too early.
    WatchTwice,
    /// Notify watches of each event by itself.
    SplitRevisions,
    /// Announce progress before the events at that revision.
    ProgressAhead,
    /// Compact the log without waiting for the store to be durable.
    CompactUnflushed,
    /// Let the log begin at a snapshot whose rows are not durable.
    InstallUnflushed,
    /// Start with a log that ends before the first entry that rotted, as if the rest had never been acknowledged.
    LeadWithRot,
    /// As a peer, hand out entries whose payload has changed; and put back what comes without looking at it.
    MendUnverified,
    /// As a peer that lacks an entry, say that another is committed in its place.
    LackIsReplaced,
    /// Give a learner its vote whatever it has of the log.
    PromoteUnsynced,
    /// In place of a joint configuration take the incoming one at once.
    SingleMajority,
    /// Change over to a new membership when its entry is appended, not when it is committed.
    MembershipWhenAppended,
    /// Do not write a new membership down: the next life has the one before.
    ForgetMembership,
    /// Write no commit index: the next life does not know which changes of membership were committed.
    ForgetCommit,
    /// As a leader that is removed, do not take the change as its own: lead on and count oneself.
    RemovedLeaderStays,
    /// Decide a transaction over several shards without waiting for the others to prepare.
    DecideUnprepared,
    /// When a client has gone, give up its transaction even where it is being decided.
    AbandonDecided,
    /// Release what a silent coordinator has prepared without asking what was decided.
    PresumeAborted,
    /// Raise the cluster's level to what the leader knows, whatever the others do.
    RaiseEarly,
    /// Propose what not every member knows.
    IgnoreLevel,
    /// Begin a shard that was split off as one that somebody made: with nothing.
    ChildAsFounder,
    /// Let a child's log rest on rows that are not durable.
    ChildUnflushed,
    /// Let go of a child's rows before a majority has the child.
    WeanEarly,
    /// Never finish a transaction whose coordinator is silent.
    LeaveOrphans,
    /// Never end what somebody has reserved and left.
    LeaveReservations,
    /// Take part at once, without asking what others have seen.
    SkipRecall,
    /// Of what others have seen, believe terms alone, not votes nor acknowledged entries.
    RecallTermsOnly,
    /// Tell a replica that starts that nothing was seen of it.
    ForgetSightings,
    /// Forget, with a replica that has moved away, what it had promised.
    ForgetMoved,
    /// Let a replica that comes back within a life begin the session of the one before it anew.
    SessionAgain,
    /// Ask others under new ids for what a replica was asked for that has no vote any more.
    AskAnew,
    /// Have a node go for which another has come before that has what it had.
    ReplaceAtOnce,
    /// Split a shard by its load however lately it was split.
    SplitRestlessly,
    /// Let a replica go before the others know for good that it is to.
    LeaveAtOnce,
    /// Have history compacted as soon as it is written.
    ForgetAtOnce,
    /// As a leader, give way to nobody.
    KeepLeading,
    /// Sleep whatever there is to do, and whoever lacks something.
    SleepBehind,
    /// Sleep on when the leader's node is gone.
    SleepThrough,
    /// Have a shard that has yielded be no more before the one before it has what it had.
    MergeUntold,
    /// Leave the rows of what was cut off a log where they are.
    LeaveCutRows,
    /// Cut off a log all that it has, whatever it is to keep.
    RetainNothing,
    /// Say that all voters have what a majority has.
    AckAtMajority,
    /// Answer strict reads without what clients were told early.
    ReadUntold,
    /// Say as consensus' own index of a read what clients were told early.
    TellAsCommitted,
    /// Tell clients early however much waits for a majority.
    TellUnbounded,
    /// Tell clients early of what is not on the leader's disk yet.
    TellUnwritten,
    /// Do not count what clients were told early and that is lost.
    ForgetLosses,
    /// Give a vote to who lacks what all voters were said to have.
    VoteWithout,
    /// Take a timestamp for over as soon as the clock here has passed it.
    NoCommitWait,
    /// Wait until a timestamp is over by this clock if that is behind, not if it is ahead.
    WaitTheWrongWay,
    /// A flaw of the state machine.
    Machine(Flaw),
}

/// What a node needs to know before it starts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// All members of the first configuration. A node that joined later is not among them: it learns from the log who it is.
    pub members: Vec<BootMember>,
    /// Nodes that it knows besides, from a former life: when it has lost its rows, it asks them.
    pub known: Vec<NodeId>,
    /// What this node offers the cluster: what its release knows, or less, so that the release before can take over again.
    pub level: Level,
    /// What fails together with this node; empty if nobody has said.
    pub zone: String,
    /// A node that was not heard from for this long has its placed replicas made up for on others; [`crate::bounds::EVICT_AFTER`].
    pub evict_after: Duration,
    /// Between two moves for no other reason than that nodes should have as many replicas, times the nodes; [`crate::bounds::BALANCE_PAUSE`].
    pub balance_pause: Duration,
    /// Patience.
    pub timing: Timing,
    /// How far any node's wall clock may be from true time, as the operator vouches for. Nobody has said if there is none: then no writer can wait for
    /// its timestamp to be over.
    pub clock_bound: Option<Duration>,
    /// Unflushed bytes of the store at which it is flushed; see [`crate::bounds::FLUSH_BYTES`].
    pub flush_bytes: u64,
    /// Unflushed bytes of the store at which a leader proposes nothing more until the disk has caught up. At twice as many a follower
    /// takes no more entries, and a replica that receives a snapshot no more rows.
    pub unflushed_bytes_max: u64,
    /// Bytes of applied entries kept in the log; see [`crate::bounds::LOG_KEEP_BYTES`].
    pub log_keep_bytes: u64,
    /// Bytes of entries that stay in the log for a replica that is being brought up; see [`crate::bounds::LOG_HOLD_BYTES`].
    pub log_hold_bytes: u64,
    /// Bytes of commands in one entry, if they are not one command; [`quorate_kv::limits::BATCH_BYTES_MAX`], or less where the log's records are smaller.
    pub batch_bytes: usize,
    /// Bytes of committed entries that are applied at one time, if they are not one entry; see [`crate::bounds::APPLY_BYTES`].
    pub apply_bytes: u64,
    /// Bytes of rows in one chunk of a snapshot; see [`crate::bounds::CHUNK_BYTES`].
    pub chunk_bytes: usize,
    /// Bytes of keys and values beyond which a shard of a ranged keyspace is split; see [`crate::bounds::SPLIT_BYTES`]. [`u64::MAX`] is never.
    pub split_bytes: u64,
    /// The load beyond which such a shard is split.
    pub split_load: SplitLoad,
    /// Which shards of such keyspaces are merged.
    pub merges: Merges,
    /// Entries of a shard's log that clients may be told of before a majority has them; see [`crate::bounds::EARLY_ENTRIES_MAX`].
    pub early_entries: u64,
    /// Nothing, outside the simulator.
    pub sabotage: Option<Sabotage>,
}
