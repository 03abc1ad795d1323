//! Disks that look whole and are not: an old image, syncs that were a lie, a write that went elsewhere.
//!
//! Such a disk is kept beside the one that is as it should be, its *twin*. Which of the two is the node's is decided when it starts: the faulty one,
//! if the cluster can survive that. So what a run judges by is what the faulty disk had said it held.
//!
//! ```text
//!   what can be read of the faulty one      it is the node's if
//!   nothing, or not its promises            nothing else is missing anywhere: the node comes back as another
//!   entries are named as rotted             no other node lacks anything
//!   less than the disk had said it held     nothing else is missing, and somebody is up and within reach who saw more: it must be found out
//! ```
//!
//! Until who forgot is found out, nothing else fails: a witness that is lost takes what it saw with it, and then nobody could know.

use super::wounds::{Forgetful, names};
use super::{LIMITS, StoreKind, World};
use crate::disk::Disk;
use crate::planted::DriverBug;
use quorate_consensus::Role;
use quorate_env::{Rng, ShardId};
use quorate_storage::store::ModelStore;
use quorate_storage::wal::{DiskOp, Recovered, Wal, WalError, WalIdentity};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Of a thousand starts with an older image at hand, those that use it.
const OLD_IMAGE_PER_MILLE: u64 = 700;

/// Of a thousand nodes that forgot and could be found out by their leader alone, those whose questions nobody answers.
const DEAF_PER_MILLE: u64 = 600;

/// What went wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    OldImage,
    Lied,
    Misdirected,
}

impl How {
    const fn mark(self) -> &'static str {
        match self {
            Self::OldImage => "old disk image",
            Self::Lied => "lying sync",
            Self::Misdirected => "misdirected write",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::OldImage => "it starts with an old image of its disk",
            Self::Lied => "what its disk had said was synced is gone",
            Self::Misdirected => "a write to its log went to another place",
        }
    }
}

/// See the top of this file.
pub(super) struct Twin {
    disk: Disk,
    /// If it is another than that of the disk as it should be.
    store: Option<Arc<ModelStore>>,
    how: How,
    /// The node has crashed since.
    crashed: bool,
}

/// What a node's start makes of the faulty disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The disk is as it should be, or the node mends what is not.
    No,
    /// Promises are lost, and the log says so.
    PromisesLost,
    /// They are, and nothing here says so.
    Forgotten,
}

enum Verdict {
    Unfit,
    Refused,
    Rotted(Recovered),
    Forgets(Forgetful),
}

impl World<'_> {
    /// Keeps a node's disk and store as they are durable now, unless something is missing there that the node is about to mend.
    pub(super) fn keep_image(&mut self, node: usize, how: How) {
        if self.wounds.lacks(node) {
            return;
        }
        let this = &mut self.nodes[node];
        let StoreKind::Model(store) = &this.store else { return };
        if !matches!(this.twin, Some(Twin { how: How::Misdirected, .. })) {
            let store = Some(Arc::new(store.crash()));
            this.twin = Some(Twin { disk: this.disk.image(), store, how, crashed: false });
        }
    }

    /// A lie ends well: the disk has caught up with what it said.
    pub(super) fn end_lie(&mut self, node: usize) {
        self.nodes[node].twin.take_if(|twin| twin.how == How::Lied && !twin.crashed);
    }

    /// What the log asks of its disk happens, on the faulty one too.
    pub(super) fn run_on_disk(&mut self, node: usize, ops: &[DiskOp]) {
        let Self { nodes, wounds, .. } = self;
        let this = &mut nodes[node];
        if std::mem::take(&mut this.trouble.misdirects) && this.twin.is_none() {
            this.twin = misdirect(&this.disk, ops, &mut wounds.rng);
        } else if let Some(Twin { disk, how: How::Misdirected, .. }) = &mut this.twin {
            ops.iter().for_each(|op| disk.run(op));
        }
        ops.iter().for_each(|op| this.disk.run(op));
    }

    pub(super) fn crash_twin(&mut self, node: usize) {
        let Self { nodes, wounds, .. } = self;
        if let Some(twin) = &mut nodes[node].twin {
            if twin.how == How::Misdirected {
                twin.disk.crash(&mut wounds.rng);
            }
            twin.crashed = true;
        }
    }

    /// A node starts. Perhaps its disk is not what it should be.
    pub(super) fn take_twin(&mut self, node: usize, identity: &WalIdentity) -> Taken {
        if self.nodes[node].twin.as_ref().is_none_or(|twin| !twin.crashed) {
            return Taken::No;
        }
        let Some(twin) = self.nodes[node].twin.take() else { return Taken::No };
        if self.calm || (twin.how == How::OldImage && !self.wounds.rng.chance(OLD_IMAGE_PER_MILLE)) {
            return Taken::No;
        }
        let verdict = self.judge(node, &twin.disk, identity);
        let taken = match verdict {
            Verdict::Unfit => return Taken::No,
            Verdict::Refused => Taken::PromisesLost,
            Verdict::Rotted(found) => {
                self.wounds.lack_entries(node, names(&found));
                self.mark("entry rotted");
                Taken::No
            }
            Verdict::Forgets(forgetful) => {
                self.net.spared = true;
                self.raft.forgive(node);
                self.wounds.forgetful = Some(forgetful);
                Taken::Forgotten
            }
        };
        self.mark(twin.how.mark());
        self.report.faults += 1;
        self.note(node, twin.how.words());
        let this = &mut self.nodes[node];
        this.disk = twin.disk;
        if let Some(store) = twin.store {
            this.store = StoreKind::Model(store);
        }
        taken
    }

    fn judge(&self, node: usize, disk: &Disk, identity: &WalIdentity) -> Verdict {
        let replaceable = self.may_be_replaced(node);
        let refused = || if replaceable { Verdict::Refused } else { Verdict::Unfit };
        let found = match Wal::recover(*identity, LIMITS, disk.files()) {
            Ok((_, found, _)) if found.require_promises().is_ok() => found,
            Err(WalError::Empty) => return Verdict::Unfit,
            Ok(_) | Err(_) => return refused(),
        };
        let forgets = |shard: &ShardId| {
            let log = found.shards.get(shard).cloned().unwrap_or_default();
            self.raft.remembers(node, *shard, &log).is_err()
        };
        let shards: BTreeSet<ShardId> = self.all_shards().into_iter().filter(forgets).collect();
        let rotted = !names(&found).is_empty();
        match (shards.is_empty(), rotted) {
            (true, true) if self.wounds.is_none() && !self.churn.is_fragile() => Verdict::Rotted(found),
            (false, false) if replaceable && self.is_quiet() => {
                self.forgetful(node, &found, shards).map_or(Verdict::Unfit, Verdict::Forgets)
            }
            _ => Verdict::Unfit,
        }
    }

    /// Whether no node that is up is about to fail, and all links are well.
    fn is_quiet(&self) -> bool {
        let quiet = |node: &super::SimNode| {
            node.node.is_none() || !(node.paused || node.doomed.is_some() || node.trouble.fails)
        };
        self.net.is_whole() && self.nodes.iter().all(quiet)
    }

    /// What becomes of a node that forgot, if it will be found out.
    fn forgetful(&self, node: usize, found: &Recovered, shards: BTreeSet<ShardId>) -> Option<Forgetful> {
        let log = |shard| (shard, found.shards.get(&shard).cloned().unwrap_or_default());
        let logs: Vec<_> = self.all_shards().into_iter().map(log).collect();
        // What looks like a node that never took part is taken for one.
        if logs.iter().all(|(_, log)| log.hard_state.is_none()) {
            return None;
        }
        let up = |by: &usize| *by != node && self.nodes[*by].node.is_some();
        let witnesses = |shard| (0..self.nodes.len()).filter(up).filter(move |by| (*by, shard) != (node, shard));
        let seen =
            logs.iter().any(|(shard, log)| witnesses(*shard).any(|by| self.seen.more_than(by, node, *shard, log)));
        // Its leaders would tell it of what is committed and not there.
        let look = |by: usize, shard| self.nodes[by].node.as_ref().and_then(|node| node.inspect(shard));
        let told = |(shard, log): &(ShardId, quorate_storage::wal::RecoveredLog)| {
            let (last, term) = crate::checks::recall::end_and_term(log);
            let leads = |by: usize| {
                look(by, *shard).is_some_and(|look| {
                    let enough = !shards.contains(shard)
                        || (look.term == term
                            && look.committed > last
                            && self.seen.acknowledged_more(by, node, *shard, log));
                    look.role == Role::Leader && enough
                })
            };
            let followed = |by: usize| {
                let leader = look(by, *shard).and_then(|look| look.leader);
                leader.is_some_and(|leader| leads(leader.0 as usize - 1))
            };
            witnesses(*shard).all(followed)
        };
        // They lead on only with a quorum, of which this node, which is mute meanwhile, is none.
        let all_up = (0..self.nodes.len()).all(|it| it == node || up(&it) || self.churn.is_retired(it));
        let deaf = all_up && logs.iter().all(told) && self.wounds.rng.clone().chance(DEAF_PER_MILLE);
        seen.then_some(Forgetful { node, shards, deaf })
    }

    /// Whether a planted bug makes a log that is refused readable again: it ends before what cannot be read.
    pub(super) fn cut_refused(&mut self, node: usize, why: &WalError) -> bool {
        if self.driver_bug() != Some(DriverBug::CutRefusedLog) {
            return false;
        }
        let WalError::Rot { file, offset, .. } = why else { return false };
        self.nodes[node].disk.cut(*file, *offset as usize);
        true
    }
}

/// A disk on which one of these writes goes elsewhere: to another offset, perhaps of another file.
fn misdirect(disk: &Disk, ops: &[DiskOp], rng: &mut Rng) -> Option<Twin> {
    let writes: Vec<usize> = (0..ops.len()).filter(|at| matches!(ops[*at], DiskOp::Write { .. })).collect();
    let chosen = *rng.pick(&writes)?;
    let mut disk = disk.clone();
    for (at, op) in ops.iter().enumerate() {
        match op {
            DiskOp::Write { file, offset, bytes } if at == chosen => disk.misdirect(*file, *offset, bytes, rng)?,
            _ => disk.run(op),
        }
    }
    Some(Twin { disk, store: None, how: How::Misdirected, crashed: false })
}
