//! What fails, when, and what becomes of it.

use super::disks::DiskTrouble;
use super::{Event, LIMITS, Step, StoreKind, World, memory_folder};
use crate::fault::Fault;
use crate::lies::AppliedLies;
use crate::net::{CALM, Net};
use crate::rot;
use crate::trace::recorder::node_lane;
use crate::trace::{TraceEvent, Way};
use quorate_cluster::Input;
use quorate_storage::store::{ModelStore, Store};
use quorate_storage::wal::WalIdentity;
use std::sync::Arc;

impl World<'_> {
    pub(super) fn schedule_fault(&mut self, fault: Fault) {
        if let Some(every) = self.plan.faults.get(&fault).copied()
            && !self.calm
        {
            let wait = self.rng.between(every / 4, every * 2);
            if self.script.is_none() {
                self.after(wait, Event::Fault(fault));
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Step {
        if self.calm {
            return Ok(());
        }
        self.played.faults.push((self.now, fault, self.rng.clone()));
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        // A crash is counted where it happens.
        if !matches!(fault, Fault::Crash | Fault::PowerCut | Fault::DiskError | Fault::PlannedStop | Fault::Struck(_)) {
            self.mark(fault.mark());
            self.report.faults += 1;
        }
        match fault {
            Fault::Crash => {
                // Some crash at once, some between two outputs of a later step.
                if self.rng.chance(500) {
                    self.crash(node, "crash");
                } else {
                    let outputs = self.rng.below(6);
                    self.nodes[node].doomed = Some(outputs);
                }
            }
            Fault::PowerCut => (0..self.nodes.len()).for_each(|node| self.crash(node, "power cut")),
            Fault::Cut | Fault::Clog => self.separate(node, fault),
            Fault::Pause => {
                self.still(node);
                let wait = self.rng.between(100_000, 3_000_000);
                self.after(wait, Event::Resume { node });
            }
            Fault::Stutter => {
                let life = self.nodes[node].life;
                let mut at = 1;
                for _ in 0..self.rng.between(10, 60) {
                    self.after(at, Event::Still { node, life });
                    at += self.rng.between(5_000, 60_000);
                    self.after(at, Event::Resume { node });
                    at += self.rng.between(1_000, 40_000);
                }
            }
            Fault::Jump => {
                let rng = &mut self.rng;
                self.nodes[node].clock.jump(rng);
                self.trace(|| TraceEvent::ClockJump { node: node_lane(node) });
            }
            Fault::Freeze => {
                self.nodes[node].clock.freeze(self.now);
                self.note(node, "its monotonic clock stands still");
                self.ease_later(node);
            }
            Fault::SlowDisk => {
                self.nodes[node].trouble.slow = self.rng.between(10, 200);
                self.note(node, "its disk becomes slow");
                self.ease_later(node);
            }
            Fault::FullDisk => {
                let log_full = self.rng.chance(300);
                let this = &mut self.nodes[node];
                (this.trouble.full, this.trouble.log_full) = (true, log_full);
                self.note(node, "its disk is full");
                self.after(1, Event::Space { node });
                self.ease_later(node);
            }
            Fault::DiskError => self.nodes[node].trouble.fails = true,
            Fault::PlannedStop => self.begin_stop(node)?,
            Fault::MoveLeader => self.move_leader(node)?,
            Fault::Struck(node) => self.crash(node, fault.mark()),
        }
        self.schedule_fault(fault);
        Ok(())
    }

    /// A node is at a delicate moment: something becomes true that is not durable yet.
    pub(super) fn strike(&mut self, node: usize) {
        if self.calm || !self.plan.faults.contains_key(&Fault::Crash) {
            return;
        }
        let (struck, wait) = (self.rng.chance(200), self.rng.between(1, 100_000));
        // A script has it among its faults.
        if struck && self.script.is_none() {
            self.after(wait, Event::Fault(Fault::Struck(node)));
        }
    }

    /// Cuts a node off from all others, or clogs its links.
    fn separate(&mut self, node: usize, fault: Fault) {
        let one_way = self.rng.chance(300);
        let inbound = self.rng.chance(500);
        let separate = if fault == Fault::Clog { Net::clog } else { Net::cut };
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if !one_way || inbound {
                separate(&mut self.net, other, node);
            }
            if !one_way || !inbound {
                separate(&mut self.net, node, other);
            }
        }
        match (fault, one_way, inbound) {
            (Fault::Clog, false, _) => self.note(node, "its links hold everything"),
            (Fault::Clog, true, true) => self.note(node, "its links hold what comes"),
            (Fault::Clog, true, false) => self.note(node, "its links hold what goes"),
            (_, false, _) => self.trace(|| TraceEvent::Cut { node: node_lane(node), way: Way::Both }),
            (_, true, true) => self.trace(|| TraceEvent::Cut { node: node_lane(node), way: Way::In }),
            (_, true, false) => self.trace(|| TraceEvent::Cut { node: node_lane(node), way: Way::Out }),
        }
        let wait = self.rng.between(200_000, 4_000_000);
        self.after(wait, Event::Heal);
    }

    pub(super) fn still(&mut self, node: usize) {
        self.nodes[node].paused = true;
        self.trace(|| TraceEvent::Pause { node: node_lane(node) });
    }

    fn ease_later(&mut self, node: usize) {
        let wait = self.rng.between(500_000, 5_000_000);
        self.after(wait, Event::Ease { node });
    }

    /// A node's disk and clock are well again.
    pub(super) fn ease(&mut self, node: usize) -> Step {
        self.nodes[node].clock.thaw(self.now);
        let trouble = std::mem::take(&mut self.nodes[node].trouble);
        self.note(node, "its disk and clock are well");
        if trouble.full {
            self.feed(node, Input::Space { exhausted: false })?;
        }
        Ok(())
    }

    fn note(&mut self, node: usize, text: &str) {
        self.trace(|| TraceEvent::Note { node: node_lane(node), text: text.into() });
    }

    pub(super) fn become_calm(&mut self) -> Step {
        self.calm = true;
        self.heal();
        self.net.weather = CALM;
        self.trace(|| TraceEvent::Calm);
        for node in 0..self.nodes.len() {
            self.nodes[node].doomed = None;
            self.ease(node)?;
            if self.nodes[node].node.is_none() && !self.churn.is_retired(node) {
                self.start(node)?;
            }
            if self.nodes[node].paused {
                self.happen(Event::Resume { node })?;
            }
        }
        self.to_prove = self.lasting();
        self.clients.iter_mut().for_each(|client| client.renews = false);
        Ok(())
    }

    /// At some starts the log has changed while nobody looked.
    pub(super) fn rot(&mut self, node: usize, identity: &WalIdentity) {
        let free = self.rotten.is_none_or(|rotten| rotten == node) && !self.churn.is_fragile();
        if self.calm || !free || !self.rot_rng.chance(self.plan.rot_per_mille) {
            return;
        }
        if rot::strike(&mut self.nodes[node].disk, identity, LIMITS, &mut self.rot_rng) {
            self.rotten = Some(node);
            self.mark("entry rotted");
            self.report.faults += 1;
        }
    }

    /// At some starts the store is damaged: an empty one is in its place, and what is left of it is returned.
    pub(super) fn damage(&mut self, node: usize) -> Option<Arc<dyn Store>> {
        let free = self.rotten.is_none_or(|rotten| rotten == node) && !self.churn.is_fragile();
        if self.calm || !free || !self.rot_rng.chance(self.plan.damage_per_mille) {
            return None;
        }
        self.rotten = Some(node);
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

    pub(super) fn crash(&mut self, node: usize, what: &'static str) {
        let (bug, now) = (self.driver_bug(), self.now);
        let this = &mut self.nodes[node];
        if this.node.take().is_none() {
            return;
        }
        this.life += 1;
        this.paused = false;
        this.parked.clear();
        this.doomed = None;
        this.clock.thaw(now);
        this.trouble = DiskTrouble::default();
        this.queue.clear();
        this.flushing = None;
        this.flushing_late = None;
        this.wal = None;
        if let Some(syncing) = this.syncing.take() {
            // What was on its way to the disk got some way.
            let done = self.disk_rng.below(syncing.ops.len() as u64 + 1) as usize;
            syncing.ops[..done].iter().for_each(|op| this.disk.run(op));
        }
        let lies = AppliedLies { bug, older: std::mem::take(&mut this.older_meta) };
        let torn = this.disk.crash(&mut self.disk_rng);
        match &mut this.store {
            StoreKind::Model(store) => {
                let crashed = store.crash();
                lies.tell(store, &crashed);
                *store = Arc::new(crashed);
            }
            StoreKind::Real { store, .. } => *store = None,
        }
        self.mark(what);
        if torn {
            self.mark("torn write");
        }
        if self.leaders_busy.get(&node) == Some(&true) {
            self.mark("leader deposed with entries in flight");
        }
        self.report.faults += 1;
        self.trace(|| TraceEvent::Crash { node: node_lane(node), cause: what.into() });
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let wait = self.rng.between(200, 3_000);
            self.after(wait, Event::PeerDown { node: peer, peer: node });
        }
        for client in 0..self.clients.len() {
            if self.clients[client].in_flight.as_ref().is_some_and(|(_, f)| f.node == node) {
                self.give_up(client);
            }
        }
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].node == node {
                self.watchers[watcher].catching_up = None;
                self.watchers[watcher].key = 0;
                self.after(100_000, Event::Watch { watcher });
            }
        }
        let wait = self.rng.between(20_000, 3_000_000);
        self.after(wait, Event::Restart { node });
    }
}
