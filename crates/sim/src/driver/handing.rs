//! Leadership that is handed over on purpose: a node is told to stop, or whoever leads is asked to let another lead.

use super::{Event, SHARDS, Step, World, id_of};
use crate::client::SHARD;
use quorate_cluster::{Input, Request, bounds};
use quorate_consensus::Role;
use std::time::Duration;

/// Between two looks whether a node that is to stop may.
const LOOK_US: u64 = 2_000;

impl World<'_> {
    fn leads(&self, node: usize) -> bool {
        let look = self.nodes[node].node.as_ref().and_then(|node| node.inspect(SHARD));
        look.is_some_and(|look| look.role == Role::Leader)
    }

    /// Who leads the clients' keyspace, if any that is up says so.
    pub(super) fn leading(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.leads(*node))
    }

    /// A node is told to stop, as by a signal.
    pub(super) fn begin_stop(&mut self, node: usize) -> Step {
        let node = self.leading().filter(|_| self.rng.chance(700)).unwrap_or(node);
        if self.nodes[node].node.is_none() || self.nodes[node].paused {
            return Ok(());
        }
        let (life, led) = (self.nodes[node].life, self.leads(node));
        let latest = self.now + bounds::LEAVE_PATIENCE.as_micros() as u64;
        self.after(LOOK_US, Event::Leaving { node, life, latest, led });
        self.feed(node, Input::Leave)
    }

    /// It ends when nobody needs it any more, or when it has waited long enough: as the lane does.
    pub(super) fn go_on_leaving(&mut self, node: usize, life: u64, latest: u64, led: bool) -> Step {
        let this = &self.nodes[node];
        let Some(core) = this.node.as_ref().filter(|_| this.life == life) else { return Ok(()) };
        let may = core.may_stop(this.clock.monotonic(self.now));
        if this.paused || (!may && self.now < latest) {
            self.after(LOOK_US, Event::Leaving { node, life, latest, led });
            return Ok(());
        }
        if may && led && !self.leads(node) {
            self.mark("leadership handed over before a stop");
        }
        self.feed(node, Input::Stop)?;
        self.crash(node, "planned stop");
        Ok(())
    }

    /// Whoever leads is asked to let `to` lead.
    pub(super) fn move_leader(&mut self, to: usize) -> Step {
        for shard in SHARDS {
            let request = Request::MoveLeader { shard, to: id_of(to) };
            let id = self.next_request;
            self.next_request += 1;
            if let Some(leader) = self.leading() {
                self.moves.insert(id);
                self.feed(leader, Input::Request { id, timeout: Duration::from_secs(2), request })?;
            }
        }
        Ok(())
    }
}
