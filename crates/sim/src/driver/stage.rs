//! A world in which nothing happens but what a scenario asks for: the same nodes, checks and trace, with the faults and the questions of a script.

use super::{Event, Step, World};
use crate::Options;
use crate::client::{Client, Kind, SHARD};
use crate::history::Violation;
use crate::plan::Plan;
use crate::trace::recorder::node_lane;
use crate::trace::{Outcome, Trace, TraceEvent, Way};
use quorate_cluster::Request;
use quorate_consensus::Role;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Longer than any scenario.
const NEVER_US: u64 = 1 << 50;

pub(crate) struct Stage {
    world: World<'static>,
    nodes: usize,
}

impl Stage {
    /// Nodes that have started, and clients that ask only what they are told to.
    pub fn new(seed: u64, nodes: usize, clients: usize) -> Self {
        let plan = Plan { think_us: (NEVER_US, NEVER_US), ..Plan::quiet(nodes, clients) };
        let mut world = World::new(seed, Options { trace: true, ..Options::default() }, plan);
        for node in 0..nodes {
            world.start(node).expect("an empty disk can be started from");
        }
        Self { world, nodes }
    }

    /// Lets time pass.
    pub fn pass_ms(&mut self, ms: u64) -> Step {
        let end = self.world.now + ms * 1_000;
        while let Some(Reverse(at)) = self.world.heap.peek().copied().filter(|Reverse(at)| at.0 <= end) {
            self.world.heap.pop();
            self.world.now = at.0;
            let event = self.world.events.remove(&at).expect("every heap entry has its event");
            self.world.happen(event)?;
        }
        self.world.now = end;
        Ok(())
    }

    /// Who believes to lead, by term: the last is the one to ask.
    pub fn leaders(&self) -> BTreeMap<u64, usize> {
        let looks =
            self.world.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.node.as_ref()?.inspect(SHARD)?)));
        looks.filter(|(_, look)| look.role == Role::Leader).map(|(node, look)| (look.term.0, node)).collect()
    }

    /// The leader, once there is one.
    pub fn leader(&mut self) -> Result<usize, Violation> {
        for _ in 0..100 {
            self.pass_ms(100)?;
            if let Some((_, leader)) = self.leaders().pop_last() {
                return Ok(leader);
            }
        }
        Err(Violation { rule: "every node serves again", detail: "nobody leads after ten seconds".into() })
    }

    /// Those that are not named, in order.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        (0..self.nodes).filter(|node| !but.contains(node)).collect()
    }

    /// Cuts these off from all others; among themselves they can talk.
    pub fn cut(&mut self, side: &[usize]) {
        for node in side {
            for other in self.others(side) {
                self.world.net.cut(*node, other);
                self.world.net.cut(other, *node);
            }
            self.world.trace(|| TraceEvent::Cut { node: node_lane(*node), way: Way::Both });
        }
    }

    pub fn heal(&mut self) {
        self.world.heal();
    }

    pub fn pause(&mut self, node: usize) {
        self.world.nodes[node].paused = true;
        self.world.trace(|| TraceEvent::Pause { node: node_lane(node) });
    }

    pub fn resume(&mut self, node: usize) -> Step {
        self.world.happen(Event::Resume { node })
    }

    /// All nodes lose power at once, and what their disks had not synced; each starts again within three seconds.
    pub fn power_cut(&mut self) {
        (0..self.nodes).for_each(|node| self.world.crash(node, "power cut"));
    }

    pub fn put(&mut self, client: usize, node: usize, key: &str, value: &str) -> Result<u64, Violation> {
        let operation = self.world.next_operation;
        let question = self.world.clients[client].put(operation, key, value);
        self.ask(client, node, question)
    }

    pub fn read(&mut self, client: usize, node: usize, key: &str) -> Result<u64, Violation> {
        self.ask(client, node, Client::read(key))
    }

    fn ask(&mut self, client: usize, node: usize, (kind, request): (Kind, Request)) -> Result<u64, Violation> {
        assert!(self.world.clients[client].in_flight.is_none(), "a client asks one thing at a time");
        let operation = self.world.next_operation;
        self.world.next_operation += 1;
        self.world.ask(client, node, operation, kind, request, false)?;
        Ok(operation)
    }

    /// What its client has heard of an operation, and when.
    pub fn heard(&self, operation: u64) -> Option<(u64, Outcome)> {
        let records = self.world.recorder.as_ref().map_or(&[][..], |recorder| recorder.records());
        records.iter().find_map(|record| match &record.event {
            TraceEvent::Answer { operation: of, outcome, .. } if *of == operation => Some((record.at, *outcome)),
            TraceEvent::GiveUp { operation: of, .. } if *of == operation => Some((record.at, Outcome::Unknown)),
            _ => None,
        })
    }

    pub fn done(&self, operation: u64) -> bool {
        matches!(self.heard(operation), Some((_, Outcome::Done)))
    }

    pub fn now(&self) -> u64 {
        self.world.now
    }

    /// What the committed log says that a key holds.
    pub fn committed(&self, key: &str) -> Option<String> {
        self.world.order.model.value(key)
    }

    /// Whether every node runs and has applied everything that is committed. That the results are equal is checked at every step.
    pub fn settled(&self) -> bool {
        let committed = self.world.raft.committed(SHARD) as u64;
        let looks = self.world.nodes.iter().map(|node| node.node.as_ref().and_then(|node| node.inspect(SHARD)));
        looks.into_iter().all(|look| look.is_some_and(|look| look.applied.0 == committed))
    }

    pub fn finish(self) -> Trace {
        let now = self.world.now;
        self.world.recorder.expect("a stage is traced").finish(now)
    }
}
