//! What a replica says of itself, to status pages and checkers.

use super::{Context, Replica};
use crate::across::Orphans;
use crate::input::Inspection;
use crate::wire::node_of;
use quorate_consensus::{Membership, Role};
use quorate_env::checksum::checksum;
use quorate_env::{LogIndex, Writer};
use quorate_kv::across::TxId;
use quorate_kv::{Header, Status};
use quorate_shard::View;
use std::collections::BTreeSet;

impl Replica {
    pub(super) fn header(&self) -> Header {
        Header { revision: self.machine.meta().revision, term: self.group.term() }
    }

    pub(super) fn status(&self, cx: &Context<'_>) -> Status {
        let disk_bytes = cx.store.disk_bytes() + cx.store.memory_bytes();
        Status {
            header: self.header(),
            leader: self.group.leader().map(node_of),
            committed: self.group.committed(),
            applied: self.machine.meta().applied,
            disk_bytes,
            disk_bytes_in_use: disk_bytes,
            learner: !self.group.membership().is_voter(self.id),
            no_space: cx.no_space,
            pending: self.proposals.outstanding_count(),
            leader_changes: self.leader_changes,
        }
    }

    /// What this replica's ledger has of transactions over several shards, if it leads.
    pub fn orphans(&self) -> Option<Orphans> {
        if self.group.role() != Role::Leader {
            return None;
        }
        let prepared = self.machine.prepared().map(|(tx, prepared)| (tx, prepared.home, prepared.fence)).collect();
        let unresolved = self.machine.unresolved().map(|(tx, d)| (tx, d.decision, d.unresolved.clone())).collect();
        let reserved = self.reserved().into_iter().collect();
        let orphans = Orphans { shard: self.shard, prepared, unresolved, reserved };
        let none = orphans.prepared.is_empty() && orphans.unresolved.is_empty() && orphans.reserved.is_empty();
        (!none).then_some(orphans)
    }

    /// Who has reserved something, and by which entries.
    pub fn reserved(&self) -> BTreeSet<(TxId, LogIndex)> {
        self.machine.reserved()
    }

    pub fn view(&self) -> View {
        self.machine.view()
    }

    pub fn applied(&self) -> LogIndex {
        self.machine.meta().applied
    }

    pub fn inspect(&self) -> Inspection {
        let meta = self.machine.meta();
        let membership = self.group.membership();
        Inspection {
            replica: self.id,
            role: self.group.role(),
            term: self.group.term(),
            leader: self.group.leader().map(node_of),
            committed: self.group.committed(),
            applied: meta.applied,
            state_hash: meta.state_hash,
            revision: meta.revision,
            log_start: self.group.log_start().index,
            last: self.group.last_index(),
            held_back: self.held_back,
            waits_for_newcomer: self.waits_for_newcomer,
            voter: membership.is_voter(self.id),
            membership: membership_hash(&membership),
            rotted: 0,
            asleep: self.is_asleep(),
        }
    }
}

/// Equal for equal memberships.
#[must_use]
pub fn membership_hash(membership: &Membership) -> u64 {
    let mut w = Writer::new();
    membership.encode(&mut w);
    checksum(0, w.as_slice())
}
