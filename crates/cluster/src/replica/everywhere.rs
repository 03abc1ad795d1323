//! What all voters have, and the clients who are told only then (docs/design/consistency.md).
//!
//! ```text
//!   applied here ──EverywhereAsk──> the leader ──(every voter has acknowledged it)──Everywhere──> the client is told
//! ```
//!
//! What a leader says so is true for ever, whoever leads later: all voters of its configuration have that prefix of the log, it is committed, so no log
//! loses it, and nobody gets a vote who lacks it. Three things make that so:
//!
//! - A leader speaks when it has applied an entry of its own term, so that its configuration is the latest there is, and not while it is changing that.
//! - A learner gets its vote when it has all that this leader has said, and the log up to where this leader's term began: what leaders before it have said, or
//!   will say yet, lies before that.
//! - A learner that is about to get its vote counts as a voter already, so that it is not for ever one entry behind what is said.

use super::{Context, Replica};
use crate::config::Sabotage;
use crate::members::Wanted;
use crate::placement::Wishes;
use crate::wire::PeerBody;
use quorate_consensus::Role;
use quorate_env::{LogIndex, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// What a leader keeps in mind for those who wait for all voters.
#[derive(Default)]
pub(super) struct Spread {
    /// Who waits, and for the furthest entry that it waits for.
    asked_by: BTreeMap<ReplicaId, LogIndex>,
    /// Learners that are about to get votes.
    coming: BTreeSet<ReplicaId>,
    /// Where the log ended when it was elected.
    since: LogIndex,
}

impl Spread {
    /// Of a leader that was just elected, or of a replica that leads no more.
    pub fn anew(since: LogIndex) -> Self {
        Self { since, ..Self::default() }
    }
}

impl Replica {
    /// Whether somebody waits for all voters to have something.
    pub(super) fn is_asked_for_all(&self) -> bool {
        !self.spread.asked_by.is_empty()
    }

    /// Somebody's client waits for all voters to have an entry.
    pub(super) fn want_everywhere(&mut self, from: ReplicaId, index: LogIndex, cx: &mut Context<'_>) {
        if self.group.role() != Role::Leader {
            // It had better ask whoever leads, as far as is known here.
            return self.answer_guest(from, Vec::new(), cx);
        }
        if index <= self.everywhere.known() {
            return self.send(from, PeerBody::Everywhere { index: self.everywhere.known() }, cx);
        }
        let furthest = self.spread.asked_by.entry(from).or_default();
        *furthest = index.max(*furthest);
    }

    /// Finds out what all voters have, if somebody wants to know, and tells those clients who waited for it, or for clocks.
    pub(super) fn tend_answers(&mut self, cx: &mut Context<'_>) {
        let wanted = self.proposals.wants_everywhere();
        match (self.group.leader(), wanted) {
            (Some(leader), wanted) if leader == self.id && (wanted.is_some() || self.is_asked_for_all()) => {
                self.tell_everywhere(cx);
            }
            (Some(leader), Some(index)) if leader != self.id && self.everywhere.must_ask(index, cx.now) => {
                self.send(leader, PeerBody::EverywhereAsk { index }, cx);
            }
            _ => {}
        }
        if self.proposals.holds_answers() {
            let told = self.proposals.release(self.everywhere.known(), |at| cx.is_over(at));
            cx.out
                .replies
                .extend(told.into_iter().map(|(request, applied)| (request, Ok(super::Reply::Applied(applied)))));
        }
    }

    fn tell_everywhere(&mut self, cx: &mut Context<'_>) {
        let Some(index) = self.on_all_voters(cx).filter(|index| *index > self.everywhere.known()) else { return };
        self.everywhere.hear(index);
        let asked_by = std::mem::take(&mut self.spread.asked_by);
        asked_by.keys().for_each(|asker| self.send(*asker, PeerBody::Everywhere { index }, cx));
        self.spread.asked_by = asked_by.into_iter().filter(|(_, furthest)| *furthest > index).collect();
    }

    /// As a leader: up to where all voters have the log on their disks, as far as may be said now.
    fn on_all_voters(&self, cx: &Context<'_>) -> Option<LogIndex> {
        if cx.sabotaged(Sabotage::AckAtMajority) {
            return Some(self.group.committed());
        }
        if !self.leads_informed() || self.group.is_changing() {
            return None;
        }
        let voters = self.group.membership().all_voters().into_iter().chain(self.spread.coming.iter().copied());
        voters.map(|id| self.group.matched(id)).chain([self.group.committed()]).min()
    }

    /// As the leader of a group of whose shard that is wanted: who is about to get a vote counts from now on.
    pub(super) fn expect_voters(&mut self, wishes: &Wishes<'_>, everywhere: bool, cx: &Context<'_>) {
        let learners = if everywhere { self.group.membership().learners } else { Vec::new() };
        let comes = |id: &ReplicaId| wishes.wanted(*id) == Some(Wanted::Voter) && self.standing(*id, cx).is_well();
        self.spread.coming = learners.into_iter().filter(comes).collect();
    }

    /// Whether a learner that is about in sync has all, besides, that any leader may have said that all voters have.
    pub(super) fn may_vote(&self, id: ReplicaId, in_sync: bool, cx: &Context<'_>) -> bool {
        let needed = self.everywhere.known().max(self.spread.since);
        (in_sync && self.group.matched(id) >= needed) || cx.sabotaged(Sabotage::VoteWithout)
    }
}
