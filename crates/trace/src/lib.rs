//! What happened in a run, as data: the lines that a replay prints and the diagram are both drawn from this.
//!
//! Events are in the order in which they happened, each with its time in microseconds. What ties them together is named in them: a message's id is in
//! its [`TraceEvent::Send`] and in each [`TraceEvent::Deliver`] or [`TraceEvent::Lose`]; an operation's number in its question and its answer; a disk's
//! ticket in the begin and the end of a sync. A message that was duplicated is delivered twice; one that has neither end was still on its way at the end.
//!
//! The file format (docs/design/trace-format.md) knows nothing of the simulator, so that a running server can record the same.

mod json;
mod lines;
mod looks;
mod merge;
mod process;
mod window;
pub mod words;

pub use json::TraceError;
pub use looks::Looks;
pub use merge::{MergeError, Omitted, merge};
pub use process::{Life, LifeHead, OwnEvent, OwnRecord, PROCESS_VERSION, is_process, read_process};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The version of the file format.
pub const TRACE_VERSION: u32 = 1;

/// Who something happens to: one line of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Lane {
    /// A node, by its id.
    Node(u64),
    /// A client.
    Client(u64),
    /// A client's watch.
    Watch(u64),
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, number) = match self {
            Self::Node(n) => ('n', n),
            Self::Client(n) => ('c', n),
            Self::Watch(n) => ('w', n),
        };
        f.pad(&format!("{letter}{number}"))
    }
}

impl FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no lane: n1, c1 or w1 is");
        let number = text.get(1..).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        match text.as_bytes()[0] {
            b'n' => Ok(Self::Node(number)),
            b'c' => Ok(Self::Client(number)),
            b'w' => Ok(Self::Watch(number)),
            _ => Err(wrong()),
        }
    }
}

impl From<Lane> for String {
    fn from(lane: Lane) -> Self {
        lane.to_string()
    }
}

impl TryFrom<String> for Lane {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Ties a message's sending to its arrivals. Unique in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(pub u64);

/// What a message says. What a kind does not use is zero or empty, and not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// Its kind: one of Raft's, or one of ours (docs/design/wire-format.md).
    pub kind: String,
    /// The sender's term.
    #[serde(skip_serializing_if = "is_zero")]
    pub term: u64,
    /// The entry before the appended ones, the last one that matches, or the candidate's last.
    #[serde(skip_serializing_if = "is_zero")]
    pub index: u64,
    /// How many entries it carries.
    #[serde(skip_serializing_if = "is_zero")]
    pub entries: u64,
    /// What the sender knows to be committed.
    #[serde(skip_serializing_if = "is_zero")]
    pub commit: u64,
    /// Whether it says no.
    #[serde(skip_serializing_if = "is_false")]
    pub reject: bool,
    /// Of a kind that is not Raft's: the rest, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !b
}

/// Which directions a cut closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Nothing passes.
    Both,
    /// Nothing reaches the node.
    In,
    /// Nothing leaves it.
    Out,
}

/// Why a message never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The network dropped it.
    Dropped,
    /// The way was cut.
    Cut,
    /// The receiver was not running when it came.
    Down,
}

/// What a replica is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Part {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// What became of a client's operation, as the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It took effect, or was read.
    Done,
    /// It was judged and had no effect.
    Refused,
    /// It had no effect: ask again.
    Unavailable,
    /// Nobody can say.
    Unknown,
}

/// Everything that a trace can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[allow(missing_docs)]
pub enum TraceEvent {
    /// A process starts, with what its disk holds. Lives are counted.
    Start { node: Lane, life: u64 },
    /// It is gone; what it had not synced is lost, or not.
    Crash { node: Lane, cause: String },
    /// It runs no more; what arrives waits.
    Pause { node: Lane },
    /// It goes on.
    Resume { node: Lane },
    /// Its wall clock is set to another time.
    ClockJump { node: Lane },
    /// It is cut off from all others.
    Cut { node: Lane, way: Way },
    /// Every cut ends.
    Heal,
    /// Every fault ends: from here on the cluster must recover.
    Calm,
    /// A message leaves.
    Send { message: MessageId, from: Lane, to: Lane, shard: u64, said: Said },
    /// A copy of it arrives.
    Deliver { message: MessageId },
    /// A copy of it, or all of it, does not.
    Lose { message: MessageId, why: Loss },
    /// Records are on their way to the log's disk.
    SyncBegin { node: Lane, ticket: u64, records: u64 },
    /// They are durable.
    SyncEnd { node: Lane, ticket: u64 },
    /// Rows are on their way to the store's disk.
    FlushBegin { node: Lane, ticket: u64 },
    /// They are durable.
    FlushEnd { node: Lane, ticket: u64 },
    /// A replica's term or part in it changed.
    Role { node: Lane, shard: u64, term: u64, part: Part, leader: Option<Lane> },
    /// A replica takes a snapshot in place of the log up to this index.
    Install { node: Lane, shard: u64, index: u64 },
    /// A replica knows that everything up to this index is committed.
    Commit { node: Lane, shard: u64, index: u64 },
    /// A replica has applied everything up to this index.
    Apply { node: Lane, shard: u64, index: u64 },
    /// A client asks a node.
    Ask { client: Lane, node: Lane, operation: u64, text: String },
    /// It is answered; `revision` is 0 where none was told.
    Answer { client: Lane, node: Lane, operation: u64, outcome: Outcome, revision: u64, text: String },
    /// It waits no longer.
    GiveUp { client: Lane, operation: u64 },
    /// A watch asks a node.
    Watch { watch: Lane, node: Lane, text: String },
    /// It is told something; `from` and `to` are the revisions of the events, or 0.
    Tell { watch: Lane, node: Lane, from: u64, to: u64, text: String },
    /// Something that only this kind of participant does, in words.
    Note { node: Lane, text: String },
    /// A check objects. Names in `detail`: n1 a node, s1 a shard, t1 a term, @1 an index; operation, lease, revision with their number.
    Violation { rule: String, detail: String },
    /// The run ends.
    End,
}

/// What a trace is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// [`TRACE_VERSION`].
    pub quorate_trace: u32,
    /// In a few words.
    pub title: String,
    /// The command that makes the same trace again, if any does.
    pub command: String,
    /// What the run was, a sentence each.
    pub story: Vec<String>,
    /// Every lane, from the top.
    pub lanes: Vec<Lane>,
    /// Every shard.
    pub shards: Vec<u64>,
}

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Microseconds since the beginning.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: TraceEvent,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What it is of.
    pub about: About,
    /// In order.
    pub records: Vec<Record>,
}

impl TraceEvent {
    /// Where it happens, and the lane at its other end if it has one. Deliveries and losses happen where their message says.
    #[must_use]
    pub fn lanes(&self) -> (Option<Lane>, Option<Lane>) {
        match self {
            Self::Send { from, to, .. } => (Some(*from), Some(*to)),
            Self::Ask { client: from, node: to, .. }
            | Self::Answer { client: from, node: to, .. }
            | Self::Watch { watch: from, node: to, .. }
            | Self::Tell { watch: from, node: to, .. } => (Some(*from), Some(*to)),
            Self::Start { node, .. }
            | Self::Crash { node, .. }
            | Self::Pause { node }
            | Self::Resume { node }
            | Self::ClockJump { node }
            | Self::Note { node, .. }
            | Self::Cut { node, .. }
            | Self::SyncBegin { node, .. }
            | Self::SyncEnd { node, .. }
            | Self::FlushBegin { node, .. }
            | Self::FlushEnd { node, .. }
            | Self::Role { node, .. }
            | Self::Install { node, .. }
            | Self::Commit { node, .. }
            | Self::Apply { node, .. } => (Some(*node), None),
            Self::GiveUp { client, .. } => (Some(*client), None),
            Self::Deliver { .. } | Self::Lose { .. } | Self::Heal | Self::Calm | Self::Violation { .. } | Self::End => {
                (None, None)
            }
        }
    }

    /// Every lane that it names.
    fn lanes_mut(&mut self) -> Vec<&mut Lane> {
        match self {
            Self::Send { from: one, to: other, .. }
            | Self::Ask { client: one, node: other, .. }
            | Self::Answer { client: one, node: other, .. }
            | Self::Watch { watch: one, node: other, .. }
            | Self::Tell { watch: one, node: other, .. } => vec![one, other],
            Self::Role { node, leader, .. } => [node].into_iter().chain(leader).collect(),
            Self::Start { node, .. }
            | Self::Crash { node, .. }
            | Self::Pause { node }
            | Self::Resume { node }
            | Self::ClockJump { node }
            | Self::Note { node, .. }
            | Self::Cut { node, .. }
            | Self::SyncBegin { node, .. }
            | Self::SyncEnd { node, .. }
            | Self::FlushBegin { node, .. }
            | Self::FlushEnd { node, .. }
            | Self::Install { node, .. }
            | Self::Commit { node, .. }
            | Self::Apply { node, .. } => vec![node],
            Self::GiveUp { client, .. } => vec![client],
            Self::Deliver { .. } | Self::Lose { .. } | Self::Heal | Self::Calm | Self::Violation { .. } | Self::End => {
                Vec::new()
            }
        }
    }
}
