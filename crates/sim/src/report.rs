//! What is left of a run.

use crate::fault::Fault;
use crate::history::Violation;
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken, if one was, and when (microseconds of simulated time).
    pub violation: Option<(u64, Violation)>,
    /// A hash over everything that left any node.
    pub output_hash: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Operations that clients completed.
    pub operations: u64,
    /// Operations over many shards for which an order was found.
    pub explained: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Interesting things that happened, and how often.
    pub marks: BTreeMap<&'static str, u64>,
    /// Everything that happened, if asked for.
    pub trace: Option<Trace>,
}

/// Faults that come at a start or with the members, beside those that come by the clock.
const OTHER_FAULTS: [&str; 5] =
    [Fault::Struck(0).mark(), "entry rotted", "store damaged", "promises rotted", "disk wiped"];

/// What failed, by kind, and how often. Power cuts and crashes count once for each node that was up.
#[must_use]
pub fn faults_by_kind(marks: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let kinds = Fault::ALL.into_iter().map(Fault::mark).chain(OTHER_FAULTS);
    kinds.filter_map(|kind| Some((kind, *marks.get(kind)?))).collect()
}

/// Interesting things that a campaign should have seen at least once.
pub const MARKS: &[&str] = &[
    "crash",
    "power cut",
    "message dropped",
    "message doubled",
    "message overtaken",
    "cut",
    "cut one way",
    "clog one way",
    "pause",
    "wall clock jump",
    "clog",
    "stutter",
    "applied bit by bit",
    "frozen clock",
    "clock at a wrong speed",
    "clock at double speed",
    "clock at half speed",
    "wall clock at a wrong speed",
    "slow disk",
    "full disk",
    "refused for want of room",
    "disk error",
    "planned stop",
    "group fell asleep",
    "sleeper missed its leader",
    "leader asked to hand over",
    "leadership handed over before a stop",
    "leadership moved on request",
    "node upgraded",
    "two versions side by side",
    "feature level raised",
    "refused below its feature level",
    "slow leader handed over",
    "crash at a delicate moment",
    "torn write",
    "crash between outputs",
    "leader deposed with entries in flight",
    "unknown outcome",
    "retry recognised",
    "snapshot installed",
    "store flushed",
    "writes wait for the disk",
    "history read by a watch",
    "watch compacted",
    "watch from the past",
    "lease expired",
    "lease renewed",
    "read refused as compacted",
    "real store",
    "store damaged",
    "lost rows fetched",
    "rows kept of a damaged store",
    "entry rotted",
    "rot at several nodes",
    "promises rotted",
    "came back as another",
    "old disk image",
    "lying sync",
    "misdirected write",
    "told of promises that it had lost",
    "told of a commit that it had lost",
    "entry mended",
    "disk wiped",
    "wiped node returned",
    "learner promoted",
    "member removed",
    "member replaced",
    "leader removed",
    "crash in a joint configuration",
    "audit",
    "transaction over shards",
    "transaction under reservations",
    "key reserved",
    "reservation lost",
    "reservation left behind",
    "reservation lapsed",
    "records appended",
    "append repeated",
    "append over shards",
    "append in vain",
    "records fetched",
    "fetch of what was cut off",
    "log cut off",
    "log cut off by itself",
    "transaction found a change",
    "transaction given up",
    "transaction sent again",
    "answer lost on its way",
    "transaction repeated",
    "transaction settled",
    "prepare after it was settled",
    "decision after it was settled",
    "read met a lock",
    "shard split",
    "shard split by its size",
    "shard split by its load",
    "shard merged",
    "client hung up",
    "split put off",
    "split refused below its feature level",
    "split-off shard weaned",
    "split-off shard began empty",
    "replica moved away",
    "replica came back",
    "asked of a node without the shard",
    "told before a majority had it",
    "acknowledged and lost",
    "told by one leader and done by the next",
    "told when all voters had it",
    "voter came where all are waited for",
    "happened after what was told",
];
