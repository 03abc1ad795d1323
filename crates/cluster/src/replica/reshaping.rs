//! A replica's part in changes of its group's membership: it applies them, and as a leader begins them (`reshape.rs` says which).

use super::{Context, Replica};
use crate::bounds::{PROMOTION_LAG_ENTRIES, RETRY};
use crate::config::Sabotage;
use crate::levels::Levels;
use crate::members::{MemberRow, MemberState, Roster};
use crate::placement::{Placements, Wishes};
use crate::replacing;
use crate::reshape::{Decision, Standing, decide};
use crate::wire::node_of;
use quorate_consensus::{Entry, Membership, Message, Role};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, Writer};
use quorate_kv::{Command, Compare, CompareOp, DeleteOp, Envelope, Expected, KeyRange, Op, PutOp, Revision, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// What a leader keeps in mind for changes of membership.
#[derive(Default)]
pub(super) struct Reshaping {
    /// When each replica last answered in the present term.
    heard: BTreeMap<ReplicaId, Instant>,
    /// When leadership was last offered to another.
    offered: Option<Instant>,
    /// The row that was last moved on, with its revision then.
    moved: Option<(MemberRow, Revision, Instant)>,
    /// When a node was last to be replaced.
    replaced: Option<Instant>,
    /// When the cluster's level was last to be raised.
    raised: Option<Instant>,
    /// When a shard was last to live elsewhere.
    pub(super) placed: Option<Instant>,
    /// Since when it has led, and known all that was decided before.
    pub(super) led_since: Option<Instant>,
}

impl Replica {
    /// The membership as of what is applied.
    pub fn membership(&self) -> Membership {
        self.group.membership()
    }

    /// An answer of a replica arrived.
    pub(super) fn hear(&mut self, message: &Message, now: Instant) {
        if self.group.role() == Role::Leader && message.term == self.group.term() {
            self.reshaping.heard.insert(message.from, now);
        }
    }

    /// Something else says that a replica is there.
    pub(super) fn heard_now(&mut self, id: ReplicaId, now: Instant) {
        self.reshaping.heard.insert(id, now);
    }

    /// Leadership was won or lost.
    pub(super) fn forget_standings(&mut self) {
        self.reshaping = Reshaping::default();
    }

    /// How a replica stands, if this one leads.
    pub(super) fn standing(&self, id: ReplicaId, cx: &Context<'_>) -> Standing {
        if id == self.id {
            return Standing { alive: true, in_sync: true };
        }
        let alive = self.heard_since(id, cx.heard_lately());
        Standing { alive, in_sync: self.is_in_sync(id) || cx.sabotaged(Sabotage::PromoteUnsynced) }
    }

    /// When this leader last heard from a replica.
    pub(super) fn last_heard(&self, id: ReplicaId) -> Option<Instant> {
        self.reshaping.heard.get(&id).copied()
    }

    pub(super) fn heard_since(&self, id: ReplicaId, since: Instant) -> bool {
        self.last_heard(id).is_some_and(|heard| heard >= since)
    }

    /// Whether a replica has about as much of the log as is committed.
    pub(super) fn is_in_sync(&self, id: ReplicaId) -> bool {
        let matched = self.group.matched(id).0;
        matched > 0 && self.group.committed().0.saturating_sub(matched) <= PROMOTION_LAG_ENTRIES
    }

    /// Whether this leader knows all that was decided before it.
    pub(super) fn leads_informed(&self) -> bool {
        self.group.leads_settled() && self.machine.meta().applied_term == self.group.term()
    }

    /// Takes the next step towards what the rows ask for. Where writers wait for all voters, who is to vote must have what all have.
    pub fn reshape(
        &mut self,
        (wishes, everywhere): (&Wishes<'_>, bool),
        stays: &dyn Fn(ReplicaId) -> bool,
        cx: &mut Context<'_>,
    ) {
        if self.leads_informed() {
            self.reshaping.led_since.get_or_insert(cx.now);
        }
        if !self.leads_informed() || self.group.is_changing() || self.hold.is_some() || self.keeps_members(cx) {
            return;
        }
        self.expect_voters(wishes, everywhere, cx);
        let membership = self.group.membership();
        let careful = everywhere || self.everywhere.known() > LogIndex(0);
        let standing = |id: ReplicaId| {
            let Standing { alive, in_sync } = self.standing(id, cx);
            let comes = careful && !membership.is_voter(id);
            Standing { alive, in_sync: if comes { self.may_vote(id, in_sync, cx) } else { in_sync } }
        };
        let decision = decide(self.id, &membership, wishes, stays, standing);
        let decision = self.tamper_with_decision(decision, cx);
        match decision {
            Decision::Nothing => self.prefer(wishes, cx),
            Decision::Propose(change) => {
                // Refused only when something came in between: the next tick looks again.
                let _ = self.group.propose_membership(&change);
            }
            Decision::HandOver(heir) => self.offer(heir, cx),
        }
    }

    /// Offers leadership to another, and not again before that may have failed.
    pub fn offer(&mut self, heir: ReplicaId, cx: &Context<'_>) {
        if self.reshaping.offered.is_none_or(|offered| cx.now.since(offered) >= 2 * RETRY) {
            self.reshaping.offered = Some(cx.now);
            self.group.transfer_leader(heir);
        }
    }

    /// As the system keyspace's leader: moves on the rows whose wishes have come true in all `groups`, and wherever else shards live.
    pub fn move_rows(&mut self, roster: &Roster, groups: &[Membership], placements: &Placements, cx: &mut Context<'_>) {
        if !self.leads_informed() || roster.revision != self.machine.meta().revision {
            return;
        }
        let due = roster.rows.values().find_map(|(row, revision)| {
            let replica = ReplicaId(row.id.0);
            let votes = |group: &Membership| group.voters.contains(&replica) && !group.is_joint();
            match row.state {
                MemberState::Joining if groups.iter().all(votes) => {
                    let now = MemberRow { state: MemberState::Voter, ..row.clone() };
                    Some((row, *revision, vec![Op::Put(PutOp::of(MemberRow::key(row.id), now.encode()))]))
                }
                MemberState::Leaving
                    if !groups.iter().any(|group| group.contains(replica)) && !placements.may_use(row.id) =>
                {
                    let gone = DeleteOp { range: KeyRange::single(MemberRow::key(row.id)), prev_kv: false };
                    let never = PutOp::of(MemberRow::removed_key(row.id), row.name.clone());
                    let of_it = Placements::keys_of(row.id).into_iter().chain([Levels::key(row.id)]);
                    let of_it = of_it.map(|key| Op::Delete(DeleteOp { range: KeyRange::single(key), prev_kv: false }));
                    let ops = [Op::Delete(gone), Op::Put(never)].into_iter().chain(of_it);
                    Some((row, *revision, ops.collect()))
                }
                _ => None,
            }
        });
        let Some((row, revision, success)) = due else { return self.replace(roster, groups, placements, cx) };
        let again = |(moved, at, when): &(MemberRow, Revision, Instant)| {
            (moved, at) == (row, &revision) && cx.now.since(*when) < RETRY
        };
        if self.reshaping.moved.as_ref().is_some_and(again) {
            return;
        }
        self.reshaping.moved = Some((row.clone(), revision, cx.now));
        let unchanged = Compare {
            range: KeyRange::single(MemberRow::key(row.id)),
            op: CompareOp::Equal,
            expected: Expected::Mod(revision.0 as i64),
        };
        self.propose_own(Command::Transact(Txn { compares: vec![unchanged], success, failure: Vec::new() }));
    }

    /// As the system keyspace's leader: takes the next step towards a node's being replaced by another.
    fn replace(&mut self, roster: &Roster, groups: &[Membership], placements: &Placements, cx: &Context<'_>) {
        if self.reshaping.replaced.is_some_and(|when| cx.now.since(when) < RETRY) {
            return;
        }
        if let Some(txn) = replacing::next(roster, placements, groups, cx.sabotaged(Sabotage::ReplaceAtOnce)) {
            self.reshaping.replaced = Some(cx.now);
            self.propose_own(Command::Transact(txn));
        }
    }

    /// As the system keyspace's leader: writes down at which level the cluster is, when that changes.
    pub fn raise_level(&mut self, levels: &Levels, members: BTreeSet<NodeId>, cx: &Context<'_>) {
        if !self.leads_informed() || self.reshaping.raised.is_some_and(|when| cx.now.since(when) < RETRY) {
            return;
        }
        let members = if cx.sabotaged(Sabotage::RaiseEarly) { [node_of(self.id)].into() } else { members };
        if let Some(txn) = levels.raise(members, cx.config.level) {
            self.reshaping.raised = Some(cx.now);
            self.propose_own(Command::Transact(txn));
        }
    }

    /// Asks for something as the leader; returns whether there is room for it.
    pub(super) fn propose_own(&mut self, command: Command) -> bool {
        self.own.seq += 1;
        self.proposals.enqueue(vec![Envelope { id: self.own, answered_below: self.own.seq, command }]) > 0
    }

    /// An entry that changes the membership is committed.
    pub(super) fn apply_change(&mut self, entry: &Entry, cx: &mut Context<'_>) {
        let applied = match cx.config.sabotage {
            None => self.group.apply_membership(&entry.data),
            Some(sabotage) => self.misapply_membership(entry, sabotage),
        };
        let after = match applied {
            Ok(after) => after,
            Err(e) => {
                self.fatal.get_or_insert(format!("the membership entry {} cannot be read: {e}", entry.index));
                return;
            }
        };
        let mut w = Writer::new();
        after.encode(&mut w);
        if let Err(e) = self.machine.apply_membership(entry.index, entry.term, w.finish().into()) {
            return self.fail(&e);
        }
        self.moving.changed(entry.index);
        self.remember_hash(entry.index);
        let left: Vec<ReplicaId> = self.reshaping.heard.keys().copied().filter(|id| !after.contains(*id)).collect();
        for id in left {
            self.reshaping.heard.remove(&id);
            self.outgoing.done(id);
        }
    }

    /// What a leader knows of its group, for whoever is asked to change it. `None` if this replica does not lead.
    pub(super) fn standings(&self, cx: &Context<'_>) -> Option<Vec<crate::input::Standings>> {
        if !self.leads_informed() {
            return None;
        }
        let membership = self.group.membership();
        let of = |id: ReplicaId| {
            let Standing { alive, in_sync } = self.standing(id, cx);
            let (voter, node) = (membership.voters.contains(&id), node_of(id));
            crate::input::Standings { node, voter, alive, in_sync }
        };
        Some(membership.all().into_iter().map(of).collect())
    }
}
