//! Whom a read is asked that is no transaction: the replica here, if there is one, and else one elsewhere. `looking.rs` knows what is asked and why.

use super::Node;
use crate::bounds::MOMENT_AHEAD_MAX;
use crate::input::RequestId;
use crate::keyspaces::Keyspaces;
use crate::looking::{Asker, Looking, Observed, Question};
use crate::replica::{Glance, Replica};
use crate::wire::{PeerBody, PeerMessage, node_of};
use quorate_env::{Instant, ReplicaId, ShardId, Timestamp, WallMs};
use quorate_kv::across::{Look, PartResult, Transaction};
use quorate_kv::{Error, Freshness, Refusal};

impl Node {
    /// A client looks. What must be one moment of several shards that is *now* is a transaction.
    pub(super) fn look(
        &mut self,
        now: Instant,
        id: RequestId,
        (looks, freshness): (Vec<Look>, Freshness),
        deadline: Instant,
    ) {
        if let Some(refusal) = self.lies_ahead(freshness.moment().unwrap_or_default()) {
            return self.shared.out.replies.push((id, Err(refusal.into())));
        }
        if freshness == Freshness::Strict && self.spans_shards(&looks) {
            let transaction = Transaction { looks, ..Transaction::default() };
            return self.with_across(now, |across, at| across.begin(id, transaction, deadline, at));
        }
        self.with_looking(|looking, keyspaces| looking.begin(id, looks, freshness, deadline, keyspaces, now));
    }

    /// Refuses a client's moment that no clock says it is: adopting it would put the cluster's clocks ahead.
    pub(super) fn lies_ahead(&self, at: Timestamp) -> Option<Refusal> {
        let latest = WallMs(self.shared.wall.0 + MOMENT_AHEAD_MAX.as_millis() as u64);
        if at <= Timestamp::of(latest) {
            return None;
        }
        // Somebody's clock may be far ahead, and what was done by it has come here. That is no reason to go further ahead.
        let now = self.replicas.values().map(Replica::clock).max().unwrap_or_default();
        let now = now.max(Timestamp::of(self.shared.wall));
        (at > now).then_some(Refusal::MomentAhead { at, now })
    }

    fn spans_shards(&self, looks: &[Look]) -> bool {
        let keyspaces = &self.system.keyspaces;
        let all = looks.iter().filter_map(|look| Some(keyspaces.get(look.keyspace)?.pieces(&look.range)));
        let mut shards = all.flatten().map(|(shard, _)| shard);
        let first = shards.next();
        shards.any(|shard| Some(shard) != first)
    }

    pub(super) fn with_looking(&mut self, f: impl FnOnce(&mut Looking, &Keyspaces)) {
        f(&mut self.looking, &self.system.keyspaces);
    }

    /// Asks what is to be asked, and tells clients what came of it.
    pub(super) fn move_looking(&mut self, now: Instant) {
        for (ask, shard, why) in std::mem::take(&mut self.shared.out.unseen) {
            self.with_looking(|looking, keyspaces| looking.answered((ask, shard), Err(why), keyspaces, now));
        }
        for question in self.looking.take_questions() {
            self.ask_replica(now, question);
        }
        self.shared.out.replies.extend(self.looking.take_replies());
    }

    fn ask_replica(&mut self, now: Instant, question: Question) {
        let Question { ask, shard, freshness, reads, deadline, tried } = question;
        if self.system.keyspaces.is_merged(shard) {
            let key = reads.first().map(|read| read.range.start.clone()).unwrap_or_default();
            let moved = Error::Refused(Refusal::Moved { key });
            return self.with_looking(|looking, keyspaces| looking.answered((ask, shard), Err(moved), keyspaces, now));
        }
        if self.replicas.contains_key(&shard) {
            let glance = Glance { asker: Asker::Here(ask), freshness, reads, deadline };
            return self.one(now, shard, |replica, cx| replica.look(glance, cx));
        }
        let own = self.shared.config.node;
        let mut hosts = self.system.placements.hosts(shard);
        hosts.retain(|host| *host != own);
        // With none it is asked again later.
        if let Some(to) = (!hosts.is_empty()).then(|| hosts[tried % hosts.len()]) {
            let body = PeerBody::LookAsk { ask, freshness, reads };
            let message = PeerMessage { shard, from: ReplicaId(own.0), to: ReplicaId(to.0), body };
            self.shared.out.messages.push((to, message));
        }
    }

    /// A read is done.
    pub(super) fn observed(&mut self, now: Instant, observed: Observed) {
        let Observed { shard, asker, sight } = observed;
        let sight = match sight {
            Ok(sight) => sight,
            Err((why, lost)) => {
                self.shared.out.lost = self.shared.out.lost.or(lost);
                self.shared.out.fatal.get_or_insert(why);
                return;
            }
        };
        match asker {
            Asker::Here(ask) => self.hear_sight(now, (ask, shard), sight),
            Asker::Peer { replica, ask } => {
                let body = PeerBody::LookAnswer { ask, sight };
                let from = ReplicaId(self.shared.config.node.0);
                self.shared.out.messages.push((node_of(replica), PeerMessage { shard, from, to: replica, body }));
            }
        }
    }

    /// What a replica here or elsewhere has seen.
    pub(super) fn hear_sight(&mut self, now: Instant, at: (u64, ShardId), sight: Result<PartResult, Refusal>) {
        self.with_looking(|looking, keyspaces| looking.answered(at, sight.map_err(Error::Refused), keyspaces, now));
    }
}
