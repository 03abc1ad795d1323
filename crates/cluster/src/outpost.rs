//! What stands for a shard that this node has no replica of: commands of this node's clients go to a node that has one, and their answers come back.
//!
//! ```text
//!   submit ──> Petition ──> a replica ──(it follows)──> Forward ──> its leader
//!                 ^            │ the entry is applied there
//!                 │            v
//!                 └──────── Answers: what came of it, who leads, how far the log is
//! ```
//!
//! A command keeps its id, so it is sent again, and to another replica, as often as it takes: the session table drops what was applied. A replica keeps answers until
//! the next petition says that they have arrived. Where nobody knows any more what came of a command that was applied, its outcome is unknown, and
//! the client hears that.

use crate::bounds::{OUTPOST_IDLE, RETRY};
use crate::config::Sabotage;
use crate::input::{Reply, RequestId};
use crate::proposals::Proposals;
use crate::wire::Answer;
use quorate_env::{Instant, LogIndex, NodeId};
use quorate_kv::{Command, CommandId, Envelope, Error, Unavailable};

/// What a client is told.
type Told = (RequestId, Result<Reply, Error>);

/// See the top of this file.
pub(crate) struct Outpost {
    proposals: Proposals,
    /// Whom it asks.
    to: Option<NodeId>,
    /// How many of the hosts it has asked in vain.
    tried: usize,
    /// Whether another is to be asked with the next tick.
    turned: bool,
    /// What the shard's log had applied when it was last heard of.
    applied: Option<LogIndex>,
    /// Whether only that is asked for.
    asks_how_far: bool,
    /// When an answer last came, or what is outstanding was first asked.
    heard: Instant,
    /// When a client last asked for something.
    used: Instant,
}

impl Outpost {
    /// Takes what a replica was asked for that is not here any more, or what nobody has asked for yet.
    pub fn new(mut proposals: Proposals, applied: Option<LogIndex>, now: Instant) -> Self {
        proposals.resend_all();
        Self { proposals, to: None, tried: 0, turned: false, applied, asks_how_far: false, heard: now, used: now }
    }

    /// How far the shard's log was when it was last heard of; asks for it, if it was never.
    pub fn applied(&self) -> Option<LogIndex> {
        self.applied
    }

    /// Somebody must know how far the log is.
    pub fn ask_how_far(&mut self, now: Instant) {
        self.wake(now);
        self.asks_how_far |= self.applied.is_none();
    }

    /// Accepts a client's command, or refuses it for overload.
    pub fn submit(
        &mut self,
        request: RequestId,
        command: Command,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Unavailable> {
        self.wake(now);
        self.proposals.submit(request, command, deadline)
    }

    fn wake(&mut self, now: Instant) {
        self.used = now;
        if !self.waits() {
            self.heard = now;
        }
    }

    fn waits(&self) -> bool {
        self.asks_how_far || self.proposals.outstanding_count() > 0
    }

    /// Whether nobody has needed it for long.
    pub fn is_idle(&self, now: Instant) -> bool {
        !self.waits() && now.since(self.used) >= OUTPOST_IDLE
    }

    /// Whether a client waits for an answer.
    pub fn is_needed(&self) -> bool {
        self.proposals.outstanding_count() > 0
    }

    /// Time passes: what met a lock is tried again, who does not answer is not asked again, and whose time is up is told what is known.
    pub fn tick(&mut self, now: Instant, sabotage: Option<Sabotage>) -> Vec<Told> {
        self.proposals.resend_postponed();
        let given_up = self.proposals.tick(now, sabotage);
        if self.waits() && now.since(self.heard) >= RETRY {
            self.turn_away(now);
        }
        if std::mem::take(&mut self.turned) {
            self.proposals.resend_all();
            self.asks_how_far |= self.applied.is_none();
        }
        given_up.into_iter().map(|(request, error)| (request, Err(error))).collect()
    }

    /// Gives everything up: the node stops.
    pub fn stop(&mut self) -> Vec<Told> {
        self.proposals.stop().into_iter().map(|(request, error)| (request, Err(error))).collect()
    }

    fn turn_away(&mut self, now: Instant) {
        self.to = None;
        self.tried += 1;
        self.heard = now;
        self.turned = true;
    }

    /// A node cannot help, or is gone. Another is asked with the next tick: where none can help, that is soon enough.
    pub fn not_there(&mut self, node: NodeId, now: Instant) {
        if self.to == Some(node) {
            self.turn_away(now);
        }
    }

    /// What to send, and to whom. `hosts` are those who may have a replica.
    pub fn petitions(&mut self, now: Instant, hosts: &[NodeId]) -> Vec<(NodeId, Vec<Envelope>)> {
        if hosts.is_empty() || self.turned || !(self.asks_how_far || self.proposals.has_unsent()) {
            return Vec::new();
        }
        let to = *self.to.get_or_insert(hosts[self.tried % hosts.len()]);
        let mut petitions = Vec::new();
        while self.proposals.has_unsent() {
            petitions.extend(Some(self.proposals.forward(now)).filter(|envelopes| !envelopes.is_empty()));
        }
        if petitions.is_empty() && std::mem::take(&mut self.asks_how_far) {
            petitions.push(Vec::new());
        }
        self.asks_how_far = false;
        petitions.into_iter().map(|envelopes| (to, envelopes)).collect()
    }

    /// A replica answers.
    pub fn hear(
        &mut self,
        from: NodeId,
        leader: Option<NodeId>,
        applied: LogIndex,
        answers: Vec<(CommandId, Answer)>,
        now: Instant,
    ) -> Vec<Told> {
        self.applied = self.applied.max(Some(applied));
        if self.to == Some(from) {
            (self.heard, self.tried) = (now, 0);
        }
        // From now on whoever leads is asked: that is one way less.
        self.to = leader.or(self.to);
        let mut told = Vec::new();
        for (id, answer) in answers {
            if let Answer::Given(Err(refusal)) = &answer
                && matches!(refusal, quorate_kv::Refusal::Locked { .. })
                && self.proposals.postpone(id, refusal)
            {
                continue;
            }
            if let Some(request) = self.proposals.complete(id) {
                told.push((
                    request,
                    match answer {
                        Answer::Given(result) => result.map(Reply::Applied).map_err(Error::Refused),
                        Answer::Forgotten => Err(Error::UnknownOutcome(id)),
                    },
                ));
            }
        }
        told
    }
}
