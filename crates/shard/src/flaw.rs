//! Flaws that the simulator plants in a state machine, to see whether its checks notice. A server's machine has none.

/// What a machine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The commands of some entries are not applied.
    SkipEntry,
    /// Compares are taken to hold.
    IgnoreCompares,
    /// Each write of a command has a revision of its own.
    RevisionPerWrite,
    /// A removed key stays attached to its lease.
    KeepAttached,
    /// A command that comes into the log after its proposer gave it up is applied.
    ForgetFloor,
    /// One revision more than was compacted is collected.
    CollectTooMuch,
    /// A snapshot lacks the session table.
    SessionsLeftBehind,
    /// A snapshot lacks the leases.
    LeasesLeftBehind,
    /// A snapshot lacks former values.
    HistoryLeftBehind,
    /// A snapshot lacks what is prepared for transactions over several shards.
    PreparedLeftBehind,
    /// Locks of transactions over several shards are in nobody's way.
    IgnoreLocks,
    /// Linearizable reads take no notice of locks.
    ReadThroughLocks,
    /// A transaction is decided although it was settled that it is aborted.
    CommitTheAborted,
    /// Who asks for an undecided transaction is told that it is aborted, and this is not written down.
    SettleUnwritten,
    /// What a client retries under its key is done again.
    ForgetKeys,
    /// A shard goes on serving keys that it has given away.
    KeepSplitOff,
    /// A shard takes part in what is asked of it for keys that it has given away.
    ServeMoved,
    /// A child lacks the former values of its keys.
    HistoryLeftInSplit,
    /// A shard is split although some of the keys are locked, and their locks stay behind.
    SplitWithLocks,
    /// What clients did under their keys is not known where the keys of what they wrote have gone.
    ForgetKeysInSplit,
    /// What is reserved is in nobody's way.
    IgnoreReservations,
    /// A commit does not look whether what it has reserved still is.
    ClaimsUnread,
    /// Keys are reserved, and read, though a transaction has prepared to write them.
    ReserveOverPrepared,
    /// A moment is taken to be closed although a transaction is prepared that may turn out to have happened by then.
    CloseOverPrepared,
    /// Whoever appends to a log does not wait for others that may have appended before.
    EndUnlocked,
    /// Records are appended when a transaction is prepared, and stay if it is aborted.
    AppendAtPrepare,
    /// The next offset is that behind the last record that is left.
    EndFromRows,
    /// A log is cut off, and its first offset stays what it was.
    CutUnmarked,
    /// One record more is removed than was cut off.
    SweepAhead,
    /// A snapshot lacks the row that says where a log begins and ends.
    BoundsLeftBehind,
    /// A moment lacks what had been decided elsewhere by then, and was carried out here later.
    LateLeftOut,
    /// A shard yields whatever is under way in it, and whatever its history tells.
    YieldAtOnce,
    /// A shard goes on serving its keys when it has yielded.
    ServeYielded,
    /// What clients did under their keys is not known to the shard that has taken over another.
    ForgetKeysInMerge,
    /// A moment takes no notice of which keys came from another shard, with revisions of that one.
    AnnexUnread,
}

/// Of the entries, one in so many is skipped.
pub(crate) const SKIPPED: u64 = 40;
