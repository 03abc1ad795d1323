//! A run, cut into what each node would have recorded by a clock of its own, is put together again as it was.

use super::{Lane, MessageId, Record, Trace, TraceEvent};
use crate::{Options, run_seed};
use quorate_env::Rng;
use quorate_trace::{Life, LifeHead, PROCESS_VERSION, merge};
use std::collections::BTreeMap;

const HOUR_US: u64 = 3_600_000_000;

/// What the merge says of a life whose end nobody wrote down.
const OPEN_END: &str = "its record ends here";

/// Cuts a trace into one file for each node, each life by a clock that is up to an hour off. Clients are left out: their operations wander from node to node.
fn cut(trace: &Trace, rng: &mut Rng) -> Vec<Vec<Life>> {
    let mut files: BTreeMap<Lane, Vec<Life>> = BTreeMap::new();
    let mut begun: BTreeMap<Lane, u64> = BTreeMap::new();
    let mut receivers: BTreeMap<MessageId, Lane> = BTreeMap::new();
    for Record { at, event } in &trace.records {
        let Some(node) = node_of(event, &mut receivers) else { continue };
        if let (TraceEvent::Start { .. }, Lane::Node(id)) = (event, node) {
            begun.insert(node, *at);
            let members = trace.about.lanes.iter().filter_map(|lane| match lane {
                Lane::Node(id) => Some((*id, format!("n{id}"))),
                Lane::Client(_) | Lane::Watch(_) => None,
            });
            let wall = 10 * HOUR_US + at - HOUR_US + rng.below(2 * HOUR_US);
            let (name, members) = (format!("n{id}"), members.collect());
            let head = LifeHead { quorate_process: PROCESS_VERSION, cluster: 1, node: id, name, wall, members };
            files.entry(node).or_default().push(Life { head, records: Vec::new(), unrecorded: 0, record_ends: None });
            continue;
        }
        let Some(begins) = begun.get(&node) else { continue };
        let life = files.get_mut(&node).and_then(|lives| lives.last_mut()).expect("it began");
        let mut event = event.clone();
        if let TraceEvent::Send { message, .. } | TraceEvent::Deliver { message } = &mut event {
            // Each a connection of its own: the simulator's network keeps no order.
            message.0 <<= 33;
        }
        life.records.push(Record { at: at - begins, event });
        if let TraceEvent::Crash { .. } = life.records.last().expect("just pushed").event {
            begun.remove(&node);
        }
    }
    files.into_values().collect()
}

/// The node that an event happens to, if it is one that a process knows of.
fn node_of(event: &TraceEvent, receivers: &mut BTreeMap<MessageId, Lane>) -> Option<Lane> {
    match event {
        TraceEvent::Send { message, from, to, .. } => {
            receivers.insert(*message, *to);
            Some(*from)
        }
        TraceEvent::Deliver { message } => receivers.get(message).copied(),
        other => match other.lanes() {
            (node @ Some(Lane::Node(_)), None) => node,
            _ => None,
        },
    }
}

/// What happens on each lane, in order. A message is named after its sender and how many that had sent; so equal lanes are the same happens-before.
fn lanes(records: &[Record]) -> BTreeMap<Lane, Vec<TraceEvent>> {
    let mut lanes: BTreeMap<Lane, Vec<TraceEvent>> = BTreeMap::new();
    let mut names: BTreeMap<MessageId, (MessageId, u64)> = BTreeMap::new();
    let mut counts: BTreeMap<Lane, u64> = BTreeMap::new();
    let (mut receivers, mut up) = (BTreeMap::new(), BTreeMap::new());
    for Record { at, event } in records {
        let Some(node) = node_of(event, &mut receivers) else { continue };
        let mut event = event.clone();
        match &mut event {
            TraceEvent::Start { life, .. } => {
                *life = 0;
                up.insert(node, true);
            }
            TraceEvent::Send { message, from: Lane::Node(id), .. } => {
                let count = counts.entry(node).or_default();
                *count += 1;
                let name = MessageId((*id << 40) + *count);
                names.insert(*message, (name, *at));
                *message = name;
            }
            TraceEvent::Deliver { message } => {
                let (name, sent) = names[message];
                assert!(sent < *at, "{name:?} arrives after it was sent");
                *message = name;
            }
            TraceEvent::Crash { cause, .. } if cause == OPEN_END => continue,
            _ => {}
        }
        // What befalls a node that does not run, it cannot record.
        if !up.get(&node).copied().unwrap_or(false) {
            continue;
        }
        if matches!(event, TraceEvent::Crash { .. }) {
            up.insert(node, false);
        }
        lanes.entry(node).or_default().push(event);
    }
    lanes
}

#[test]
fn what_nodes_record_by_wrong_clocks_is_put_together_as_it_was() {
    for seed in 1..=6 {
        let trace = run_seed(seed, &Options { trace: true, ..Options::default() }).trace.expect("it was asked for");
        let (merged, omitted) = merge(cut(&trace, &mut Rng::new(seed))).expect("they belong together");
        assert_eq!((omitted.unsent, omitted.unheard, omitted.unnoticed, omitted.halves), (0, 0, 0, 0), "seed {seed}");
        assert!(merged.records.is_sorted_by_key(|record| record.at), "seed {seed}");
        let (expected, found) = (lanes(&trace.records), lanes(&merged.records));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "seed {seed}");
        for (lane, expected) in expected {
            let found = &found[&lane];
            let differ = expected.iter().zip(found).position(|(one, other)| one != other);
            let differ = differ.map(|at| (&expected[at], &found[at]));
            assert_eq!((differ, expected.len()), (None, found.len()), "seed {seed}, {lane}");
        }
        // The same files give the same trace.
        let again = merge(cut(&trace, &mut Rng::new(seed))).expect("they belong together");
        assert!(again.0 == merged, "seed {seed}");
    }
}
