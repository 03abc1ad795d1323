//! Whether a node that starts still has what its replicas promised, as far as others can tell.
//!
//! A disk that was rolled back to an older image, or that said *synced* and was not, looks whole: nothing in it is damaged, it is merely old. Who
//! goes on from it may vote twice in a term, and lacks entries that a leader counted. Only others can know. So each node remembers, in
//! memory, what it saw every replica of the others promise, and one that starts asks before any of its own takes part:
//!
//! ```text
//!   starts ──> "what did you see of me?" ──┬── all have answered, or time is up ──────────> mends if it must, and takes part
//!     mute; answers others that ask so     └── somebody saw more than the disk has ───────> comes back as another member
//! ```
//!
//! The replicas share a disk, so what one of them has lost concerns all. An answer tells of all of them, also of shards that this disk does not know of
//! any more.
//!
//! **What counts as seen.** Only what is sent after it is durable: an answer to an append or a heartbeat, a vote given, a vote asked for (whoever
//! asks has voted for itself). Not what a leader sends, nor pre-votes: neither says what is on the sender's disk.
//!
//! **What contradicts.** Let the hard state that was found be of term `h`, with vote `v`, and the log end at `l`. The disk of an id only grows, but for
//! the log's end, so something is lost if
//!
//! - a promise was seen in a term above `h`: terms are durable before anything is promised in them, and never go back;
//! - a vote in `h` was given to the one who saw it, and `v` is another;
//! - an append was acknowledged in `h` up to an index above `l`. Whoever acknowledged in `h` had the log of `h`'s leader up to there. That leader's
//!   log only grows, and it is the only one who may cut others' logs in `h`; so what was acknowledged in `h` is never cut while the
//!   term is `h`. (Who cuts its own log for another reason, because it learned that its end was never committed, goes to the next term with it:
//!   `mending`, `boot`.) An acknowledgement in a term below `h` proves nothing: a later leader may have replaced that end.
//!
//! The third needs no case for terms above `h`: the first covers it. All that a disk forgets when it goes back to an earlier moment is found by these
//! three: if the term was the same then, the votes and acknowledgements of that term are missing; if not, the term is.
//!
//! **What it cannot know.** Memories end with their process, and an answer may come too late. What nobody remembers who answers within the bound, nobody
//! finds: then the replica takes part. Who was the leader has promised itself more than others can see. It is a net under broken disks, not a proof.

use crate::boot::Found;
use crate::config::Sabotage;
use crate::input::{Inspection, WatchRequest};
use crate::node::FIRST_SHARDS;
use crate::replica::{Context, membership_hash};
use crate::wire::{PeerBody, PeerMessage, node_of};
use quorate_consensus::{HardState, MessageKind, Role};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, ShardId, Term};
use quorate_shard::{Remains, WatcherKey};
use quorate_storage::wal::RecoveredLog;
use std::collections::{BTreeMap, BTreeSet};

/// What one replica has seen another promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The highest term in which it promised anything.
    pub term: Term,
    /// The last term in which it voted for the one who saw it.
    pub voted: Term,
    /// The last term in which it acknowledged an append to the one who saw it, and the highest index that it did then.
    pub acknowledged: (Term, LogIndex),
}

impl Sighting {
    /// Adds what a message says.
    fn add(&mut self, body: &PeerBody) {
        let PeerBody::Raft(message) = body else { return };
        match message.kind {
            MessageKind::AppendResponse if !message.reject => {
                self.acknowledged = self.acknowledged.max((message.term, message.index));
            }
            MessageKind::RequestVoteResponse if !message.reject => self.voted = self.voted.max(message.term),
            MessageKind::AppendResponse
            | MessageKind::RequestVoteResponse
            | MessageKind::RequestVote
            | MessageKind::HeartbeatResponse => {}
            _ => return,
        }
        self.term = self.term.max(message.term);
    }

    /// What of it is not on a disk with these promises and this end of the log, whose replica `by` was seen by the one that says so.
    fn contradiction(&self, by: ReplicaId, found: HardState, last: LogIndex) -> Option<String> {
        let HardState { term, vote, .. } = found;
        let (acknowledged_in, index) = self.acknowledged;
        if self.term > term {
            Some(format!("{by} saw it promise in {}, and its disk knows only {term}", self.term))
        } else if self.voted == term && term > Term(0) && vote != by {
            Some(format!("it voted for {by} in {term}, and its disk does not know"))
        } else if acknowledged_in == term && index > last {
            Some(format!("it acknowledged entries up to {index} to {by} in {term}, and its disk has only {last}"))
        } else {
            None
        }
    }
}

/// What this node has seen others promise since its process began.
#[derive(Default)]
pub(crate) struct Witness {
    seen: BTreeMap<(ReplicaId, ShardId), Sighting>,
}

impl Witness {
    pub fn see(&mut self, shard: ShardId, from: ReplicaId, body: &PeerBody) {
        self.seen.entry((from, shard)).or_default().add(body);
    }

    /// What it has seen a node's replicas promise.
    pub fn of(&self, replica: ReplicaId) -> Vec<(ShardId, Sighting)> {
        let of_it = self.seen.range((replica, ShardId(0))..=(replica, ShardId(u64::MAX)));
        of_it.filter(|(_, seen)| **seen != Sighting::default()).map(|((_, shard), seen)| (*shard, *seen)).collect()
    }
}

/// What a replica starts with.
pub(crate) struct Opened {
    pub found: Found,
    pub remains: Option<Remains>,
    /// Asked for meanwhile.
    pub watches: Vec<(WatcherKey, WatchRequest)>,
}

/// What a disk says that was promised.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    hard_state: HardState,
    last: LogIndex,
}

impl Promised {
    fn by(log: &RecoveredLog) -> Self {
        let hard_state = log.hard_state.map_or_else(HardState::default, |it| HardState {
            term: it.term,
            vote: it.vote,
            commit: it.commit,
        });
        let readable = log.entries.last().map_or(log.start.0, |entry| entry.index);
        Self { hard_state, last: log.rotted.last().map_or(readable, |rotted| rotted.index.max(readable)) }
    }
}

impl Opened {
    /// What the disk says, or would if what is found wrong with it were already put right.
    fn promised(&self) -> Promised {
        let restored = &self.found.restored;
        let hard_state = match restored.hard_state {
            found if found.term >= restored.at_least => found,
            found => HardState { term: restored.at_least, vote: ReplicaId(0), ..found },
        };
        let readable = restored.entries.last().map_or(restored.start.index, |entry| entry.index);
        let last = self.found.rotted.last().map_or(readable, |rotted| rotted.index.max(readable));
        Promised { hard_state, last }
    }

    /// Whether it never took part in anything.
    fn is_fresh(&self) -> bool {
        let restored = &self.found.restored;
        restored.hard_state.term == Term(0) && restored.applied.index == LogIndex(0)
    }

    fn inspect(&self, id: ReplicaId) -> Inspection {
        let (restored, meta) = (&self.found.restored, self.found.machine.meta());
        let whole = self.found.rotted.is_empty() && self.found.hole.is_none();
        Inspection {
            replica: id,
            role: Role::Follower,
            term: restored.hard_state.term.max(restored.applied.term),
            leader: None,
            committed: restored.hard_state.commit.max(meta.applied),
            applied: meta.applied,
            state_hash: meta.state_hash,
            revision: meta.revision,
            log_start: restored.start.index,
            last: self.promised().last,
            held_back: false,
            voter: restored.membership.is_voter(id),
            membership: membership_hash(&restored.membership),
            waits_for_newcomer: false,
            asleep: false,
            rotted: if whole { 0 } else { self.found.rotted.len().max(1) },
        }
    }
}

/// A node that asks what others have seen of its replicas. See the top of this file.
pub(crate) struct Recall {
    id: ReplicaId,
    /// Names this life's questions.
    ask: u64,
    /// Who has not answered: the members, and whoever else this node knows. A disk that forgot may have forgotten who the members are.
    unheard: BTreeSet<ReplicaId>,
    opened: BTreeMap<ShardId, Opened>,
    /// Of shards whose replicas cannot be opened yet: which shards there are, the system keyspace's log may have to tell first.
    logs: BTreeMap<ShardId, Promised>,
    ticks_left: u32,
    /// When the last tick counted.
    ticked: Option<Instant>,
    contradiction: Option<String>,
}

impl Recall {
    pub fn new(id: ReplicaId, known: &[NodeId], logs: &BTreeMap<ShardId, RecoveredLog>, ask: u64, ticks: u32) -> Self {
        Self {
            id,
            ask,
            unheard: known.iter().map(|node| ReplicaId(node.0)).filter(|other| *other != id).collect(),
            opened: BTreeMap::new(),
            logs: logs.iter().map(|(shard, log)| (*shard, Promised::by(log))).collect(),
            ticks_left: ticks,
            ticked: None,
            contradiction: None,
        }
    }

    /// A replica takes no part until all are believed.
    pub fn hold(&mut self, shard: ShardId, opened: Opened) {
        self.logs.remove(&shard);
        let members = opened.found.restored.membership.all().into_iter();
        self.unheard.extend(members.filter(|other| *other != self.id));
        self.opened.insert(shard, opened);
    }

    pub fn holds(&self, shard: ShardId) -> bool {
        self.opened.contains_key(&shard)
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.opened.keys().copied()
    }

    /// Whether everybody has answered or has had time to, or there is nothing that anybody could know.
    pub fn is_over(&self) -> bool {
        let fresh = self.logs.is_empty() && self.opened.values().all(Opened::is_fresh);
        fresh || self.unheard.is_empty() || self.ticks_left == 0
    }

    /// What the disk has lost, as somebody saw.
    pub fn contradiction(&self) -> Option<&String> {
        self.contradiction.as_ref()
    }

    pub fn finish(self) -> BTreeMap<ShardId, Opened> {
        self.opened
    }

    /// A watch is attached when there is something to attach it to.
    pub fn watch(&mut self, shard: ShardId, key: WatcherKey, request: WatchRequest) {
        let Some(Opened { watches, .. }) = self.opened.get_mut(&shard) else { return };
        match request {
            WatchRequest::Attach { .. } => watches.push((key, request)),
            WatchRequest::Detach => watches.retain(|(waiting, _)| *waiting != key),
            WatchRequest::Progress => {}
        }
    }

    /// Time passed: everybody who has not answered is asked again.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        // Ticks that waited while the process stood still come all at once: in that time nobody could have been heard.
        if self.ticked.is_none_or(|before| cx.now.since(before) >= cx.config.timing.tick / 2) {
            self.ticked = Some(cx.now);
            self.ticks_left = self.ticks_left.saturating_sub(1);
        }
        self.unheard.iter().for_each(|to| self.ask(*to, cx));
    }

    /// A connection to a node stands: it is asked at once.
    pub fn peer_up(&self, node: NodeId, cx: &mut Context<'_>) {
        let peer = ReplicaId(node.0);
        if self.unheard.contains(&peer) {
            self.ask(peer, cx);
        }
    }

    fn ask(&self, to: ReplicaId, cx: &mut Context<'_>) {
        let body = PeerBody::RecallAsk { ask: self.ask };
        cx.out.messages.push((node_of(to), PeerMessage { shard: FIRST_SHARDS[0], from: self.id, to, body }));
    }

    /// For consensus the replicas here are down: they listen to nothing but answers.
    pub fn hear(&mut self, from: ReplicaId, ask: u64, seen: &[(ShardId, Sighting)], sabotage: Option<Sabotage>) {
        if ask != self.ask {
            return;
        }
        self.unheard.remove(&from);
        let contradiction = seen.iter().find_map(|(shard, seen)| {
            let mut seen = *seen;
            if sabotage == Some(Sabotage::RecallTermsOnly) {
                (seen.voted, seen.acknowledged) = Default::default();
            }
            // Of a shard of which nothing is here, everything is forgotten.
            let of_log = || self.logs.get(shard).copied().unwrap_or_default();
            let Promised { hard_state, last } = self.opened.get(shard).map_or_else(of_log, Opened::promised);
            let what = seen.contradiction(from, hard_state, last)?;
            Some(format!("of {shard} {what}"))
        });
        self.contradiction = self.contradiction.take().or(contradiction);
    }

    pub fn inspect(&self, shard: ShardId) -> Option<Inspection> {
        self.opened.get(&shard).map(|opened| opened.inspect(self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_contradicts_a_disk_that_has_less_and_no_other() {
        let found = HardState { term: Term(5), vote: ReplicaId(2), commit: LogIndex(0) };
        let judge = |seen: Sighting| seen.contradiction(ReplicaId(1), found, LogIndex(10)).is_some();
        let seen = |term, voted, in_term, index| Sighting {
            term: Term(term),
            voted: Term(voted),
            acknowledged: (Term(in_term), LogIndex(index)),
        };
        assert!(!judge(Sighting::default()));
        assert!(!judge(seen(5, 0, 5, 10)), "all of it is here");
        assert!(judge(seen(6, 0, 0, 0)), "a later term");
        assert!(judge(seen(5, 0, 5, 11)), "an entry of this term");
        assert!(!judge(seen(4, 0, 4, 11)), "a later leader may have cut it");
        assert!(judge(seen(5, 5, 0, 0)), "it voted for another");
        assert!(!judge(seen(4, 4, 0, 0)), "an earlier vote");
    }

    /// A node that knows three others, and whose disk has the log of one shard, in term 3.
    fn asking() -> Recall {
        let hard_state = quorate_storage::wal::HardState {
            shard: ShardId(2),
            replica: ReplicaId(1),
            term: Term(3),
            vote: ReplicaId(0),
            commit: LogIndex(0),
        };
        let log = RecoveredLog { hard_state: Some(hard_state), ..RecoveredLog::default() };
        Recall::new(ReplicaId(1), &[1, 2, 3, 4].map(NodeId), &BTreeMap::from([(ShardId(2), log)]), 7, 10)
    }

    #[test]
    fn whoever_is_known_is_waited_for() {
        let mut recall = asking();
        for peer in [2, 3] {
            recall.hear(ReplicaId(peer), 7, &[], None);
            assert!(!recall.is_over(), "another may be a member that the disk has forgotten");
        }
        recall.hear(ReplicaId(4), 6, &[], None);
        assert!(!recall.is_over(), "that was said to a former life");
        recall.hear(ReplicaId(4), 7, &[], None);
        assert!(recall.is_over() && recall.contradiction().is_none());
        let fresh = Recall::new(ReplicaId(1), &[1, 2].map(NodeId), &BTreeMap::new(), 7, 10);
        assert!(fresh.is_over(), "it has promised nothing");
    }

    #[test]
    fn a_shard_that_the_disk_has_forgotten_contradicts_it_too() {
        let seen = Sighting { term: Term(3), ..Sighting::default() };
        let judge = |shard| {
            let mut recall = asking();
            recall.hear(ReplicaId(2), 7, &[(ShardId(shard), seen)], None);
            recall.contradiction().is_some()
        };
        assert!(!judge(2), "its log has that term");
        assert!(judge(17), "nothing of that shard is here");
    }
}
