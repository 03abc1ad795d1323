//! What this node is asked of shards that it has no replica of: `outpost.rs` says how one such shard is asked elsewhere.

use super::Node;
use crate::ack_wait::AckWait;
use crate::input::{Reply, RequestId};
use crate::outpost::Outpost;
use crate::proposals::Proposals;
use crate::replica::Replica;
use crate::wire::{Answer, PeerBody, PeerMessage, node_of};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, ShardId};
use quorate_kv::{Command, CommandId, Error, SessionId, Unavailable};
use std::collections::BTreeMap;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Outposts {
    posts: BTreeMap<ShardId, Outpost>,
}

impl Outposts {
    /// Whether a client waits for an answer from elsewhere.
    pub fn is_needed(&self) -> bool {
        self.posts.values().any(Outpost::is_needed)
    }

    pub fn applied(&self, shard: ShardId) -> Option<LogIndex> {
        self.posts.get(&shard).and_then(Outpost::applied)
    }

    /// A replica is gone that was asked for something.
    pub fn take_over(
        &mut self,
        shard: ShardId,
        mut proposals: Proposals,
        applied: LogIndex,
        now: Instant,
    ) -> Vec<(RequestId, Error)> {
        if self.posts.contains_key(&shard) {
            // Commands of two sessions: those of the later one end here.
            return proposals.stop();
        }
        self.posts.insert(shard, Outpost::new(proposals, Some(applied), now));
        Vec::new()
    }
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
        let Self { outposts, rng, .. } = self;
        outposts
            .posts
            .entry(shard)
            .or_insert_with(|| Outpost::new(Proposals::new(SessionId(rng.next_u64())), None, now))
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
        for (shard, post) in outposts.posts.iter_mut().filter(|(_, post)| post.has_petitions() || post.holds_answers())
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
        if let Some(post) = self.outposts.posts.get_mut(&shard) {
            post.hear_everywhere(index, now);
        }
        self.release_answers(now);
    }

    /// A leader elsewhere says what will come of commands.
    pub(super) fn hear_early(&mut self, shard: ShardId, answers: Vec<(CommandId, Answer)>) {
        if let Some(post) = self.outposts.posts.get_mut(&shard) {
            self.shared.out.replies.extend(post.hear_early(answers));
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
        answers: Vec<(CommandId, Answer)>,
    ) {
        if let Some(post) = self.outposts.posts.get_mut(&shard) {
            let told = post.hear(node_of(from), leader.map(node_of), applied, answers, now);
            self.shared.out.replies.extend(told);
        }
        self.send_petitions(now);
    }

    pub(super) fn hear_not_here(&mut self, now: Instant, shard: ShardId, from: ReplicaId) {
        if let Some(post) = self.outposts.posts.get_mut(&shard) {
            post.not_there(node_of(from), now);
        }
        self.looking.not_there(shard, now);
        self.send_petitions(now);
    }

    /// Tells a client that what it wants only a replica can give, and there is none here.
    pub(super) fn refer(&mut self, id: RequestId) {
        let answer: Result<Reply, Error> = Err(Unavailable::NotHere.into());
        self.shared.out.replies.push((id, answer));
    }
}
