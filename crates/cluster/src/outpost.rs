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

use crate::ack_wait::{AckWait, Everywhere, moment_of};
use crate::bounds::{OUTPOST_IDLE, RETRY};
use crate::config::Sabotage;
use crate::input::{Reply, RequestId};
use crate::proposals::Proposals;
use crate::wire::Answer;
use quorate_env::{Instant, LogIndex, NodeId, Timestamp};
use quorate_kv::{Command, CommandId, Envelope, Error, SessionId, Unavailable};

/// What a client is told.
type Told = (RequestId, Result<Reply, Error>);

/// See the top of this file.
pub(crate) struct Outpost {
    proposals: Proposals,
    everywhere: Everywhere,
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
        let (everywhere, to, heard, used) = (Everywhere::default(), None, now, now);
        Self { proposals, everywhere, to, tried: 0, turned: false, applied, asks_how_far: false, heard, used }
    }

    /// It is known who leads: that one is asked first.
    pub fn of_leader(self, leader: Option<NodeId>) -> Self {
        Self { to: leader, ..self }
    }

    /// Whose commands these are.
    pub fn session(&self) -> SessionId {
        self.proposals.session()
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
        (command, wait): (Command, AckWait),
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Unavailable> {
        self.wake(now);
        self.proposals.submit(request, command, wait, deadline)
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

    /// Whether there is something to send.
    pub fn has_petitions(&self) -> bool {
        !self.turned && (self.asks_how_far || self.proposals.has_unsent())
    }

    /// What to send, and to whom. `hosts` are those who may have a replica.
    pub fn petitions(&mut self, now: Instant, hosts: &[NodeId]) -> Vec<(NodeId, Vec<Envelope>)> {
        if hosts.is_empty() || !self.has_petitions() {
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

    /// Whom to ask whether all voters have an entry for which a client waits.
    pub fn question(&mut self, now: Instant, hosts: &[NodeId]) -> Option<(NodeId, LogIndex)> {
        let wanted = self.proposals.wants_everywhere()?;
        let to = self.to.or_else(|| hosts.get(self.tried % hosts.len().max(1)).copied())?;
        self.everywhere.must_ask(wanted, now).then_some((to, wanted))
    }

    /// All voters have everything up to an entry.
    pub fn hear_everywhere(&mut self, index: LogIndex, now: Instant) {
        self.everywhere.hear(index);
        self.heard = now;
    }

    /// Whether something was done and is not told yet.
    pub fn holds_answers(&self) -> bool {
        self.proposals.holds_answers()
    }

    /// Whom to tell what, of those who waited for all voters or for clocks.
    pub fn release(&mut self, over: impl Fn(Timestamp) -> bool) -> Vec<Told> {
        let told = self.proposals.release(self.everywhere.known(), over).into_iter();
        told.map(|(request, applied)| (request, Ok(Reply::Applied(applied)))).collect()
    }

    /// The leader says what will come of commands.
    pub fn hear_early(&mut self, answers: Vec<(CommandId, Answer)>) -> Vec<Told> {
        self.proposals.hear_early(answers)
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
            match answer {
                Answer::Given(result) => {
                    let at = result.as_ref().map_or(Timestamp::ZERO, moment_of);
                    if let Some((request, result)) = self.proposals.outcome(id, result, (applied, at)) {
                        told.push((request, result.map(Reply::Applied).map_err(Error::Refused)));
                    }
                }
                Answer::Forgotten if self.proposals.is_done(id) => {}
                Answer::Forgotten => {
                    let request = self.proposals.complete(id);
                    told.extend(request.map(|request| (request, Err(Error::UnknownOutcome(id)))));
                }
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Term;
    use quorate_kv::{Applied, Header, Op, Outcome, PutOp, Refusal, Revision, SessionId, Txn, across::TxId};
    use std::time::Duration;

    const HOSTS: [NodeId; 2] = [NodeId(2), NodeId(3)];

    fn at(ms: u64) -> Instant {
        Instant(0) + Duration::from_millis(ms)
    }

    fn asking(requests: u64) -> Outpost {
        let mut post = Outpost::new(Proposals::new(SessionId(7)), None, at(0));
        for request in 1..=requests {
            let put = Command::Transact(Txn::just(Op::Put(PutOp::of("k", "v"))));
            post.submit(request, (put, AckWait::default()), at(5_000), at(0)).expect("room");
        }
        post
    }

    /// Whom it asks now, and for which commands.
    fn asked(post: &mut Outpost, now: Instant) -> Vec<(u64, Vec<u64>)> {
        let petitions = post.petitions(now, &HOSTS).into_iter();
        petitions.map(|(to, envelopes)| (to.0, envelopes.iter().map(|it| it.id.seq).collect())).collect()
    }

    fn id(seq: u64) -> CommandId {
        CommandId { session: SessionId(7), seq }
    }

    fn done() -> Answer {
        let header = Header { revision: Revision(2), term: Term(1) };
        Answer::Given(Ok(Applied { header, outcome: Outcome::Compacted }))
    }

    /// What clients are told of answers from a node.
    fn told(post: &mut Outpost, from: u64, leader: Option<u64>, answers: Vec<(CommandId, Answer)>) -> Vec<String> {
        let told = post.hear(NodeId(from), leader.map(NodeId), LogIndex(9), answers, at(1));
        told.into_iter()
            .map(|(request, answer)| format!("{request}: {}", answer.map_or_else(|e| e.to_string(), |_| "done".into())))
            .collect()
    }

    #[test]
    fn a_command_is_asked_for_under_one_id_wherever_it_is_asked_for() {
        let mut post = asking(2);
        assert_eq!(asked(&mut post, at(0)), [(2, vec![1, 2])]);
        assert!(asked(&mut post, at(1)).is_empty(), "once");
        assert_eq!(told(&mut post, 2, Some(3), vec![(id(1), done())]), ["1: done"]);
        assert_eq!(post.applied(), Some(LogIndex(9)));
        // The other one's answer does not come.
        assert!(post.tick(at(600), None).is_empty());
        assert_eq!(asked(&mut post, at(600)), [(3, vec![2])], "another replica");
        assert_eq!(told(&mut post, 3, Some(3), vec![(id(2), done()), (id(1), done())]), ["2: done"], "told once");
        assert!(!post.is_needed());
    }

    #[test]
    fn whoever_leads_is_asked_next_and_who_is_gone_is_not() {
        let mut post = asking(1);
        assert_eq!(asked(&mut post, at(0)), [(2, vec![1])]);
        assert_eq!(told(&mut post, 2, Some(3), vec![(id(1), done())]), ["1: done"]);
        let put = Command::Transact(Txn::just(Op::Put(PutOp::of("k", "v"))));
        post.submit(2, (put, AckWait::default()), at(5_000), at(2)).expect("room");
        assert_eq!(asked(&mut post, at(2)), [(3, vec![2])]);
        post.not_there(NodeId(2), at(3));
        assert!(asked(&mut post, at(3)).is_empty(), "it was asked nothing");
        post.not_there(NodeId(3), at(3));
        assert!(asked(&mut post, at(3)).is_empty(), "where nobody can help, questions do not go round and round");
        post.tick(at(20), None);
        assert_eq!(asked(&mut post, at(20)), [(3, vec![2])], "the next of those who may have it");
        post.not_there(NodeId(3), at(21));
        post.tick(at(40), None);
        assert_eq!(asked(&mut post, at(40)), [(2, vec![2])]);
    }

    #[test]
    fn what_was_applied_and_is_forgotten_is_unknown_and_what_met_a_lock_is_not() {
        let mut post = asking(2);
        asked(&mut post, at(0));
        let unknown = told(&mut post, 2, None, vec![(id(1), Answer::Forgotten)]);
        assert!(unknown[0].starts_with("1: the outcome of command"), "{unknown:?}");
        let locked = Answer::Given(Err(Refusal::Locked { key: "k".into(), by: TxId(4) }));
        assert!(told(&mut post, 2, None, vec![(id(2), locked)]).is_empty(), "it is tried again");
        post.tick(at(20), None);
        assert_eq!(asked(&mut post, at(20)), [(2, vec![2])]);
    }

    #[test]
    fn what_never_left_did_not_happen() {
        let mut post = asking(1);
        assert!(post.petitions(at(0), &[]).is_empty());
        assert!(matches!(&post.tick(at(5_000), None)[..], [(1, Err(Error::Unavailable(_)))]));
        let mut post = asking(1);
        asked(&mut post, at(0));
        assert!(matches!(&post.tick(at(5_000), None)[..], [(1, Err(Error::UnknownOutcome(_)))]));
        assert!(!post.is_idle(at(10_000)) && post.is_idle(at(61_000)));
    }

    #[test]
    fn who_waits_for_all_voters_is_told_when_they_have_it() {
        let mut post = Outpost::new(Proposals::new(SessionId(7)), None, at(0));
        let put = Command::Transact(Txn::just(Op::Put(PutOp::of("k", "v"))));
        let everywhere = AckWait { everywhere: true, ..AckWait::default() };
        post.submit(1, (put, everywhere), at(5_000), at(0)).expect("room");
        asked(&mut post, at(0));
        assert_eq!(post.question(at(0), &HOSTS), None, "nothing was done yet");
        assert!(told(&mut post, 2, Some(3), vec![(id(1), done())]).is_empty());
        assert!(told(&mut post, 2, Some(3), vec![(id(1), Answer::Forgotten)]).is_empty(), "it is known here");
        assert_eq!(post.question(at(1), &HOSTS), Some((NodeId(3), LogIndex(9))), "whoever leads knows");
        assert_eq!(post.question(at(2), &HOSTS), None, "once");
        assert!(post.release(|_| false).is_empty());
        post.hear_everywhere(LogIndex(9), at(3));
        assert!(matches!(&post.release(|_| false)[..], [(1, Ok(Reply::Applied(_)))]));
        assert!(!post.is_needed());
    }

    #[test]
    fn it_is_idle_when_nobody_waits_and_nobody_has_asked_for_long() {
        let long = at(0) + OUTPOST_IDLE;
        let mut post = asking(1);
        asked(&mut post, at(0));
        assert!(!post.is_idle(long), "somebody waits");
        assert_eq!(told(&mut post, 2, None, vec![(id(1), done())]), ["1: done"]);
        assert!(!post.is_idle(long - Duration::from_millis(1)));
        assert!(post.is_idle(long));
        post.ask_how_far(long);
        assert!(!post.is_idle(long));
    }

    #[test]
    fn how_far_a_log_is_is_asked_until_it_is_known() {
        let mut post = Outpost::new(Proposals::new(SessionId(7)), None, at(0));
        assert!(asked(&mut post, at(0)).is_empty());
        post.ask_how_far(at(0));
        assert_eq!(asked(&mut post, at(0)), [(2, vec![])]);
        assert!(asked(&mut post, at(0)).is_empty(), "once");
        assert!(told(&mut post, 2, None, Vec::new()).is_empty());
        post.ask_how_far(at(1));
        assert!(asked(&mut post, at(1)).is_empty(), "it is known");
    }
}
