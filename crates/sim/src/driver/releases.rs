//! Two releases side by side: in some runs all nodes begin with an older one, and each becomes the newer one at some start.
//!
//! The older release is the same code held down to its feature level: what is beyond that it does not say, and stops if it finds it in a log.

use super::{Event, Step, World, id_of};
use crate::history::demand;
use quorate_cluster::levels::Levels;
use quorate_cluster::members::Roster;
use quorate_env::Rng;
use quorate_kv::Level;

/// Of a thousand starts of an older release, those that are of the newer one.
const UPGRADE_PER_MILLE: u64 = 300;

/// Between two upgrades in the calm, in microseconds.
const ROLL_US: u64 = 700_000;

/// See the top of this file.
pub(super) struct Releases {
    rng: Rng,
    /// Whether some node knows at which level the cluster begins.
    begun: bool,
}

impl Releases {
    pub fn new(rng: Rng) -> Self {
        Self { rng, begun: false }
    }
}

impl World<'_> {
    /// Which release a node starts with.
    pub(super) fn choose_release(&mut self, node: usize) {
        // All nodes of a new cluster are of one release: which one, its first leader says.
        let due = self.nodes[node].level < Level::LATEST && self.releases.begun;
        if due && (self.calm || self.releases.rng.chance(UPGRADE_PER_MILLE)) {
            self.nodes[node].level = Level::LATEST;
            self.mark("node upgraded");
            self.note(node, "it starts as the newer release");
        }
    }

    /// The operator upgrades all that are left, one after the other.
    pub(super) fn roll_out(&mut self) {
        let old = (0..self.nodes.len()).filter(|node| self.nodes[*node].level < Level::LATEST).collect::<Vec<_>>();
        for (turn, node) in old.into_iter().enumerate() {
            self.after(turn as u64 * ROLL_US + 1, Event::Upgrade { node });
        }
    }

    pub(super) fn upgrade(&mut self, node: usize) {
        if self.nodes[node].level < Level::LATEST && !self.churn.is_retired(node) {
            self.crash(node, "stopped for an upgrade");
        }
    }

    /// A client was served.
    pub(super) fn note_releases(&mut self) {
        let up = || self.nodes.iter().filter(|node| node.node.is_some()).map(|node| node.level);
        if up().min() != up().max() {
            self.mark("two versions side by side");
        }
    }

    /// What a node knows of the levels, and who the members are.
    pub(super) fn look_at_levels(&mut self, levels: &Levels, roster: &Roster) -> Step {
        self.releases.begun |= levels.begun();
        let is = levels.cluster();
        let gone = |node: usize| self.churn.is_retired(node) || roster.removed.contains_key(&id_of(node));
        let begun = |node: &usize| self.nodes[*node].life > 0 && !gone(*node);
        let too_old = (0..self.nodes.len()).filter(begun).find(|node| self.nodes[*node].level < is);
        demand(too_old.is_none(), "the level is what all members know", || {
            format!("the cluster is at {is}, and {} does not know it", id_of(too_old.expect("it was found")))
        })?;
        if self.plan.old_release.is_some_and(|old| is > old) {
            self.mark("feature level raised");
        }
        Ok(())
    }

    /// In the end all know the newer release, and the cluster is what it can be.
    pub(super) fn levels_rose(&self) -> Step {
        for node in self.lasting() {
            let is = self.nodes[node].node.as_ref().map(|node| node.levels().cluster());
            demand(is == Some(Level::LATEST), "the level rises when all know more", || {
                format!("{} is at {is:?}", id_of(node))
            })?;
        }
        Ok(())
    }
}
