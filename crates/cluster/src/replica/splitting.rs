//! A replica's part in splits: as a leader it has the log do what the shard map says.

use super::{Context, Replica};
use crate::bounds::{RETRY, SEEK_TICKS};
use crate::keyspaces::Keyspaces;
use quorate_consensus::Role;
use quorate_env::{Instant, ShardId};
use quorate_kv::{Command, KeyRange, RangeEnd};
use quorate_shard::Machine;

/// What a replica keeps in mind for splits.
#[derive(Default)]
pub(super) struct Splitting {
    /// What was last proposed, and when.
    proposed: Option<(ShardId, Instant)>,
    /// When it last asked to lead.
    sought: Option<Instant>,
}

impl Replica {
    pub fn leads(&self) -> bool {
        self.group.role() == Role::Leader
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Takes the next step towards what the shard map says of this shard; `weaned` is a child that needs it no more.
    pub fn tend_children(&mut self, keyspaces: &Keyspaces, weaned: Option<ShardId>, cx: &Context<'_>) {
        if !self.leads_informed() {
            return;
        }
        let meta = self.machine.meta();
        let next = keyspaces.next_split(self.shard, &meta.range).filter(|(_, child)| {
            // What is prepared goes first.
            let closed = meta.closing.as_ref().map(|at| KeyRange { start: at.clone(), end: RangeEnd::Unbounded });
            self.machine.birth(*child).is_none() && !closed.is_some_and(|keys| self.machine.has_prepared_in(&keys))
        });
        let command = match (next, weaned) {
            (Some((at, child)), _) => (child, Command::Split { at: at.clone(), child }),
            (None, Some(child)) => (child, Command::Wean { child }),
            (None, None) => return,
        };
        let again = |(child, when): (ShardId, Instant)| child == command.0 && cx.now.since(when) < RETRY;
        if !self.splitting.proposed.is_some_and(again) {
            self.splitting.proposed = Some((command.0, cx.now));
            self.propose_own(command.1);
        }
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
