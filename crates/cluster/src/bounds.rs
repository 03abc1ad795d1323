//! Every bound of a node, with its reason.

use std::time::Duration;

/// Entries that a leader has proposed and not yet seen committed; or not yet on its disk, where that is enough for clients. While these are on their way,
/// arriving commands gather into the next entry: that is the group commit of consensus. Two keep the disk and the network busy at once.
pub const ENTRIES_IN_FLIGHT_MAX: u64 = 2;

/// Commands of this node's clients that wait for their outcome, per shard. Beyond it new ones are refused as overload.
pub const PENDING_COMMANDS_MAX: usize = 16_384;

/// Bytes of the same.
pub const PENDING_BYTES_MAX: usize = 128 << 20;

/// Reads that wait, per shard.
pub const PENDING_READS_MAX: usize = 65_536;

/// Bytes of commands that a leader holds before proposing them; more from peers are dropped, and sent again by their node.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Confirmation rounds of linearizable reads in flight; later reads gather into the next round.
pub const READ_ROUNDS_MAX: usize = 2;

/// Unflushed bytes of the store at which it is flushed. It bounds the log that a restart replays.
pub const FLUSH_BYTES: u64 = 32 << 20;

/// Unflushed bytes at which writes wait for the disk. One flush may be under way and the next one gather; what is above that is the room
/// in which a burst does not wait. The log holds about as much again, since it keeps what is not flushed.
pub const UNFLUSHED_BYTES_MAX: u64 = 4 * FLUSH_BYTES;

/// Bytes of applied and flushed entries that stay in the log for followers that lag a little.
pub const LOG_KEEP_BYTES: u64 = 8 << 20;

/// Bytes of committed entries that a replica applies at one time, if they are not one entry, before its node sees to others: some milliseconds. Who catches up from the
/// log would hold up all shards of its node otherwise.
pub const APPLY_BYTES: u64 = 256 << 10;

/// The part of [`LOG_HOLD_BYTES`] that stays in the log for a follower that is connected and lags; beyond it, it gets a snapshot.
pub const LOG_LAG_PART: u64 = 4;

/// Bytes of rows in one chunk of a snapshot.
pub const CHUNK_BYTES: usize = 512 << 10;

/// Chunks of a snapshot that are under way to its receiver at one time.
pub const CHUNKS_UNDER_WAY: usize = 4;

/// Bytes of entries that stay in the log for a replica that is being brought up by a snapshot and makes progress. From half of it on, writers get
/// what the replica leaves them (`replica::catching`); a replica that still falls behind gets another snapshot.
pub const LOG_HOLD_BYTES: u64 = 256 << 20;

/// A replica that is being brought up and makes no step in this time does not hold up writers.
pub const STEP_PATIENCE: Duration = Duration::from_millis(300);

/// Compacted events collected in one step, so that collecting never delays a heartbeat.
pub const GARBAGE_EVENTS_PER_TICK: usize = 2_000;

/// Rows of a dead slot removed in one step. All that the node does waits for that, so it takes no longer than a sync of the log.
pub const DEAD_ROWS_PER_TICK: usize = 500;

/// A snapshot that nobody has asked for this long is given up, on either side.
pub const TRANSFER_IDLE: Duration = Duration::from_secs(10);

/// A command or read that was sent to a leader and not answered is sent again after this long; the session table makes it
/// harmless.
pub const RETRY: Duration = Duration::from_millis(500);

/// So far ahead of a node's own clock may lie a moment that its client names: clocks of nodes differ, though by less where anybody looks after them.
pub const MOMENT_AHEAD_MAX: Duration = Duration::from_secs(5);

/// Entries that rotted and are asked for at one time.
pub const MENDING_ASKS_MAX: usize = 64;

/// Entries that a learner may lack of what is committed when it is given its vote: what a busy leader commits while a slow disk syncs.
/// The group may have to wait for that from then on.
pub const PROMOTION_LAG_ENTRIES: u64 = 64 * ENTRIES_IN_FLIGHT_MAX;

/// A replica counts as alive if it has answered within so many election timeouts.
pub const HEARD_LATELY_ELECTIONS: u32 = 2;

/// Between two times that a leader offers its place to another because it is badly placed itself: the other may be no better off.
pub const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// A node that stops waits at most this long until others lead in its place and its clients have their outcomes.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// State hashes kept for comparison with a peer's.
pub const HASHES_KEPT: usize = 4_096;

/// Time between two exchanges of state hashes.
pub const HASH_EXCHANGE: Duration = Duration::from_secs(1);

/// Transactions over several shards that this node coordinates at one time. Each holds locks; beyond it new ones are refused as overload.
pub const ACROSS_CLIENTS_MAX: usize = 4_096;

/// A step that carries out what was decided, or asks what was, is given up after this long; what is left is found again.
pub const ACROSS_STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// What is prepared and not decided for this long has lost its coordinator, or that is too slow: it is settled. Some times what a commit
/// takes on a slow disk, and short enough that nobody waits 5 s for a lock whose owner is gone.
pub const ORPHAN_AFTER: Duration = Duration::from_secs(1);

/// Keys that an interactive transaction has reserved are others' again after this long, whatever becomes of its client: many times what a closure takes, and, with
/// a tick and an entry, less than the 5 s for which nobody is to wait for somebody who is gone. A leader counts from when it first saw them.
pub const RESERVED_FOR: Duration = Duration::from_secs(4);

/// Entries of a home's log for which a decision is kept, so that whoever comes late hears it. At a thousand entries a second that is a minute
/// and a half, many times what a step may take; at some 60 bytes for each it costs a few MiB.
pub const FENCE_ENTRIES: u64 = 100_000;

/// Bytes of rows of a shard that is being split off that are copied in one step: some 10 ms of a core, so that heartbeats are in time and
/// 32 MiB take a third of a second.
pub const CHILD_BYTES_PER_TICK: usize = 2 << 20;

/// Bytes of keys and values that a shard of a ranged keyspace holds before it is split: few enough that half of them are copied in a third of a second, and many enough
/// that a terabyte is some ten thousand shards.
pub const SPLIT_BYTES: u64 = 64 << 20;

/// Rows that are weighed in one step: some 200 us of a core.
pub const ROWS_WEIGHED_PER_TICK: usize = 200;

/// A shard that has changed is weighed again after this long.
pub const WEIGH_REST: Duration = Duration::from_secs(10);

/// Between two looks at all shards of a node that has up to [`SHARDS_PER_LOOK`] of them: for one that is to be weighed, or whose history reaches back further than
/// it is to. Each look costs some 100 ns for each shard.
pub const SHARDS_LOOK: Duration = Duration::from_secs(1);

/// A node that has more looks at them less often: so many in each [`SHARDS_LOOK`].
pub const SHARDS_PER_LOOK: usize = 500;

/// Operations a second beyond which a shard of a ranged keyspace is split, if they are about more than one key: about half of what one leader does for 16 clients
/// (docs/performance.md), so that others get some of it before it is too much, and seldom enough that what is quiet stays in one piece.
pub const SPLIT_OPS: u64 = 2_500;

/// A shard is split by its load when there was too much of it for this long: what is over sooner was a burst, and a split costs more.
pub const SPLIT_SUSTAINED: Duration = Duration::from_secs(5);

/// A shard that was split, or split off, is not split by its load for this long: its rows are still copied and removed, and its clients still find their way.
pub const SPLIT_REST: Duration = Duration::from_secs(20);

/// Bytes of keys and values that a shard may hold to be merged with the one before it: they pass through a log, and nobody reads or writes them meanwhile. A
/// sixteenth part of [`SPLIT_BYTES`], so that what was merged is not split again for long.
pub const MERGE_BYTES: u64 = SPLIT_BYTES / 16;

/// A shard that was split, or split off, is not merged for this long.
pub const MERGE_REST: Duration = Duration::from_secs(300);

/// Bytes of rows in one entry of the log that takes over another shard's.
pub const MERGE_PAGE_BYTES: usize = 512 << 10;

/// Between two looks whether a shard may be merged.
pub const MERGE_LOOK: Duration = Duration::from_secs(1);

/// A shard that could not be merged is not looked at for this long.
pub const MERGE_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks how much shards have to do.
pub const HEAT_LOOK: Duration = Duration::from_secs(1);

/// Shards whose history is looked at in one step: each costs some ten reads.
pub const HISTORIES_PER_TICK: usize = 8;

/// A shard's history is compacted no more often than this, and no more often than [`HISTORY_PARTS`] times in the time that it is kept: an entry each time.
pub const HISTORY_REST: Duration = Duration::from_secs(60);

/// See [`HISTORY_REST`]. History may be older by one part than it is to be.
pub const HISTORY_PARTS: u32 = 8;

/// Records of a log that are looked at in one step, to find how many are too old or too many: less than a millisecond, but for large ones.
pub const RECORDS_PER_LOOK: u64 = 500;

/// A shard that this node has no replica of, and that nobody has asked for in this time, is forgotten: what is known of it is found again by one question.
pub const OUTPOST_IDLE: Duration = Duration::from_secs(60);

/// Sessions of other nodes whose answers a replica keeps: many times the nodes of a large cluster.
pub const GUESTS_MAX: usize = 4_096;

/// Bytes of answers that a replica keeps for one session of another node: what the largest requests of some seconds read. Of what had to go the outcome is unknown, if
/// the answer was lost.
pub const GUEST_BYTES_MAX: usize = 32 << 20;

/// Bytes of one answer to a session of another node, and of the answers in one message: with what else is in its frame it stays below what a frame may be. Of a larger
/// one only that it was done is said.
pub const GUEST_ANSWER_BYTES_MAX: usize = 16 << 20;

/// Bytes of answers that a replica keeps for other nodes while it sleeps: nobody forgets them meanwhile, and there may be thousands that sleep.
pub const GUEST_BYTES_ASLEEP_MAX: usize = 16 << 10;

/// A session of another node that was silent for this long is forgotten, with the answers that are kept for it: longer than anybody waits for one.
pub const GUEST_IDLE: Duration = Duration::from_secs(30);

/// Between two looks whether shards should live elsewhere.
pub const PLACE_LOOK: Duration = Duration::from_millis(200);

/// Between two moves for no other reason than that nodes should have as many replicas, times the nodes: nobody waits for them, and clients of the nodes that take part notice each. With three
/// voters and a newcomer, each of `n` nodes takes part in four of `n` moves: in one every two seconds.
pub const BALANCE_PAUSE: Duration = Duration::from_secs(8);

/// A node that was silent for this long is made up for: longer than a restart of the machine takes, since it means copying all that it had.
pub const EVICT_AFTER: Duration = Duration::from_secs(300);

/// The largest bound on clocks that an operator may vouch for: writers who wait for clocks wait for twice as long and are given up after some seconds.
pub const CLOCK_BOUND_MAX: Duration = Duration::from_secs(1);

/// Where clients are told what is on their leader's disk alone: entries that may wait for a majority while others are told of more, and for how long the first of them may.
/// No more than that is lost with a leader.
pub const EARLY_ENTRIES_MAX: u64 = 1_000;
/// See [`EARLY_ENTRIES_MAX`].
pub const EARLY_FOR: Duration = Duration::from_secs(1);

/// Bytes of entries that a leader has proposed and that no majority has yet; beyond it, there is one such entry at a time.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// For so long a leader keeps a copy of its state that is ahead, though nothing is.
pub const EARLY_IDLE: Duration = Duration::from_secs(1);

/// Ticks between two times that a replica asks to lead a shard that was just split off: the others may not have it yet.
pub const SEEK_TICKS: u32 = 5;

const _: () = assert!(LOG_KEEP_BYTES < LOG_HOLD_BYTES / LOG_LAG_PART);
const _: () = assert!(quorate_kv::limits::BATCH_BYTES_MAX < PENDING_BYTES_MAX);
const _: () = assert!(PENDING_BYTES_MAX <= QUEUE_BYTES_MAX);
const _: () =
    assert!(GUEST_ANSWER_BYTES_MAX < GUEST_BYTES_MAX && GUEST_ANSWER_BYTES_MAX < crate::wire::FRAME_BYTES_MAX);
