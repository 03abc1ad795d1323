//! What each way of asking keeps and gives up: the table behind `quorate explain` (docs/design/consistency.md).

use quorate_client::Replication;

/// What a node does that reaches no majority of a shard's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// It says that it cannot.
    Refuses,
    /// It answers as long as what it has is fresh enough, and then says that it is not.
    AnswersForAWhile,
    /// It answers.
    Answers,
}

impl CutOff {
    pub fn words(self) -> &'static str {
        match self {
            Self::Refuses => "refuses",
            Self::AnswersForAWhile => "answers for a while",
            Self::Answers => "answers",
        }
    }
}

/// A way of asking.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// As it is said to the server; a token or an age is put where there is one.
    pub way: &'static str,
    /// What it keeps.
    pub keeps: &'static str,
    /// What it gives up.
    pub gives_up: &'static str,
    /// In a partition.
    pub cut_off: CutOff,
}

/// What there is to say of writers, by whose disks they wait for, and whether for clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Whose disks.
    pub whose: Replication,
    /// For clocks.
    pub clocks: bool,
}

impl Promise {
    /// A write, where they wait for that.
    pub fn of_writers(writers: Writers) -> Self {
        let (keeps, gives_up) = match (writers.whose, writers.clocks) {
            (Replication::Majority, false) => (PROMISES[0].keeps, PROMISES[0].gives_up),
            (Replication::Leader, false) => (
                "on the leader's disk before it is acknowledged, and on those of a majority soon after; those that are not lost are strictly serializable; on those of a majority \
                 at once where several shards are written",
                "what was acknowledged last, if the leader fails: at most what 1,000 entries of a shard's log or one second hold; not for longer than that without a majority",
            ),
            (Replication::All, false) => (
                "on the disks of all voters before it is acknowledged; strictly serializable over all keyspaces",
                "a round to the slowest voter, two where several shards are written; no acknowledgement while any voter is away: it may be done, and its \
                 client hears unknown",
            ),
            (Replication::Majority | Replication::Leader, true) => (
                "on the disks of a majority before it is acknowledged; strictly serializable, and timestamps are in the order of what was done, as long as clocks \
                 keep the nodes' bound",
                "a round to a majority, two where several shards are written, and twice the bound on clocks; not without a majority",
            ),
            (Replication::All, true) => (
                "on the disks of all voters before it is acknowledged; strictly serializable, and timestamps are in the order of what was done, as long as clocks \
                 keep the nodes' bound",
                "a round to the slowest voter, two where several shards are written, and twice the bound on clocks; no acknowledgement while any voter is away: it \
                 may be done, and its client hears unknown",
            ),
        };
        Self { keeps, gives_up, ..PROMISES[0] }
    }
}

/// From the strictest on. Writes come first, as they are where nothing else is wanted.
pub const PROMISES: [Promise; 6] = [
    Promise {
        way: "write",
        keeps: "on the disks of a majority before it is acknowledged; strictly serializable over all keyspaces",
        gives_up: "a round to a majority, two where several shards are written; not without a majority",
        cut_off: CutOff::Refuses,
    },
    Promise {
        way: "strict",
        keeps: "sees every write acknowledged before it began; several keys at one moment",
        gives_up: "a round to a majority; not without one",
        cut_off: CutOff::Refuses,
    },
    Promise {
        way: "at",
        keeps: "one moment in all shards, the same at every node",
        gives_up: "what is newer than the moment; cut off, moments that were not closed there before",
        cut_off: CutOff::Answers,
    },
    Promise {
        way: "within",
        keeps: "sees every write acknowledged longer ago than the age",
        gives_up: "younger writes; one moment for several keys",
        cut_off: CutOff::AnswersForAWhile,
    },
    Promise {
        way: "after",
        keeps: "sees what the token stands for: one's own writes, and what one saw before",
        gives_up: "others' writes since then; one moment for several keys; cut off, tokens younger than what is closed there",
        cut_off: CutOff::Answers,
    },
    Promise {
        way: "any",
        keeps: "what was committed once",
        gives_up: "how long ago that was, and going back in time from one node to the next",
        cut_off: CutOff::Answers,
    },
];
