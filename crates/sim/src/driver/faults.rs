//! What fails, when, and what becomes of it.

use super::disks::DiskTrouble;
use super::twins::How;
use super::{Event, Step, StoreKind, World};
use crate::clock::Speed;
use crate::fault::Fault;
use crate::lies::AppliedLies;
use crate::net::{CALM, Net};
use crate::trace::recorder::node_lane;
use crate::trace::{TraceEvent, Way};
use quorate_cluster::Input;
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
        if self.wounds.forgetful.is_some() {
            // Nothing else fails until it is found out.
            self.schedule_fault(fault);
            return Ok(());
        }
        self.played.faults.push((self.now, fault, self.rng.clone()));
        let node = self.victim();
        // A crash is counted where it happens, and what a disk does where it shows.
        let shows_later = fault.needs_twin() || matches!(fault, Fault::PlannedStop);
        if !shows_later && !matches!(fault, Fault::Crash | Fault::PowerCut | Fault::DiskError | Fault::Struck(_)) {
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
                self.set_clock_right(node);
                self.nodes[node].clock.freeze(self.now);
                self.note(node, "its monotonic clock stands still");
                self.ease_later(node);
                // Who leads then cannot know that its time is over.
                if self.rng.chance(500) {
                    self.separate(node, Fault::Cut);
                }
            }
            Fault::Speed | Fault::WallSpeed => {
                let speed = if self.rng.chance(500) { Speed::Double } else { Speed::Half };
                let text = self.run_at(node, speed, fault);
                self.note(node, text);
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
            Fault::OldImage => {
                self.keep_image(node, How::OldImage);
                self.note(node, "an image of its disk is kept");
                self.crash_later(node, 4_000_000);
            }
            Fault::LyingDisk => {
                self.keep_image(node, How::Lied);
                self.note(node, "its disk says that it syncs, and does not");
                self.ease_later(node);
                self.crash_later(node, 1_500_000);
            }
            Fault::Misdirect => {
                self.nodes[node].trouble.misdirects = true;
                self.crash_later(node, 1_500_000);
            }
            Fault::DiskError => self.nodes[node].trouble.fails = true,
            Fault::PlannedStop => self.begin_stop(node)?,
            Fault::MoveLeader => self.move_leader(node)?,
            Fault::Struck(node) => self.crash(node, fault.mark()),
        }
        self.schedule_fault(fault);
        Ok(())
    }

    /// Whom a fault hits. Who leads has most to lose.
    fn victim(&mut self) -> usize {
        // Of a few that are gone some may be hit, in vain. In a long run most of all that ever were are gone.
        let there = if self.plan.is_long() { self.not_retired() } else { (0..self.nodes.len()).collect() };
        let anybody = there[self.rng.below(there.len() as u64) as usize];
        if self.rng.chance(300) { self.leading().unwrap_or(anybody) } else { anybody }
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

    /// The node's process ends within so many microseconds.
    fn crash_later(&mut self, node: usize, within: u64) {
        let wait = self.rng.between(1, within);
        // A script has it among its faults.
        if self.script.is_none() {
            self.after(wait, Event::Fault(Fault::Struck(node)));
        }
    }

    /// Cuts a node off from all others, or clogs its links.
    fn separate(&mut self, node: usize, fault: Fault) {
        let one_way = self.rng.chance(300);
        let inbound = self.rng.chance(500);
        if one_way {
            self.mark(if fault == Fault::Clog { "clog one way" } else { "cut one way" });
        }
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

    /// One of a node's clocks runs at a wrong speed. Says what is said of that.
    fn run_at(&mut self, node: usize, speed: Speed, fault: Fault) -> &'static str {
        let clock = &mut self.nodes[node].clock;
        if fault == Fault::WallSpeed {
            clock.run_wall_at(self.now, speed);
            return match speed {
                Speed::Double => "its wall clock runs at double speed",
                Speed::Half => "its wall clock runs at half speed",
            };
        }
        clock.run_at(self.now, speed);
        self.leases.hurries(node, speed == Speed::Double, self.now);
        let (mark, text) = match speed {
            Speed::Double => ("clock at double speed", "its monotonic clock runs at double speed"),
            Speed::Half => ("clock at half speed", "its monotonic clock runs at half speed"),
        };
        self.mark(mark);
        text
    }

    fn set_clock_right(&mut self, node: usize) {
        self.nodes[node].clock.set_right(self.now);
        self.leases.hurries(node, false, self.now);
    }

    fn ease_later(&mut self, node: usize) {
        let wait = self.rng.between(500_000, 5_000_000);
        self.after(wait, Event::Ease { node });
    }

    /// A node's disk and clock are well again.
    pub(super) fn ease(&mut self, node: usize) -> Step {
        self.set_clock_right(node);
        self.end_lie(node);
        let trouble = std::mem::take(&mut self.nodes[node].trouble);
        self.note(node, "its disk and clock are well");
        if trouble.full {
            self.feed(node, Input::Space { exhausted: false })?;
        }
        Ok(())
    }

    pub(super) fn note(&mut self, node: usize, text: &str) {
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
        self.roll_out();
        self.to_prove = self.lasting();
        self.clients.iter_mut().for_each(|client| client.renews = false);
        Ok(())
    }

    pub(super) fn crash(&mut self, node: usize, what: &'static str) {
        let bug = self.driver_bug();
        let Some(core) = self.nodes[node].node.take() else { return };
        self.acks.forget_losses(&core);
        self.set_clock_right(node);
        self.seen.forget(node);
        self.forget_sleepers(node);
        let this = &mut self.nodes[node];
        this.life += 1;
        this.paused = false;
        this.parked.clear();
        this.doomed = None;
        this.trouble = DiskTrouble::default();
        this.queue.clear();
        this.flushing = None;
        this.flushing_late = None;
        this.wal = None;
        if let Some(syncing) = this.syncing.take() {
            // What was on its way to the disk got some way.
            let done = self.disk_rng.below(syncing.ops.len() as u64 + 1) as usize;
            self.run_on_disk(node, &syncing.ops[..done]);
        }
        self.crash_twin(node);
        let this = &mut self.nodes[node];
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
        self.tellers_lose(node);
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
