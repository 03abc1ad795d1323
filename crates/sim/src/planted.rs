//! Planted bugs: each switches one safety mechanism off, and some check must notice.

use crate::ground::Ground;
use Bug::{Driver, Node};
use quorate_cluster::Sabotage;
use quorate_shard::Flaw;

/// What the driver does wrong: the disk, the network, the clients' end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverBug {
    /// The disk reports what it has not synced.
    SkipSync,
    /// Directories are never synced.
    SkipDirSync,
    /// Hard states are not written.
    ForgetTermAndVote,
    /// Terms are written, votes are not.
    ForgetVote,
    /// A flush of the store is reported before it has run.
    FlushEarly,
    /// After a crash the applied index is newer than the rows.
    AppliedTooNew,
    /// After a crash the applied index is older than the rows.
    AppliedTooOld,
    /// A batch of watch events is dropped.
    LoseWatchEvents,
    /// A log that cannot be read is cut off where it cannot, as if it were torn.
    CutRefusedLog,
    /// A node whose disk was wiped comes back under its old id.
    ReturnAsOld,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Every node.
    Node(Sabotage),
    /// The second node alone.
    SecondNode(Sabotage),
    /// The world around the nodes.
    Driver(DriverBug),
}

/// A planted bug.
#[derive(Debug)]
pub struct Planted {
    /// Its name for `--break`.
    pub name: &'static str,
    /// What it breaks.
    pub what: &'static str,
    pub(crate) bug: Bug,
    pub(crate) ground: Ground,
}

impl Planted {
    const fn on(self, ground: Ground) -> Self {
        Self { ground, ..self }
    }
}

const fn bug(name: &'static str, what: &'static str, bug: Bug) -> Planted {
    Planted { name, what, bug, ground: Ground::Anywhere }
}

const fn flaw(name: &'static str, what: &'static str, flaw: Flaw) -> Planted {
    bug(name, what, Node(Sabotage::Machine(flaw)))
}

/// Every planted bug.
pub const PLANTED: &[Planted] = &[
    // Consensus.
    bug(
        "count-sends-as-acks",
        "a leader counts entries as stored when they are sent",
        Node(Sabotage::CountSendsAsAcks),
    ),
    bug("ack-before-persist", "entries are acknowledged before they are durable", Node(Sabotage::AckBeforePersist)),
    bug("grant-every-vote", "a replica votes for everybody who asks", Node(Sabotage::GrantEveryVote)),
    bug("trust-any-prefix", "entries are taken whatever comes before them", Node(Sabotage::TrustAnyPrefix)),
    bug("follow-old-leaders", "what a deposed leader appends is taken", Node(Sabotage::FollowOldLeaders)),
    bug("forget-vote", "term and vote are not written down", Driver(DriverBug::ForgetTermAndVote)),
    bug("forget-only-vote", "the term is written down, the vote is not", Driver(DriverBug::ForgetVote)),
    bug("lead-with-rot", "a log that rotted is cut off, as if it were torn", Node(Sabotage::LeadWithRot)),
    bug(
        "mend-unverified",
        "an entry that rotted is replaced by what a peer sends, though its payload has changed there",
        Node(Sabotage::MendUnverified),
    ),
    bug(
        "lack-is-replaced",
        "a peer that lacks an entry which rotted elsewhere says that another was committed in its place",
        Node(Sabotage::LackIsReplaced),
    )
    .on(Ground::Rot),
    bug(
        "leave-system-first",
        "a node that is to go leaves the group that tells it so before it has left the others",
        Node(Sabotage::LeaveSystemFirst),
    ),
    bug("trust-remains", "what is left in a damaged store is believed unread", Node(Sabotage::TrustRemains))
        .on(Ground::Rot),
    // What a disk forgets.
    bug("skip-recall", "a replica that starts does not ask what others saw it promise", Node(Sabotage::SkipRecall))
        .on(Ground::Forgetfulness),
    bug(
        "recall-terms-only",
        "a replica that starts does not believe that it voted, or acknowledged more than it has",
        Node(Sabotage::RecallTermsOnly),
    )
    .on(Ground::Forgetfulness),
    bug("forget-sightings", "nobody remembers what others promised", Node(Sabotage::ForgetSightings))
        .on(Ground::Forgetfulness),
    bug(
        "cut-refused-log",
        "a log of which a part cannot be read is cut off there, as if it were torn",
        Driver(DriverBug::CutRefusedLog),
    ),
    // Members.
    bug(
        "return-as-old",
        "a node that lost its disk comes back as the voter that it was",
        Driver(DriverBug::ReturnAsOld),
    ),
    bug("promote-unsynced", "a learner is given its vote whatever it has of the log", Node(Sabotage::PromoteUnsynced)),
    bug(
        "single-majority",
        "on the way from one set of voters to another the new ones decide alone",
        Node(Sabotage::SingleMajority),
    ),
    bug(
        "change-when-appended",
        "a change of membership counts before it is committed, and is not undone",
        Node(Sabotage::MembershipWhenAppended),
    ),
    bug("forget-membership", "a change of membership is not written down", Node(Sabotage::ForgetMembership)),
    bug("forget-commit", "that a change of membership was committed is not written down", Node(Sabotage::ForgetCommit)),
    bug(
        "removed-leader-stays",
        "a leader that is removed leads on and counts itself",
        Node(Sabotage::RemovedLeaderStays),
    ),
    bug("raise-early", "the cluster's level is raised before all members know it", Node(Sabotage::RaiseEarly))
        .on(Ground::Upgrades),
    bug("ignore-level", "what not all members know is proposed", Node(Sabotage::IgnoreLevel)).on(Ground::Upgrades),
    // Leaders that take turns, and sleep.
    bug("keep-leading", "a leader never gives way to the one that is to lead", Node(Sabotage::KeepLeading))
        .on(Ground::Moves),
    bug(
        "sleep-behind",
        "a group sleeps whatever there is to do, and whoever lacks something",
        Node(Sabotage::SleepBehind),
    )
    .on(Ground::Moves),
    bug("sleep-through", "who sleeps does not miss a leader whose node is gone", Node(Sabotage::SleepThrough))
        .on(Ground::Moves),
    // Reads.
    bug("read-without-quorum", "linearizable reads are served from local state", Node(Sabotage::ReadWithoutQuorum)),
    bug(
        "read-before-applied",
        "a confirmed read does not wait until its index is applied",
        Node(Sabotage::ReadBeforeApplied),
    ),
    // Retries and outcomes.
    bug(
        "drop-sessions",
        "the session table is lost when the leader changes, so retries apply twice",
        Node(Sabotage::DropSessions),
    ),
    bug("retry-under-new-id", "a command is sent again under another id", Node(Sabotage::RetryUnderNewId)),
    bug(
        "refuse-what-was-sent",
        "a command without an outcome is answered as if nothing had happened",
        Node(Sabotage::RefuseWhatWasSent),
    ),
    flaw("forget-floor", "a command that was given up is applied when it turns up late", Flaw::ForgetFloor),
    // The state machine.
    bug("skip-entry", "one replica does not apply some entries", Bug::SecondNode(Sabotage::Machine(Flaw::SkipEntry))),
    flaw("ignore-compares", "transactions do not look at their compares", Flaw::IgnoreCompares),
    flaw("revision-per-write", "a transaction's writes have revisions of their own", Flaw::RevisionPerWrite),
    flaw("collect-too-much", "compaction collects one revision too many", Flaw::CollectTooMuch),
    // Leases.
    bug("expire-early", "leases expire a second before their time", Node(Sabotage::ExpireEarly)),
    bug(
        "renew-unconfirmed",
        "a leader renews leases without asking whether it still leads",
        Node(Sabotage::RenewUnconfirmed),
    )
    .on(Ground::StaleLeaders),
    bug("lease-by-wall-clock", "leases are measured on a clock that jumps", Node(Sabotage::LeaseByWallClock)),
    flaw("keep-attached", "a removed key stays attached to its lease", Flaw::KeepAttached),
    // Watches.
    bug(
        "skip-history",
        "a watch that starts in the past misses what is no longer in memory",
        Node(Sabotage::SkipHistory),
    ),
    bug("watch-twice", "a watch that resumes gets its last revision again", Node(Sabotage::WatchTwice)),
    bug("split-revisions", "the events of one revision come in several notices", Node(Sabotage::SplitRevisions)),
    bug("progress-ahead", "a progress mark is ahead of its events", Node(Sabotage::ProgressAhead)),
    bug("lose-watch-events", "a batch of events is lost on its way to a watch", Driver(DriverBug::LoseWatchEvents)),
    // Transactions over several shards.
    flaw("ignore-locks", "what a transaction has prepared is in nobody's way", Flaw::IgnoreLocks)
        .on(Ground::Transactions),
    flaw(
        "read-through-locks",
        "linearizable reads do not wait for a transaction that may have been acknowledged",
        Flaw::ReadThroughLocks,
    )
    .on(Ground::Transactions),
    flaw(
        "commit-the-aborted",
        "a decision comes late, and takes no notice of having been aborted",
        Flaw::CommitTheAborted,
    )
    .on(Ground::Transactions),
    flaw("settle-unwritten", "that a transaction is aborted is said and not written down", Flaw::SettleUnwritten)
        .on(Ground::Transactions),
    flaw("forget-keys", "what a client sends again under its own name is done again", Flaw::ForgetKeys)
        .on(Ground::Transactions),
    flaw("prepared-left-behind", "a snapshot lacks what transactions have prepared", Flaw::PreparedLeftBehind)
        .on(Ground::Transactions),
    bug(
        "decide-unprepared",
        "a transaction is decided before all of its shards have prepared it",
        Node(Sabotage::DecideUnprepared),
    )
    .on(Ground::Transactions),
    bug("leave-orphans", "a transaction whose coordinator is gone is left as it is", Node(Sabotage::LeaveOrphans))
        .on(Ground::Transactions),
    bug(
        "abandon-decided",
        "a transaction whose client has gone is given up even where it is being decided",
        Node(Sabotage::AbandonDecided),
    )
    .on(Ground::Transactions),
    bug(
        "presume-aborted",
        "a shard whose transaction is silent takes it as aborted, and asks nobody",
        Node(Sabotage::PresumeAborted),
    )
    .on(Ground::Transactions),
    // Reservations.
    flaw("ignore-reservations", "what a transaction has reserved is in nobody's way", Flaw::IgnoreReservations)
        .on(Ground::Reservations),
    flaw("claims-unread", "a commit does not look whether what it rests on is still reserved", Flaw::ClaimsUnread)
        .on(Ground::Reservations),
    flaw(
        "reserve-over-prepared",
        "a key is reserved and read though a transaction has prepared to write it",
        Flaw::ReserveOverPrepared,
    )
    .on(Ground::Reservations),
    bug(
        "leave-reservations",
        "what somebody who is gone has reserved is never ended",
        Node(Sabotage::LeaveReservations),
    )
    .on(Ground::Reservations),
    // Logs.
    flaw(
        "end-unlocked",
        "who appends to a log does not wait for others that may have appended before",
        Flaw::EndUnlocked,
    )
    .on(Ground::Logs),
    flaw(
        "append-at-prepare",
        "records are appended when a transaction is prepared, and stay if it is aborted",
        Flaw::AppendAtPrepare,
    )
    .on(Ground::Logs),
    flaw("end-from-rows", "the next offset is that behind the last record that is left", Flaw::EndFromRows)
        .on(Ground::Logs),
    flaw("cut-unmarked", "a log is cut off, and its first offset stays what it was", Flaw::CutUnmarked)
        .on(Ground::Logs),
    flaw("sweep-ahead", "one record more is removed than was cut off", Flaw::SweepAhead).on(Ground::Logs),
    flaw("bounds-left-behind", "a snapshot lacks where a log begins and ends", Flaw::BoundsLeftBehind).on(Ground::Logs),
    bug("leave-cut-rows", "the rows of what was cut off a log stay", Node(Sabotage::LeaveCutRows)).on(Ground::Logs),
    bug("retain-nothing", "a log is cut off whatever it is to keep", Node(Sabotage::RetainNothing)).on(Ground::Logs),
    // The dial.
    flaw(
        "close-over-prepared",
        "a moment is taken to be closed although a prepared transaction may turn out to have happened by then",
        Flaw::CloseOverPrepared,
    )
    .on(Ground::Transactions),
    flaw("late-left-out", "a moment lacks what was decided by then and carried out later", Flaw::LateLeftOut)
        .on(Ground::Transactions),
    bug("ignore-tokens", "a read takes no notice of what its client saw before", Node(Sabotage::IgnoreTokens))
        .on(Ground::Transactions),
    bug("fresh-for-ever", "what was once confirmed is taken for fresh", Node(Sabotage::FreshForEver)).on(Ground::Early),
    // What writers wait for.
    bug("ack-at-majority", "all voters are said to have what a majority has", Node(Sabotage::AckAtMajority))
        .on(Ground::Replication),
    bug("read-untold", "who reads strictly does not wait for what others were told early", Node(Sabotage::ReadUntold))
        .on(Ground::Early),
    bug("tell-as-committed", "consensus takes what clients were told for committed", Node(Sabotage::TellAsCommitted))
        .on(Ground::Early),
    bug("tell-unbounded", "clients are told early however much waits for a majority", Node(Sabotage::TellUnbounded))
        .on(Ground::Early),
    bug("tell-unwritten", "clients are told of what is not on the leader's disk", Node(Sabotage::TellUnwritten))
        .on(Ground::Early),
    bug("forget-losses", "what clients were told early and is lost is not counted", Node(Sabotage::ForgetLosses))
        .on(Ground::Early),
    bug("vote-without", "who lacks what all voters are said to have gets a vote", Node(Sabotage::VoteWithout))
        .on(Ground::Replication),
    bug("no-commit-wait", "writers do not wait for clocks", Node(Sabotage::NoCommitWait)).on(Ground::Replication),
    bug(
        "wait-the-wrong-way",
        "writers wait as if the clock here were behind, and it may be ahead",
        Node(Sabotage::WaitTheWrongWay),
    )
    .on(Ground::Replication),
    // Splits.
    flaw("keep-split-off", "a shard goes on serving keys that it has given away", Flaw::KeepSplitOff)
        .on(Ground::Splits),
    flaw("serve-moved", "a shard answers whoever asks it for keys that it has given away", Flaw::ServeMoved)
        .on(Ground::Splits),
    flaw("history-left-in-split", "a shard that was split off lacks former values", Flaw::HistoryLeftInSplit)
        .on(Ground::Splits),
    flaw("split-with-locks", "a shard is split while keys are locked, and the locks stay behind", Flaw::SplitWithLocks)
        .on(Ground::Splits),
    flaw(
        "forget-keys-in-split",
        "what a client did under its own name is not known to the shard where a retry goes",
        Flaw::ForgetKeysInSplit,
    )
    .on(Ground::Splits),
    bug("child-as-founder", "a shard that was split off begins with nothing", Node(Sabotage::ChildAsFounder))
        .on(Ground::Splits),
    bug("wean-early", "a shard's rows go before a majority has the shard they went to", Node(Sabotage::WeanEarly))
        .on(Ground::Splits),
    bug(
        "child-unflushed",
        "the log of a shard that was split off rests on rows that are not durable",
        Node(Sabotage::ChildUnflushed),
    )
    .on(Ground::Splits),
    bug(
        "split-restlessly",
        "a shard that has much to do is split again as soon as it was split",
        Node(Sabotage::SplitRestlessly),
    )
    .on(Ground::Splits),
    // Merges.
    flaw(
        "yield-at-once",
        "a shard is merged with another whatever is under way in it, and whatever its history tells",
        Flaw::YieldAtOnce,
    )
    .on(Ground::Merges),
    flaw("serve-yielded", "a shard that has yielded goes on serving its keys", Flaw::ServeYielded).on(Ground::Merges),
    flaw(
        "forget-keys-in-merge",
        "what clients did under their keys is not known to the shard that has taken over another",
        Flaw::ForgetKeysInMerge,
    )
    .on(Ground::Merges),
    flaw("annex-unread", "moments take no notice of keys that came with another shard's revisions", Flaw::AnnexUnread)
        .on(Ground::Merges),
    bug(
        "merge-untold",
        "a shard that has yielded is no more before another has what it had",
        Node(Sabotage::MergeUntold),
    )
    .on(Ground::Merges),
    // Moves.
    bug(
        "forget-moved",
        "a replica that moves away and comes back has forgotten what it had promised",
        Node(Sabotage::ForgetMoved),
    )
    .on(Ground::Moves),
    bug(
        "leave-at-once",
        "a replica goes when it learns that it is no member, and others may forget that",
        Node(Sabotage::LeaveAtOnce),
    )
    .on(Ground::Moves),
    bug(
        "replace-at-once",
        "a node for which another has come goes before that one has what it had",
        Node(Sabotage::ReplaceAtOnce),
    )
    .on(Ground::Moves),
    bug(
        "split-while-changing",
        "a shard is split while its members change: a child begins with members that never get its rows",
        Node(Sabotage::SplitWhileChanging),
    )
    .on(Ground::Moves),
    bug(
        "forget-at-once",
        "history is compacted as soon as it is written, however long it is to be kept",
        Node(Sabotage::ForgetAtOnce),
    )
    .on(Ground::Transactions),
    bug(
        "session-again",
        "a replica that comes back begins the session of the one before it anew",
        Node(Sabotage::SessionAgain),
    )
    .on(Ground::Moves),
    bug(
        "ask-anew",
        "others are asked under new ids for what a replica was asked for that has no vote any more",
        Node(Sabotage::AskAnew),
    )
    .on(Ground::Moves),
    // Disks and snapshots.
    bug("skip-sync", "the disk says durable and is not", Driver(DriverBug::SkipSync)),
    bug("skip-directory-sync", "a new file's name is not durable", Driver(DriverBug::SkipDirSync)),
    bug(
        "compact-unflushed",
        "the log forgets entries that the store has not made durable",
        Node(Sabotage::CompactUnflushed),
    ),
    bug(
        "install-unflushed",
        "the log begins at a snapshot whose rows are not durable",
        Node(Sabotage::InstallUnflushed),
    ),
    bug("flush-early", "a flush of the store is reported before it has run", Driver(DriverBug::FlushEarly)),
    bug("applied-too-new", "the applied index reaches the disk before the rows", Driver(DriverBug::AppliedTooNew)),
    bug("applied-too-old", "the applied index reaches the disk after the rows", Driver(DriverBug::AppliedTooOld)),
    flaw("sessions-left-behind", "a snapshot lacks the session table", Flaw::SessionsLeftBehind),
    flaw("leases-left-behind", "a snapshot lacks the leases", Flaw::LeasesLeftBehind),
    flaw("history-left-behind", "a snapshot lacks former values", Flaw::HistoryLeftBehind),
];

/// The planted bug of a name.
#[must_use]
pub fn planted(name: &str) -> Option<&'static Planted> {
    PLANTED.iter().find(|planted| planted.name == name)
}
