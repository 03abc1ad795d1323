//! What the system keyspace's rows mean for this node: which groups it takes part in, and what it says of itself there.

use super::{FIRST_SHARDS, Node, TELLING};
use crate::bounds::RETRY;
use crate::config::Sabotage;
use crate::input::Request;
use crate::members::{Roster, Wanted};
use crate::replica::Replica;
use crate::wire::node_of;
use quorate_consensus::Membership;
use quorate_env::{Instant, ReplicaId};
use quorate_kv::{Command, Level};

impl Node {
    /// Lets the groups that this node leads take a step towards what the members' rows ask for.
    pub(super) fn reshape(&mut self, now: Instant) {
        let (roster, placements) = (self.system.roster.clone(), self.system.placements.clone());
        let keyspaces = self.system.keyspaces.clone();
        let whole = self.is_whole();
        let elsewhere = self.groups_of_leavers(&roster);
        let needed = |id: ReplicaId| {
            !whole || elsewhere.iter().any(|group| group.contains(id)) || placements.may_use(node_of(id))
        };
        for shard in self.sleepers.awake().collect::<Vec<_>>() {
            let last = shard == FIRST_SHARDS[0] && self.shared.config.sabotage != Some(Sabotage::LeaveSystemFirst);
            let stays = |id: ReplicaId| last && needed(id);
            let wishes = placements.wishes(shard, &roster);
            let wait = keyspaces.ack_wait(shard);
            self.one(now, shard, |replica, cx| {
                replica.want_early(wait.is_for_less());
                replica.reshape((&wishes, wait.everywhere), &stays, cx);
            });
        }
        self.move_on(now);
    }

    /// A node learns from the system keyspace that it is to go. So that is the last group that it leaves: a leader elsewhere that missed its own
    /// removal would lead there for ever. These are all others, if anybody is to go.
    pub(super) fn groups_of_leavers(&self, roster: &Roster) -> Vec<Membership> {
        let system = self.replicas.get(&FIRST_SHARDS[0]).map(Replica::membership).unwrap_or_default();
        if !system.all().into_iter().any(|id| roster.wanted(id) == Some(Wanted::Gone)) {
            return Vec::new();
        }
        let others = self.replicas.iter().filter(|(shard, _)| **shard != FIRST_SHARDS[0]);
        others.map(|(_, replica)| replica.membership()).collect()
    }

    /// As the one who leads the system keyspace: moves on the rows of members, and the level, when what they say has come true everywhere.
    pub(super) fn move_on(&mut self, now: Instant) {
        let system = &self.system;
        let replaces = system.placements.replaced().next().is_some();
        let due = replaces || system.roster.is_moving() || system.levels.may_rise();
        let leads = self.replicas.get(&FIRST_SHARDS[0]).is_some_and(Replica::leads);
        if !due || !leads || !self.is_whole() || !self.replicas.values().all(Replica::remembers_members) {
            return;
        }
        let (roster, placements, levels) = (system.roster.clone(), system.placements.clone(), system.levels.clone());
        let everywhere = self.replicas.iter().filter(|(shard, _)| placements.of(**shard).is_none());
        let groups: Vec<Membership> = everywhere.map(|(_, replica)| replica.membership()).collect();
        let members = groups.iter().flat_map(Membership::all).map(node_of).chain(placements.nodes()).collect();
        self.one(now, FIRST_SHARDS[0], |replica, cx| {
            replica.move_rows(&roster, &groups, &placements, cx);
            replica.raise_level(&levels, members, cx);
        });
    }

    /// Looks whether the system keyspace's rows have changed.
    pub(super) fn read_system(&mut self, now: Instant) {
        let known = self.system.revision();
        let system = self.replicas.get_mut(&FIRST_SHARDS[0]);
        let Some(system) = system.filter(|system| system.machine().meta().revision != known) else { return };
        // What it knew is given away, so that what nobody else holds need not be copied.
        match system.system_rows(std::mem::take(&mut self.system)) {
            Ok(rows) => {
                self.system = rows;
                self.wake_for_news(now);
            }
            Err(e) => {
                self.shared.out.fatal.get_or_insert(format!("the system keyspace's rows cannot be read: {e}"));
                return;
            }
        }
        self.try_to(now, Self::let_merged_go);
        self.try_to(now, Self::open_made);
        self.hand_out_system();
        self.ask_early(now);
    }

    /// Says outside what the system keyspace's rows say, and stops if they say that this node's release is too old.
    pub(super) fn hand_out_system(&mut self) {
        let (rows, shared) = (&self.system, &mut self.shared);
        let (is, knows) = (rows.levels.cluster(), shared.config.level);
        shared.timed = is >= Level::TIMED;
        // Who is to go, the others do not wait for: it is about to hear that it is gone, which is the better reason to stop.
        let goes = rows.roster.wanted(ReplicaId(shared.config.node.0)) == Some(Wanted::Gone);
        if is > knows && !goes {
            let why = format!("the cluster is at feature level {is}, and this node knows only {knows}");
            shared.out.fatal.get_or_insert(format!("{why}: start a newer release, or one that is not held down"));
        }
        shared.out.roster = Some(rows.roster.clone());
        shared.out.keyspaces = Some(rows.keyspaces.clone());
        shared.out.placements = Some(rows.placements.clone());
        shared.out.losses = Some(rows.losses.clone());
        shared.out.levels = Some(rows.levels.clone());
    }

    /// Says in the system keyspace what this node's release knows, and its zone.
    pub(super) fn tell_level(&mut self, now: Instant) {
        let (node, level) = (self.shared.config.node, self.shared.config.level);
        let system = self.replicas.get(&FIRST_SHARDS[0]);
        if !system.is_some_and(|replica| replica.membership().contains(ReplicaId(node.0))) {
            return;
        }
        let placed = self.system.levels.cluster() >= Level::PLACED;
        let zone = || self.system.placements.tell_zone(node, &self.shared.config.zone).filter(|_| placed);
        let Some(txn) = self.system.levels.tell(node, level).or_else(zone) else {
            self.tell_again = None;
            return;
        };
        if self.tell_again.is_none_or(|when| when <= now) {
            self.tell_again = Some(now + RETRY);
            let request = Request::Submit { shard: FIRST_SHARDS[0], command: Command::Transact(txn) };
            self.request(now, TELLING, request, now + RETRY);
        }
    }
}
