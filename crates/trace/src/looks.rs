//! What nodes do not say by themselves, roles and commits, is seen by looking at their replicas after each step: this remembers the looks before.

use crate::{Lane, TraceEvent, words};
use quorate_cluster::Inspection;
use quorate_env::{LogIndex, ShardId};
use std::collections::BTreeMap;

/// How each replica looked after the last step.
#[derive(Debug, Default)]
pub struct Looks(BTreeMap<(Lane, ShardId), Inspection>);

impl Looks {
    /// A new life of a node is compared with nothing of the one before.
    pub fn forget(&mut self, node: Lane) {
        self.0.retain(|(of, _), _| *of != node);
    }

    /// How a replica looks after a step; tells what is different from the step before.
    pub fn look(&mut self, node: Lane, shard: ShardId, now: &Inspection, mut tell: impl FnMut(TraceEvent)) {
        let before = self.0.insert((node, shard), *now);
        let shard = shard.0;
        let role = |look: &Inspection| (look.role, look.term, look.leader);
        if before.as_ref().map(role) != Some(role(now)) {
            let leader = now.leader.map(|id| Lane::Node(id.0));
            tell(TraceEvent::Role { node, shard, term: now.term.0, part: words::part(now.role), leader });
        }
        let (committed, applied) = before.map_or((LogIndex(0), LogIndex(0)), |look| (look.committed, look.applied));
        // Only a snapshot moves the log's start beyond what was applied.
        if before.is_some() && now.log_start > applied && now.applied >= now.log_start {
            tell(TraceEvent::Install { node, shard, index: now.log_start.0 });
        }
        if now.committed > committed {
            tell(TraceEvent::Commit { node, shard, index: now.committed.0 });
        }
        if now.applied > applied {
            tell(TraceEvent::Apply { node, shard, index: now.applied.0 });
        }
    }
}
