//! Writes a trace while the world turns.

use super::{About, Lane, Loss, MessageId, Record, TRACE_VERSION, Trace, TraceEvent};
use crate::plan::{BankPlan, Plan};
use crate::planted::Planted;
use quorate_cluster::{Inspection, PeerMessage, SplitLoad};
use quorate_env::ShardId;
use quorate_kv::KeyspaceId;
use quorate_trace::{Looks, words};

/// The lane of the node that the driver counts as `node`.
pub(crate) fn node_lane(node: usize) -> Lane {
    Lane::Node(node as u64 + 1)
}

#[derive(Debug)]
pub(crate) struct Recorder {
    trace: Trace,
    looks: Looks,
}

impl Recorder {
    pub fn new(seed: u64, planted: Option<&Planted>, plan: &Plan) -> Self {
        let sabotage = planted.map_or_else(String::new, |planted| format!(" --break {}", planted.name));
        let comers = if plan.replaces() { plan.comers_max } else { 0 };
        let nodes = (0..plan.nodes + comers).map(node_lane);
        let tellers = plan.bank.map_or(0, |bank| bank.tellers);
        let clients = (0..plan.clients as u64 + tellers).map(Lane::Client);
        // The first that is made has this number, and its shards the next ones.
        let made = KeyspaceId::FIRST_MADE.0;
        let splits = |bank: BankPlan| match (plan.split_bytes, bank.split_every_us) {
            (u64::MAX, None) if plan.split_load == SplitLoad::NEVER => 0,
            (u64::MAX, Some(_)) => bank.splits_max as u64,
            // Those that come by themselves.
            _ => 4 * bank.splits_max as u64,
        };
        let shards = plan.bank.map_or(0, |bank| bank.shards + splits(bank));
        let shards = [KeyspaceId::SYSTEM.0, KeyspaceId::DEFAULT.0].into_iter().chain(made + 1..=made + shards);
        let watches = (0..plan.watchers as u64).map(Lane::Watch);
        let about = About {
            quorate_trace: TRACE_VERSION,
            title: planted.map_or_else(|| format!("Seed {seed}"), |p| format!("Seed {seed}, broken: {}", p.name)),
            command: format!("quorate sim --seed {seed}{sabotage}"),
            story: story(planted, plan),
            lanes: nodes.chain(clients).chain(watches).collect(),
            shards: shards.collect(),
        };
        Self { trace: Trace { about, records: Vec::new() }, looks: Looks::default() }
    }

    pub fn record(&mut self, at: u64, event: TraceEvent) {
        if let TraceEvent::Start { node, .. } = event {
            self.looks.forget(node);
        }
        self.trace.records.push(Record { at, event });
    }

    /// The messages of a frame leave; the first of them has the id `first`, the others follow.
    pub fn sent(&mut self, at: u64, from: usize, to: usize, first: u64, messages: &[PeerMessage]) {
        let (from, to) = (node_lane(from), node_lane(to));
        for (message, id) in messages.iter().zip(first..) {
            let (shard, said) = (message.shard.0, words::said(&message.body));
            self.record(at, TraceEvent::Send { message: MessageId(id), from, to, shard, said });
        }
    }

    /// A frame of `count` messages does not arrive.
    pub fn lost(&mut self, at: u64, first: u64, count: usize, why: Loss) {
        for id in (first..).take(count) {
            self.record(at, TraceEvent::Lose { message: MessageId(id), why });
        }
    }

    /// How a replica looks after a step.
    pub fn look(&mut self, at: u64, node: usize, shard: ShardId, now: &Inspection) {
        let records = &mut self.trace.records;
        self.looks.look(node_lane(node), shard, now, |event| records.push(Record { at, event }));
    }

    /// What happened so far.
    pub fn records(&self) -> &[Record] {
        &self.trace.records
    }

    pub fn finish(mut self, at: u64) -> Trace {
        self.record(at, TraceEvent::End);
        self.trace
    }
}

/// What the seed drew, in sentences.
fn story(planted: Option<&Planted>, plan: &Plan) -> Vec<String> {
    let seconds = |us: u64| us as f64 / 1e6;
    let millis = |us: u64| us as f64 / 1e3;
    let percent = |per_mille: u64| per_mille as f64 / 10.0;
    let mut story = Vec::new();
    story.extend(planted.map(|planted| format!("Broken on purpose: {}.", planted.what)));
    story.push(format!(
        "{} nodes, {} clients, {} watch{}, on {}.",
        plan.nodes,
        plan.clients,
        plan.watchers,
        if plan.watchers == 1 { "" } else { "es" },
        if plan.real_store { "the real store" } else { "the model of a store" }
    ));
    story.push(format!(
        "A storm of {:.0} s in which anything may fail, then a calm of {:.0} s in which everything must recover.",
        seconds(plan.storm_us),
        seconds(plan.calm_us)
    ));
    let weather = plan.weather;
    story.push(format!(
        "The network takes {:.2} to {:.1} ms, drops {:.1} % of the messages, doubles {:.1} % and holds {:.1} % up to twenty times as long.",
        millis(weather.delay_us.0),
        millis(weather.delay_us.1),
        percent(weather.drop_per_mille),
        percent(weather.duplicate_per_mille),
        percent(weather.straggler_per_mille)
    ));
    story.push(format!(
        "A log sync takes {:.2} to {:.1} ms, a store flush {:.0} to {:.0} ms.",
        millis(plan.sync_us.0),
        millis(plan.sync_us.1),
        millis(plan.flush_us.0),
        millis(plan.flush_us.1)
    ));
    let faults: Vec<String> = plan
        .faults
        .iter()
        .map(|(fault, every)| format!("{} about every {:.0} s", fault.words(), seconds(*every)))
        .collect();
    story.push(match faults.is_empty() {
        true => "No other faults.".into(),
        false => format!("Faults: {}.", faults.join(", ")),
    });
    story
}
