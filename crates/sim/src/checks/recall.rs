//! What each node has heard others promise since its process began: who of them could tell a disk that forgets.

use quorate_consensus::{Message, MessageKind};
use quorate_env::{LogIndex, ReplicaId, ShardId, Term};
use quorate_storage::wal::RecoveredLog;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    term: Term,
    voted: Term,
    acknowledged: (Term, LogIndex),
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By whom, of whom.
    heard: BTreeMap<(usize, usize, ShardId), Heard>,
}

/// Where a log ends, and the term that it knows.
pub(crate) fn end_and_term(log: &RecoveredLog) -> (LogIndex, Term) {
    let last = log.entries.last().map_or(log.start.0, |entry| entry.index);
    (last, log.hard_state.map_or(Term(0), |hard_state| hard_state.term))
}

impl Seen {
    /// A message reached a running process.
    pub fn hear(&mut self, by: usize, of: usize, shard: ShardId, message: &Message) {
        let heard = self.heard.entry((by, of, shard)).or_default();
        match message.kind {
            MessageKind::AppendResponse if !message.reject => {
                heard.acknowledged = heard.acknowledged.max((message.term, message.index));
                heard.term = heard.term.max(message.term);
            }
            MessageKind::RequestVoteResponse if !message.reject => {
                heard.voted = heard.voted.max(message.term);
                heard.term = heard.term.max(message.term);
            }
            MessageKind::RequestVote => heard.term = heard.term.max(message.term),
            _ => {}
        }
    }

    /// A process ended, and what it knew with it.
    pub fn forget(&mut self, by: usize) {
        self.heard.retain(|(who, ..), _| *who != by);
    }

    /// Whether `by` heard `of` promise what this log does not know.
    pub fn more_than(&self, by: usize, of: usize, shard: ShardId, log: &RecoveredLog) -> bool {
        let heard = self.heard.get(&(by, of, shard)).copied().unwrap_or_default();
        let (_, term) = end_and_term(log);
        let vote = log.hard_state.map_or(ReplicaId(0), |hard_state| hard_state.vote);
        let voted = heard.voted == term && term > Term(0) && vote.0 as usize != by + 1;
        heard.term > term || voted || self.acknowledged_more(by, of, shard, log)
    }

    /// Whether `of` acknowledged to `by`, in the term of this log, entries behind its end.
    pub fn acknowledged_more(&self, by: usize, of: usize, shard: ShardId, log: &RecoveredLog) -> bool {
        let (last, term) = end_and_term(log);
        let heard = self.heard.get(&(by, of, shard)).copied().unwrap_or_default();
        heard.acknowledged.0 == term && heard.acknowledged.1 > last
    }
}
