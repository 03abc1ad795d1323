//! A replica's part in splits: as a leader it has the log do what the shard map says.

use super::{Context, Replica};
use crate::bounds::{RETRY, SEEK_TICKS};
use crate::config::{Sabotage, SplitLoad};
use crate::keyspaces::Keyspaces;
use bytes::Bytes;
use quorate_consensus::Role;
use quorate_env::{Instant, ShardId, Term};
use quorate_kv::{Command, KeyRange, RangeEnd};
use quorate_shard::Machine;

/// What a replica keeps in mind for splits.
#[derive(Default)]
pub(super) struct Splitting {
    /// What was last proposed, and when.
    proposed: Option<(ShardId, Instant)>,
    /// When it last asked to lead.
    sought: Option<Instant>,
    /// Splits on their way to being applied, and the term in which this leader has asked for them.
    under_way: (Term, u32),
}

impl Splitting {
    /// Splits were applied, or put off.
    pub(super) fn judged(&mut self, splits: u32) {
        self.under_way.1 = self.under_way.1.saturating_sub(splits);
    }
}

impl Replica {
    pub fn leads(&self) -> bool {
        self.group.role() == Role::Leader
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Looks how much this leader had to do; returns a key at which that is halved, if it was too much for long. `rested` is whether the shard may be
    /// split.
    pub fn heat(&mut self, now: Instant, rested: bool, bound: &SplitLoad) -> Option<Bytes> {
        let watched = rested && self.leads();
        self.load.look(now, watched, bound, &self.machine.meta().range)
    }

    /// Takes the next step towards what the shard map says of this shard; `weaned` is a child that needs it no more.
    pub fn tend_children(&mut self, keyspaces: &Keyspaces, weaned: Option<ShardId>, cx: &Context<'_>) {
        if !self.leads_informed() {
            return;
        }
        let meta = self.machine.meta();
        // Whoever is a member when a child is split off must be one until it is weaned: the child's group begins with the same members, and each of them
        // builds it from the parent's rows.
        let settled = !self.group.is_changing() && !self.group.membership().is_joint();
        let next = self.next_split(keyspaces).filter(|(_, child)| {
            // What is prepared goes first.
            let closed = meta.closing.as_ref().map(|at| KeyRange { start: at.clone(), end: RangeEnd::Unbounded });
            let free = settled || cx.sabotaged(Sabotage::SplitWhileChanging);
            free && self.machine.birth(*child).is_none()
                && !closed.is_some_and(|keys| self.machine.has_prepared_in(&keys))
        });
        let (child, command) = match (next, weaned) {
            (Some((at, child)), _) => (child, Command::Split { at: at.clone(), child }),
            (None, Some(child)) => (child, Command::Wean { child }),
            (None, None) => return,
        };
        let again = |(proposed, when): (ShardId, Instant)| proposed == child && cx.now.since(when) < RETRY;
        if !self.splitting.proposed.is_some_and(again) {
            self.splitting.proposed = Some((child, cx.now));
            let splits = matches!(command, Command::Split { .. });
            if self.propose_own(command) && splits {
                let term = self.group.term();
                let before = if self.splitting.under_way.0 == term { self.splitting.under_way.1 } else { 0 };
                self.splitting.under_way = (term, before + 1);
            }
        }
    }

    /// The child that is to be split off next. What this node knows of the map may be older than the log: a shard that came back is not split off again.
    pub(super) fn next_split<'a>(&self, keyspaces: &'a Keyspaces) -> Option<(&'a Bytes, ShardId)> {
        let back = |child| self.machine.has_absorbed(child).unwrap_or(true);
        keyspaces.next_split(self.shard, &self.machine.meta().range, &back)
    }

    /// Has the shard yield to the one before it.
    pub fn give_up(&mut self) {
        let range = self.machine.meta().range.clone();
        self.propose_own(Command::Yield { range });
    }

    /// Whether the group's members must stay who they are: a child is about to be split off, or is not weaned yet.
    pub(super) fn keeps_members(&self, cx: &Context<'_>) -> bool {
        let (term, splits) = self.splitting.under_way;
        let under_way = splits > 0 && term == self.group.term();
        (under_way || self.machine.nurses()) && !cx.sabotaged(Sabotage::SplitWhileChanging)
    }

    /// What kept a split waiting may be gone: it is proposed again at the next tick.
    pub(super) fn split_again(&mut self) {
        self.splitting.proposed = None;
    }

    /// Leads, if nobody does: a child's group has just begun, and its parent's leader is here.
    pub fn seek_leadership(&mut self, cx: &mut Context<'_>) {
        let pause = cx.config.timing.tick * SEEK_TICKS;
        if self.group.leader().is_none() && self.splitting.sought.is_none_or(|when| cx.now.since(when) >= pause) {
            self.splitting.sought = Some(cx.now);
            self.group.campaign();
        }
    }
}
