//! What disks have lost while nobody looked, and the guard that leaves one good copy of everything.
//!
//! ```text
//!   entries rot, or the store is damaged ──> the node mends; others may rot meanwhile where a good copy is left ──> whole again
//!   promises rot ──────────────────────────> the node does not start; it comes back as another, with an empty disk
//!   the disk forgets (`twins`) ────────────> the node is found out by its peers, and does the same
//! ```
//!
//! What a disk had said it held counts until its node is replaced: leaders counted it. So only one disk at a time may forget promises, and only
//! while nothing else is missing anywhere.

use super::{LIMITS, StoreKind, World, memory_folder};
use crate::checks::raft::RaftCheck;
use crate::rot;
use quorate_cluster::Node;
use quorate_env::{LogIndex, Rng, ShardId, Term};
use quorate_storage::store::{ModelStore, Store};
use quorate_storage::wal::{Recovered, WalIdentity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a thousand starts while another node mends, those at which the log has rotted too.
const SEVERAL_PER_MILLE: u64 = 500;

/// An entry by its name.
type Name = (ShardId, LogIndex, Term);

/// What a node lacks.
#[derive(Debug, Default)]
struct Lacks {
    entries: BTreeSet<Name>,
    rows: bool,
}

/// A node whose disk has forgotten promises, and that is not found out yet.
#[derive(Debug)]
pub(super) struct Forgetful {
    pub node: usize,
    /// Where it has forgotten some.
    pub shards: BTreeSet<ShardId>,
    /// Nobody's answers reach it: only its leader can tell.
    pub deaf: bool,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Wounds {
    pub rng: Rng,
    pub forgetful: Option<Forgetful>,
    /// Until they are mended.
    lacking: BTreeMap<usize, Lacks>,
}

impl Wounds {
    pub fn new(rng: Rng) -> Self {
        Self { rng, forgetful: None, lacking: BTreeMap::new() }
    }

    /// Whether nothing is missing anywhere.
    pub fn is_none(&self) -> bool {
        self.lacking.is_empty() && self.forgetful.is_none()
    }

    /// Whether a node has forgotten promises and is not found out yet.
    pub fn has_forgotten(&self, node: usize) -> bool {
        self.forgetful.as_ref().is_some_and(|forgetful| forgetful.node == node)
    }

    pub fn lack_entries(&mut self, node: usize, names: BTreeSet<Name>) {
        self.lacking.entry(node).or_default().entries.extend(names);
    }

    pub fn lacks(&self, node: usize) -> bool {
        self.lacking.contains_key(&node)
    }

    pub fn mended(&mut self, node: usize) {
        self.lacking.remove(&node);
    }

    fn all_but(&self, node: usize) -> impl Iterator<Item = (usize, &Lacks)> {
        self.lacking.iter().map(|(other, lacks)| (*other, lacks)).filter(move |(other, _)| *other != node)
    }

    /// Whether every entry that would rot at `node`, and every one that has rotted elsewhere, is left at another one of `keepers`.
    fn leaves_copies(&self, node: usize, names: &BTreeSet<Name>, keepers: &[usize], raft: &RaftCheck) -> bool {
        let kept = |not_by: usize, (shard, index, term): Name| {
            let hit = |keeper: usize| keeper == node && names.contains(&(shard, index, term));
            let has_rows = |keeper: usize| !self.lacking.get(&keeper).is_some_and(|lacks| lacks.rows);
            let mut others = keepers.iter().filter(|keeper| **keeper != not_by && has_rows(**keeper));
            others.any(|keeper| !hit(*keeper) && raft.holds_durably(*keeper, shard, index, term))
        };
        let elsewhere =
            self.all_but(node).flat_map(|(other, lacks)| lacks.entries.iter().map(move |name| (other, *name)));
        names.iter().map(|name| (node, *name)).chain(elsewhere).all(|(not_by, name)| kept(not_by, name))
    }
}

/// The entries that a log names as rotted.
pub(super) fn names(found: &Recovered) -> BTreeSet<Name> {
    let of_shard = |(shard, log): (&ShardId, &quorate_storage::wal::RecoveredLog)| {
        let shard = *shard;
        log.rotted.iter().map(move |rotted| (shard, rotted.index, rotted.term)).collect::<Vec<_>>()
    };
    found.shards.iter().flat_map(of_shard).collect()
}

impl World<'_> {
    /// At some starts the log has changed while nobody looked.
    pub(super) fn rot(&mut self, node: usize, identity: &WalIdentity) {
        if self.calm || self.churn.is_fragile() || self.wounds.forgetful.is_some() {
            return;
        }
        let keepers = self.not_retired();
        let alone = self.wounds.all_but(node).next().is_none();
        let Self { wounds, raft, nodes, rot_rng, plan, .. } = self;
        let disk = &mut nodes[node].disk;
        let hit = if alone {
            rot_rng.chance(plan.rot_per_mille) && rot::strike(disk, identity, LIMITS, rot_rng, |_| true)
        } else {
            let mut rng = wounds.rng.clone();
            let may = plan.rot_several && rng.chance(SEVERAL_PER_MILLE);
            let leaves = |found: &Recovered| wounds.leaves_copies(node, &names(found), &keepers, raft);
            let hit = may && rot::strike(disk, identity, LIMITS, &mut rng, leaves);
            wounds.rng = rng;
            hit
        };
        if hit {
            let entries =
                rot::read(&self.nodes[node].disk, identity, LIMITS).map(|found| names(&found)).unwrap_or_default();
            self.wounds.lack_entries(node, entries);
            self.mark("entry rotted");
            if !alone {
                self.mark("rot at several nodes");
            }
            self.report.faults += 1;
            self.note(node, "entries of its log have rotted");
        }
    }

    /// At some starts the store is damaged: an empty one is in its place, and what is left of it is returned.
    pub(super) fn damage(&mut self, node: usize) -> Option<Arc<dyn Store>> {
        let alone = self.wounds.all_but(node).next().is_none() && self.wounds.forgetful.is_none();
        let free = alone && !self.churn.is_fragile();
        if self.calm || !free || !self.rot_rng.chance(self.plan.damage_per_mille) {
            return None;
        }
        self.wounds.lacking.entry(node).or_default().rows = true;
        self.mark("store damaged");
        self.report.faults += 1;
        self.note(node, "its store is damaged");
        match &mut self.nodes[node].store {
            StoreKind::Model(store) => {
                let remains = rot::remains(store, &mut self.rot_rng);
                *store = Arc::new(ModelStore::new());
                // Of some nothing can be read at all.
                self.rot_rng.chance(700).then_some(remains)
            }
            StoreKind::Real { dir, .. } => {
                *dir = memory_folder();
                None
            }
        }
    }

    /// Whether the cluster could do without everything that a node has: it would come back as another.
    pub(super) fn may_be_replaced(&self, node: usize) -> bool {
        !self.calm && self.wounds.is_none() && self.may_come_back_as_another(node)
    }

    /// At some starts what the log says of promises has rotted, or so much of it that nothing in it can be named.
    pub(super) fn rot_promises(&mut self, node: usize, identity: &WalIdentity) -> bool {
        let per_mille = self.plan.promise_rot_per_mille;
        if per_mille == 0 || !self.may_be_replaced(node) || !self.wounds.rng.chance(per_mille) {
            return false;
        }
        let hit = rot::strike_promises(&mut self.nodes[node].disk, identity, LIMITS, &mut self.wounds.rng);
        if hit {
            self.mark("promises rotted");
            self.report.faults += 1;
            self.note(node, "the promises in its log have rotted");
        }
        hit
    }

    /// A node that forgot has been found out, in time.
    pub(super) fn found_out(&mut self, node: usize) {
        let deaf = self.wounds.forgetful.take().is_some_and(|forgetful| forgetful.deaf);
        self.net.spared = false;
        self.mark(if deaf { "told of a commit that it had lost" } else { "told of promises that it had lost" });
        self.come_back_as_another(node);
    }

    /// Whether every replica of a node has what it should have.
    pub(super) fn look_for_mended(&mut self, node: usize) {
        if self.wounds.lacks(node) {
            let this = &self.nodes[node];
            let whole = |core: &Node| {
                let mended = |shard| core.inspect(shard).is_some_and(|look| look.rotted == 0);
                core.is_whole() && core.shards().into_iter().all(mended)
            };
            // What of its log belongs to shards that it does not know of yet, it could not have mended. In a long run nearly every node has the log of some shard that has moved away for good.
            let left = |shard: &ShardId| self.plan.is_long() && self.has_moved_away(node, *shard);
            if this.logs.iter().all(|shard| this.opened.contains(shard) || left(shard))
                && this.node.as_ref().is_some_and(whole)
            {
                self.wounds.mended(node);
            }
        }
    }
}
