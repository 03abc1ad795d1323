//! Nodes, and what connects them: a queue of what happens when.

use super::timed;
use quorate_cluster::{
    BootMember, Input, Merges, Node, NodeConfig, Outputs, PeerBody, PeerMessage, Request, RequestId, SplitLoad, Timing,
    bounds, wire,
};
use quorate_env::{ClusterId, Instant, NodeId, ShardId, WallMs};
use quorate_kv::{Command, KeyspaceId, Level, Txn};
use quorate_storage::store::{FlushJob, ModelStore};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The system keyspace's shard.
pub const SYSTEM: ShardId = ShardId(KeyspaceId::SYSTEM.0);

/// Microseconds that a message, a sync and a flush take: machines in one building, with disks that have a cache of their own.
const MESSAGE_US: u64 = 250;
const SYNC_US: u64 = 200;
const FLUSH_US: u64 = 5_000;

/// A client waits for so long.
const TIMEOUT: Duration = Duration::from_secs(10);

enum Event {
    Tick(usize),
    Arrive {
        from: usize,
        to: usize,
        messages: Vec<PeerMessage>,
    },
    Synced {
        node: usize,
        ticket: u64,
    },
    Flushed {
        node: usize,
        ticket: u64,
        job: Box<dyn FlushJob>,
    },
    /// What came too early for a busy node.
    Retry {
        node: usize,
    },
}

/// What was spent since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub messages: u64,
    pub bytes: u64,
    pub copied: u64,
    pub busy: Duration,
}

/// How long a node takes for what it is told, in microseconds of simulated time: for each time that it looks, and for each thing that it finds then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    pub turn_us: u64,
    pub input_us: u64,
}

struct Machine {
    core: Option<Node>,
    /// What waits until the node has time.
    inbox: Vec<Input>,
    free_at: u64,
    looks: bool,
}

pub struct World {
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    machines: Vec<Machine>,
    service: Service,
    spent: Spent,
    next_request: RequestId,
    waiting: BTreeSet<RequestId>,
    answered: Vec<RequestId>,
    failed: Option<String>,
}

impl World {
    pub fn new(nodes: usize, evict_after: Duration) -> Self {
        let members: Vec<BootMember> = (1..=nodes as u64)
            .map(|id| BootMember { id: NodeId(id), name: format!("n{id}"), peer_address: String::new() })
            .collect();
        let machines = members.iter().map(|member| Machine {
            core: Some(boot(member.id, &members, evict_after)),
            inbox: Vec::new(),
            free_at: 0,
            looks: false,
        });
        let mut world = Self {
            now: 1,
            sequence: 0,
            queue: BTreeMap::new(),
            machines: machines.collect(),
            service: Service::default(),
            spent: Spent::default(),
            next_request: 1,
            waiting: BTreeSet::new(),
            answered: Vec::new(),
            failed: None,
        };
        let tick = Timing::default().tick.as_micros() as u64;
        for node in 0..nodes {
            // They do not all tick at one moment.
            world.after(1 + tick * node as u64 / nodes as u64, Event::Tick(node));
        }
        world
    }

    pub fn set_service(&mut self, service: Service) {
        self.service = service;
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        let all: Range<usize> = 0..self.machines.len();
        all.filter(|node| self.is_up(*node))
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.machines[node].core.is_some()
    }

    /// A node that runs.
    pub fn core(&self, node: usize) -> &Node {
        self.machines[node].core.as_ref().expect("it runs")
    }

    /// A node is gone for good, and its connections close.
    pub fn lose(&mut self, node: usize) {
        self.machines[node].core = None;
        for other in self.nodes().collect::<Vec<_>>() {
            self.tell(other, Input::PeerDown(NodeId(node as u64 + 1)));
        }
    }

    /// Asks a node to have something done in a shard.
    pub fn submit(&mut self, node: usize, shard: ShardId, txn: Txn) -> RequestId {
        let id = self.next_request;
        self.next_request += 1;
        self.waiting.insert(id);
        let request = Request::Submit { shard, command: Command::Transact(txn) };
        self.tell(node, Input::Request { id, timeout: TIMEOUT, request });
        id
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that were done since this was last asked.
    pub fn take_answered(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.answered)
    }

    pub fn take_spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    /// Lets time pass until something is so. It is looked at now and then.
    pub fn until(&mut self, patience_us: u64, mut is: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let end = self.now + patience_us;
        while !is(self) {
            if self.now >= end {
                return Err(format!("not within {patience_us} us"));
            }
            self.pass(100_000)?;
        }
        Ok(())
    }

    /// Lets time pass.
    pub fn pass(&mut self, us: u64) -> Result<(), String> {
        let end = self.now + us;
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= end) {
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            self.happen(event);
            if let Some(why) = self.failed.take() {
                return Err(why);
            }
        }
        self.now = end;
        Ok(())
    }

    fn after(&mut self, us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + us, self.sequence), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node) => {
                if self.is_up(node) {
                    self.after(Timing::default().tick.as_micros() as u64, Event::Tick(node));
                    self.tell(node, Input::Tick { wall: WallMs(self.now / 1_000) });
                }
            }
            Event::Arrive { from, to, messages } => {
                let from = NodeId(from as u64 + 1);
                self.tell_all(to, messages.into_iter().map(|message| Input::Peer { from, message }).collect());
            }
            Event::Synced { node, ticket } => self.tell(node, Input::Persisted { ticket }),
            Event::Flushed { node, ticket, job } => {
                if let Err(e) = job.run() {
                    self.failed.get_or_insert(e.to_string());
                }
                self.tell(node, Input::Flushed { ticket });
            }
            Event::Retry { node } => {
                self.machines[node].looks = false;
                self.tell_all(node, Vec::new());
            }
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        self.tell_all(node, vec![input]);
    }

    /// A node takes what has arrived, all at once if it has had no time before.
    fn tell_all(&mut self, node: usize, inputs: Vec<Input>) {
        let (now, service, machine) = (self.now, self.service, &mut self.machines[node]);
        machine.inbox.extend(inputs);
        if machine.free_at > now {
            if !std::mem::replace(&mut machine.looks, true) {
                let wait = machine.free_at - now;
                self.after(wait, Event::Retry { node });
            }
            return;
        }
        let inbox = std::mem::take(&mut machine.inbox);
        let Some(core) = machine.core.as_mut().filter(|_| !inbox.is_empty()) else { return };
        let takes = service.turn_us + service.input_us * inbox.len() as u64;
        machine.free_at = now + takes;
        let (outputs, busy) = timed(|| {
            inbox.into_iter().for_each(|input| core.step(Instant(now), input));
            core.drain(Instant(now))
        });
        self.spent.busy += busy;
        self.carry_out(node, takes, outputs);
    }

    fn carry_out(&mut self, node: usize, takes: u64, outputs: Outputs) {
        if let Some(why) = outputs.fatal {
            self.failed.get_or_insert(format!("n{}: {why}", node + 1));
        }
        if let Some(persist) = outputs.persist {
            self.after(takes + SYNC_US, Event::Synced { node, ticket: persist.ticket });
        }
        if let Some(task) = outputs.flush {
            self.after(takes + FLUSH_US, Event::Flushed { node, ticket: task.ticket, job: task.job });
        }
        for (request, answer) in outputs.replies {
            // Those that nobody here has asked are the node's own.
            if self.waiting.remove(&request) {
                match answer {
                    Ok(_) => self.answered.push(request),
                    Err(e) => {
                        self.failed.get_or_insert(e.to_string());
                    }
                }
            }
        }
        if outputs.unfinished {
            self.tell(node, Input::GoOn);
        }
        let mut by_peer: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        outputs.messages.into_iter().for_each(|(to, message)| by_peer.entry(to).or_default().push(message));
        for (to, messages) in by_peer {
            self.spent.messages += messages.len() as u64;
            self.spent.bytes += wire::encode_batch(messages.iter()).len() as u64;
            self.spent.copied += messages.iter().map(copied).sum::<u64>();
            self.after(takes + MESSAGE_US, Event::Arrive { from: node, to: to.0 as usize - 1, messages });
        }
    }
}

/// Bytes of rows that a message brings a replica up with.
fn copied(message: &PeerMessage) -> u64 {
    match &message.body {
        PeerBody::Chunk { chunk, .. } => chunk.rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum(),
        _ => 0,
    }
}

fn boot(node: NodeId, members: &[BootMember], evict_after: Duration) -> Node {
    let config = NodeConfig {
        cluster: ClusterId(1),
        node,
        members: members.to_vec(),
        known: members.iter().map(|member| member.id).collect(),
        level: Level::LATEST,
        zone: String::new(),
        evict_after,
        balance_pause: bounds::BALANCE_PAUSE,
        clock_bound: None,
        timing: Timing::default(),
        flush_bytes: bounds::FLUSH_BYTES,
        unflushed_bytes_max: bounds::UNFLUSHED_BYTES_MAX,
        log_keep_bytes: bounds::LOG_KEEP_BYTES,
        log_hold_bytes: bounds::LOG_HOLD_BYTES,
        batch_bytes: quorate_kv::limits::BATCH_BYTES_MAX,
        apply_bytes: bounds::APPLY_BYTES,
        chunk_bytes: bounds::CHUNK_BYTES,
        split_bytes: u64::MAX,
        split_load: SplitLoad::NEVER,
        merges: Merges::NEVER,
        early_entries: bounds::EARLY_ENTRIES_MAX,
        sabotage: None,
    };
    let store = Arc::new(ModelStore::new());
    Node::boot(config, store, None, &Default::default(), Instant(1), node.0).expect("an empty disk can be started from")
}
