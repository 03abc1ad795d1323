//! What this node is asked of shards that it has no replica of: `outpost.rs` says how one such shard is asked elsewhere.

use super::Node;
use crate::ack_wait::AckWait;
use crate::config::Sabotage;
use crate::input::{Reply, RequestId};
use crate::outpost::Outpost;
use crate::proposals::Proposals;
use crate::replica::{Commands, Replica};
use crate::wire::{Answer, PeerBody, PeerMessage, node_of};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, ShardId};
use quorate_kv::{Command, CommandId, Error, SessionId, Unavailable};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Outposts {
    /// One for each session: a replica that has no vote any more leaves what it was asked for, under the session's ids.
    posts: BTreeMap<(ShardId, SessionId), Outpost>,
}

impl Outposts {
    /// Whether a client waits for an answer from elsewhere.
    pub fn is_needed(&self) -> bool {
        self.posts.values().any(Outpost::is_needed)
    }

    /// How far a shard's log was when it was last heard of.
    pub fn applied(&self, shard: ShardId) -> Option<LogIndex> {
        self.posts.range(sessions(shard)).filter_map(|(_, post)| post.applied()).max()
    }

    /// What a replica was asked for that cannot answer any more.
    pub fn take_over(&mut self, shard: ShardId, Commands { proposals, applied, leader }: Commands, now: Instant) {
        let post = Outpost::new(proposals, Some(applied), now).of_leader(leader);
        if post.is_needed() || self.of(shard).next().is_none() {
            self.posts.insert((shard, post.session()), post);
        }
    }

    fn of(&mut self, shard: ShardId) -> impl Iterator<Item = &mut Outpost> {
        self.posts.range_mut(sessions(shard)).map(|(_, post)| post)
    }
}

fn sessions(shard: ShardId) -> RangeInclusive<(ShardId, SessionId)> {
    (shard, SessionId(0))..=(shard, SessionId(u64::MAX))
}

impl Node {
    /// Whether commands for a shard go through the replica here. One that has no vote may get its rows without the outcomes of commands.
    pub(super) fn is_served_here(&self, shard: ShardId) -> bool {
        if self.system.placements.of(shard).is_none() {
            return true;
        }
        self.replicas.get(&shard).is_some_and(Replica::votes)
    }

    fn outpost(&mut self, now: Instant, shard: ShardId) -> &mut Outpost {
        let Self { outposts: Outposts { posts }, rng, .. } = self;
        let known = posts.range(sessions(shard)).next().map(|((_, session), _)| *session);
        let session = known.unwrap_or_else(|| SessionId(rng.next_u64()));
        posts.entry((shard, session)).or_insert_with(|| Outpost::new(Proposals::new(session), None, now))
    }

    /// What replicas here were asked for, and have no vote any more to see to, others are asked.
    fn hand_over(&mut self, now: Instant) {
        let powerless = |shard: &ShardId| {
            let asked = self.replicas.get(shard).is_some_and(|replica| !replica.votes() && replica.has_commands());
            asked && !self.is_served_here(*shard)
        };
        let powerless: Vec<ShardId> = self.sleepers.awake().filter(powerless).collect();
        for shard in powerless {
            let session = SessionId(self.rng.next_u64());
            if let Some(replica) = self.replicas.get_mut(&shard) {
                let mut commands = replica.give_commands_away(session);
                if self.shared.config.sabotage == Some(Sabotage::AskAnew) {
                    commands.proposals.ask_anew();
                }
                self.outposts.take_over(shard, commands, now);
            }
        }
    }

    /// A client submits a command to a shard that is elsewhere.
    pub(super) fn submit_elsewhere(
        &mut self,
        now: Instant,
        id: RequestId,
        (shard, command): (ShardId, (Command, AckWait)),
        deadline: Instant,
    ) {
        if let Err(why) = self.outpost(now, shard).submit(id, command, deadline, now) {
            return self.shared.out.replies.push((id, Err(why.into())));
        }
        self.send_petitions(now);
    }

    /// Transactions want to know how far the logs of these shards are.
    pub(super) fn ask_how_far(&mut self, now: Instant, shards: impl IntoIterator<Item = ShardId>) {
        for shard in shards {
            if self.system.placements.of(shard).is_some() && !self.is_here(shard) {
                self.outpost(now, shard).ask_how_far(now);
            }
        }
        self.send_petitions(now);
    }

    /// Sends what waits to be sent.
    pub(super) fn send_petitions(&mut self, now: Instant) {
        let own = self.shared.config.node;
        let Self { outposts, system, shared, .. } = self;
        for ((shard, _), post) in
            outposts.posts.iter_mut().filter(|(_, post)| post.has_petitions() || post.holds_answers())
        {
            let mut hosts = system.placements.hosts(*shard);
            hosts.retain(|host| *host != own);
            let question = post.question(now, &hosts).map(|(to, index)| (to, PeerBody::EverywhereAsk { index }));
            let petitions = post.petitions(now, &hosts).into_iter();
            for (to, body) in petitions.map(|(to, envelopes)| (to, PeerBody::Petition(envelopes))).chain(question) {
                let message = PeerMessage { shard: *shard, from: ReplicaId(own.0), to: ReplicaId(to.0), body };
                shared.out.messages.push((to, message));
            }
        }
    }

    pub(super) fn tick_outposts(&mut self, now: Instant) {
        self.hand_over(now);
        let sabotage = self.shared.config.sabotage;
        for post in self.outposts.posts.values_mut() {
            self.shared.out.replies.extend(post.tick(now, sabotage));
        }
        self.release_answers(now);
        self.outposts.posts.retain(|_, post| !post.is_idle(now));
        self.send_petitions(now);
    }

    /// Tells those who waited for more than that their commands were done.
    fn release_answers(&mut self, now: Instant) {
        let Self { outposts, shared, .. } = self;
        for post in outposts.posts.values_mut().filter(|post| post.holds_answers()) {
            let cx = shared.context(now);
            let told = post.release(|at| cx.is_over(at));
            shared.out.replies.extend(told);
        }
    }

    /// A leader elsewhere says what all voters have.
    pub(super) fn hear_everywhere(&mut self, now: Instant, shard: ShardId, index: LogIndex) {
        self.outposts.of(shard).for_each(|post| post.hear_everywhere(index, now));
        self.release_answers(now);
    }

    /// A leader elsewhere says what will come of commands.
    pub(super) fn hear_early(&mut self, shard: ShardId, mut answers: Vec<(CommandId, Answer)>) {
        let Self { outposts, shared, .. } = self;
        for post in outposts.of(shard) {
            shared.out.replies.extend(post.hear_early(of_session(&mut answers, post.session())));
        }
    }

    /// A node is gone: what it was asked, another is.
    pub(super) fn outposts_lose(&mut self, now: Instant, node: NodeId) {
        self.outposts.posts.values_mut().for_each(|post| post.not_there(node, now));
        self.send_petitions(now);
    }

    pub(super) fn stop_outposts(&mut self) {
        let told = self.outposts.posts.values_mut().flat_map(Outpost::stop);
        self.shared.out.replies.extend(told);
    }

    /// An answer to a petition.
    pub(super) fn hear_answers(
        &mut self,
        now: Instant,
        (shard, from): (ShardId, ReplicaId),
        (leader, applied): (Option<ReplicaId>, LogIndex),
        mut answers: Vec<(CommandId, Answer)>,
    ) {
        let Self { outposts, shared, .. } = self;
        for post in outposts.of(shard) {
            let own = of_session(&mut answers, post.session());
            shared.out.replies.extend(post.hear(node_of(from), leader.map(node_of), applied, own, now));
        }
        self.send_petitions(now);
    }

    pub(super) fn hear_not_here(&mut self, now: Instant, shard: ShardId, from: ReplicaId) {
        self.outposts.of(shard).for_each(|post| post.not_there(node_of(from), now));
        self.looking.not_there(shard, now);
        self.send_petitions(now);
    }

    /// Tells a client that what it wants only a replica can give, and there is none here.
    pub(super) fn refer(&mut self, id: RequestId) {
        let answer: Result<Reply, Error> = Err(Unavailable::NotHere.into());
        self.shared.out.replies.push((id, answer));
    }
}

/// Takes out what is said of a session's commands.
fn of_session(answers: &mut Vec<(CommandId, Answer)>, session: SessionId) -> Vec<(CommandId, Answer)> {
    answers.extract_if(.., |(id, _)| id.session == session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{Applied, Header, Op, Outcome, PutOp, Revision, Txn};
    use std::time::Duration;

    const SHARD: ShardId = ShardId(20);

    fn at(ms: u64) -> Instant {
        Instant(0) + Duration::from_millis(ms)
    }

    fn left(session: u64, applied: u64, requests: &[RequestId]) -> Commands {
        let mut proposals = Proposals::new(SessionId(session));
        for request in requests {
            let put = Command::Transact(Txn::just(Op::Put(PutOp::of("k", "v"))));
            proposals.submit(*request, put, AckWait::default(), at(5_000)).expect("room");
        }
        Commands { proposals, applied: LogIndex(applied), leader: Some(NodeId(3)) }
    }

    fn done(session: u64) -> (CommandId, Answer) {
        let header = Header { revision: Revision(2), term: quorate_env::Term(1) };
        let id = CommandId { session: SessionId(session), seq: 1 };
        (id, Answer::Given(Ok(Applied { header, outcome: Outcome::Compacted })))
    }

    #[test]
    fn what_two_replicas_left_one_after_the_other_is_asked_for_under_the_ids_that_it_has() {
        let mut outposts = Outposts::default();
        outposts.take_over(SHARD, left(7, 4, &[1]), at(0));
        outposts.take_over(SHARD, left(8, 9, &[2]), at(0));
        outposts.take_over(ShardId(21), left(9, 30, &[3]), at(0));
        assert_eq!(outposts.applied(SHARD), Some(LogIndex(9)));
        for post in outposts.of(SHARD) {
            let asked = post.petitions(at(1), &[NodeId(2), NodeId(3)]);
            let [(to, envelopes)] = &asked[..] else { panic!("one message each: {asked:?}") };
            assert_eq!((*to, envelopes.len()), (NodeId(3), 1), "its leader first");
            assert_eq!(envelopes[0].id, CommandId { session: post.session(), seq: 1 });
        }
        let mut answers = vec![done(8), done(7)];
        let mut told = Vec::new();
        for post in outposts.of(SHARD) {
            let own = of_session(&mut answers, post.session());
            told.extend(post.hear(NodeId(3), None, LogIndex(10), own, at(2)).into_iter().map(|(request, _)| request));
        }
        assert_eq!((told, answers.len()), (vec![1, 2], 0));
        assert!(outposts.is_needed(), "the other shard's still waits");
    }

    #[test]
    fn a_replica_that_leaves_nothing_behind_says_how_far_it_was_where_nobody_knows() {
        let mut outposts = Outposts::default();
        outposts.take_over(SHARD, left(7, 4, &[]), at(0));
        outposts.take_over(SHARD, left(8, 9, &[]), at(0));
        assert_eq!((outposts.posts.len(), outposts.applied(SHARD)), (1, Some(LogIndex(4))));
        assert!(!outposts.is_needed());
    }
}
