//! Shards that were split off: how they come to have replicas here, and what their parents' leaders do about them (docs/design/splitting.md).
//!
//! The shard map says first that a shard has a child; then the shard's log does. So a node knows of a child before there is one, and must not make one up:
//! what the child begins with is in its parent's rows.
//!
//! ```text
//!   the map has a child ──> its parent, here, has its birth ──> its rows are copied; its replica opens when they are durable
//!                       ├─> its parent has had it ────────────> an empty replica opens; its leader brings it up
//!                       └─> else it waits
//! ```

use super::Node;
use crate::boot::BootError;
use crate::bounds::CHILD_BYTES_PER_TICK;
use crate::config::Sabotage;
use crate::replica::Replica;
use bytes::Bytes;
use quorate_consensus::Membership;
use quorate_env::{Instant, ShardId};
use quorate_shard::{Building, Slot};
use std::collections::BTreeMap;

/// Where a child comes from.
#[derive(Clone, Debug)]
struct Origin {
    parent: ShardId,
    /// Its first key.
    start: Bytes,
}

/// Children that have no replica here yet.
#[derive(Default)]
pub(super) struct Nursery {
    unborn: BTreeMap<ShardId, Origin>,
    building: BTreeMap<ShardId, Building>,
    /// Those whose rows are here and not durable, each with the flush that covers them, once one was started.
    unflushed: BTreeMap<ShardId, Option<u64>>,
}

/// How a child can come to be here.
enum Way {
    /// Its rows are here.
    Open,
    /// Its parent has what it begins with.
    Build,
    /// Others have it, here it begins with nothing.
    Empty,
    /// Others have it, and nobody wants it here.
    Elsewhere,
    Wait,
}

impl Nursery {
    pub fn is_empty(&self) -> bool {
        self.unborn.is_empty()
    }

    pub fn expects(&self, shard: ShardId) -> bool {
        self.unborn.contains_key(&shard)
    }

    pub fn wants_flush(&self) -> bool {
        self.unflushed.values().any(Option::is_none)
    }

    /// A flush was started that covers everything written so far.
    pub fn flush_started(&mut self, ticket: u64) {
        self.unflushed.values_mut().for_each(|flush| *flush = flush.or(Some(ticket)));
    }

    /// That flush is durable.
    pub fn flushed(&mut self, ticket: u64) {
        self.unflushed.retain(|_, flush| *flush != Some(ticket));
    }
}

impl Nursery {
    /// Forgets children that are no more; returns where rows of theirs are.
    pub fn forget(&mut self, gone: impl Fn(ShardId) -> bool) -> Vec<Slot> {
        self.unborn.retain(|child, _| !gone(*child));
        self.unflushed.retain(|child, _| !gone(*child));
        let building = std::mem::take(&mut self.building).into_iter();
        let (left, kept): (Vec<_>, _) = building.partition(|(child, _)| gone(*child));
        self.building = kept.into_iter().collect();
        left.into_iter().map(|(_, building)| building.slot()).collect()
    }
}

impl Node {
    /// Opens the replicas of shards that somebody made. Those that were split off follow when they can.
    pub(super) fn open_made(&mut self, now: Instant) -> Result<(), BootError> {
        let (keyspaces, placements) = (self.system.keyspaces.clone(), self.system.placements.clone());
        for row in keyspaces.made() {
            for (start, shard) in &row.keyspace.shards {
                // Whether a shard that was split off is to open here depends on where its parent is, too.
                let concerns = self.system.touches(*shard) || row.parents.contains_key(shard);
                if !concerns || self.is_here(*shard) {
                    continue;
                }
                match row.parents.get(shard).filter(|_| !self.sabotaged(Sabotage::ChildAsFounder)) {
                    Some(parent) => {
                        // Another parent than before, if that one was merged meanwhile.
                        let origin = Origin { parent: *parent, start: start.clone() };
                        self.nursery.unborn.insert(*shard, origin);
                    }
                    None if self.may_open(*shard) => {
                        self.open(now, *shard, &Membership::of_voters(placements.founders(*shard, row)))?;
                    }
                    None => {}
                }
            }
        }
        self.open_children(now)
    }

    /// Opens the children that can be.
    pub(super) fn open_children(&mut self, now: Instant) -> Result<(), BootError> {
        for (child, origin) in self.nursery.unborn.clone() {
            match self.way_of(child, &origin) {
                Way::Wait => {}
                Way::Build => self.begin_building(child, origin.parent)?,
                // Of no group a member, it neither votes for itself nor asks for votes: its leader tells it who it is.
                Way::Open | Way::Empty => self.open_child(now, child, origin.parent)?,
                Way::Elsewhere => {
                    self.nursery.unborn.remove(&child);
                }
            }
        }
        Ok(())
    }

    fn way_of(&self, child: ShardId, origin: &Origin) -> Way {
        if self.shared.slots.of(child).is_some() {
            return if self.nursery.unflushed.contains_key(&child) { Way::Wait } else { Way::Open };
        }
        // Who is to have it, and has nothing that it could begin with, gets it from the others.
        let others_have_it = if self.may_open(child) { Way::Empty } else { Way::Elsewhere };
        if !self.is_here(origin.parent) && !self.nursery.expects(origin.parent) && !self.may_open(origin.parent) {
            // Until its leader has said so, nobody has it: the parent may come back here first, and be split here.
            let there_is = self.system.placements.group(child).is_some();
            return if there_is || !self.may_open(child) { others_have_it } else { Way::Wait };
        }
        let Some(parent) = self.replicas.get(&origin.parent).map(Replica::machine) else { return Way::Wait };
        if self.nursery.building.contains_key(&child) {
            Way::Wait
        } else if parent.birth(child).is_some() {
            Way::Build
        } else if parent.meta().range.contains(&origin.start) {
            Way::Wait
        } else {
            others_have_it
        }
    }

    fn begin_building(&mut self, child: ShardId, parent: ShardId) -> Result<(), BootError> {
        let slot = self.shared.slots.allocate()?;
        if let Some(building) = self.replicas.get(&parent).and_then(|parent| parent.machine().build(child, slot)) {
            self.nursery.building.insert(child, building);
            self.go_on_building(child)?;
        }
        Ok(())
    }

    /// Copies some rows of each child that is being built.
    pub(super) fn build_children(&mut self) -> Result<(), BootError> {
        if self.shared.store.memory_bytes() >= 2 * self.shared.config.unflushed_bytes_max {
            return Ok(());
        }
        for child in self.nursery.building.keys().copied().collect::<Vec<_>>() {
            self.go_on_building(child)?;
        }
        Ok(())
    }

    /// A child opens when its rows are durable. Its log rests on them: whether its parent's log could bring them back after a crash is not certain, since
    /// a snapshot of the parent may come in place of that.
    fn go_on_building(&mut self, child: ShardId) -> Result<(), BootError> {
        let Some(building) = self.nursery.building.get_mut(&child) else { return Ok(()) };
        if building.step(CHILD_BYTES_PER_TICK)? {
            let slot = building.slot();
            self.nursery.building.remove(&child);
            self.shared.slots.switch(child, slot)?;
            if !self.sabotaged(Sabotage::ChildUnflushed) {
                self.nursery.unflushed.insert(child, None);
            }
        }
        Ok(())
    }

    fn open_child(&mut self, now: Instant, child: ShardId, parent: ShardId) -> Result<(), BootError> {
        self.nursery.unborn.remove(&child);
        self.open(now, child, &Membership::default())?;
        if self.replicas.get(&parent).is_some_and(Replica::leads) {
            // Somebody must lead it, and this node leads already.
            self.one(now, child, Replica::seek_leadership);
        }
        Ok(())
    }

    /// What the leaders here do about children: have the log say what the map says, and let go of what is no longer needed.
    pub(super) fn tend_children(&mut self, now: Instant) {
        let (keyspaces, placements) = (self.system.keyspaces.clone(), self.system.placements.clone());
        let parents = self.awake().filter(|(_, replica)| replica.leads()).map(|(shard, _)| shard);
        for shard in parents.collect::<Vec<_>>() {
            let births = self.replicas[&shard].machine().births();
            let births: Vec<_> = births.map(|birth| (birth.child, birth.index)).collect();
            let early = self.sabotaged(Sabotage::WeanEarly);
            // What a child's log has committed behind its birth, a majority has; so it has the child.
            let weaned = births.iter().find(|(child, index)| {
                // And what was merged since, another shard has.
                let said =
                    keyspaces.is_merged(*child) || placements.group(*child).is_some_and(|group| group.index > *index);
                early || said || self.replicas.get(child).is_some_and(|replica| replica.applied() > *index)
            });
            let weaned = weaned.map(|(child, _)| *child);
            self.one(now, shard, |replica, cx| replica.tend_children(&keyspaces, weaned, cx));
            for (child, _) in births {
                self.one(now, child, Replica::seek_leadership);
            }
        }
    }

    /// Whether a child is to begin here with what a shard's rows say.
    pub(super) fn owes_children(&self, parent: ShardId) -> bool {
        let born = |child| self.replicas.get(&parent).is_some_and(|parent| parent.machine().birth(child).is_some());
        self.nursery.unborn.iter().any(|(child, origin)| origin.parent == parent && born(*child))
    }

    fn sabotaged(&self, what: Sabotage) -> bool {
        self.shared.config.sabotage == Some(what)
    }
}
