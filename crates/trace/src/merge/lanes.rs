//! Which lane of the picture is whose. Ids of real nodes are long: nodes are numbered as they are named.

use crate::{Lane, Life, Record, TraceEvent};
use std::collections::{BTreeMap, BTreeSet};

/// The clients of the node with number 1 have numbers from here on, those of the second from twice that on.
pub(super) const CLIENTS_PER_NODE: u64 = 100;

/// The numbers of the nodes, by their ids.
pub(super) struct Lanes {
    numbers: BTreeMap<u64, u64>,
    recorded: BTreeSet<u64>,
}

impl Lanes {
    pub fn of(lives: &[Life]) -> Self {
        let mut names: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for life in lives {
            for id in life.records.iter().flat_map(|record| nodes_in(&record.event)) {
                names.entry(id).or_default();
            }
            names.extend(life.head.members.iter().map(|(id, name)| (*id, Some(name.clone()))));
        }
        names.extend(lives.iter().map(|life| (life.head.node, Some(life.head.name.clone()))));
        let recorded = lives.iter().map(|life| life.head.node).collect();
        Self { numbers: as_named(&names).unwrap_or_else(|| in_order(&names)), recorded }
    }

    pub fn of_node(&self, id: u64) -> Lane {
        Lane::Node(self.numbers.get(&id).copied().unwrap_or(id))
    }

    /// The lane that a lane in the file of a node becomes.
    pub fn rename(&self, lane: Lane, node: u64) -> Lane {
        let own = self.numbers.get(&node).copied().unwrap_or(0) * CLIENTS_PER_NODE;
        match lane {
            Lane::Node(id) => self.of_node(id),
            Lane::Client(number) => Lane::Client(own + number),
            Lane::Watch(number) => Lane::Watch(own + number),
        }
    }

    /// Of those whose record there is.
    pub fn nodes(&self) -> impl Iterator<Item = Lane> {
        self.recorded.iter().map(|id| self.of_node(*id)).collect::<BTreeSet<_>>().into_iter()
    }
}

/// Where every node is called n and a number, that is its number.
fn as_named(names: &BTreeMap<u64, Option<String>>) -> Option<BTreeMap<u64, u64>> {
    let number = |name: &Option<String>| name.as_deref()?.strip_prefix('n')?.parse::<u32>().ok().map(u64::from);
    let numbers: BTreeMap<u64, u64> =
        names.iter().map(|(id, name)| Some((*id, number(name)?))).collect::<Option<_>>()?;
    let distinct: BTreeSet<u64> = numbers.values().copied().collect();
    (distinct.len() == numbers.len()).then_some(numbers)
}

fn in_order(names: &BTreeMap<u64, Option<String>>) -> BTreeMap<u64, u64> {
    let mut ids: Vec<u64> = names.keys().copied().collect();
    ids.sort_by_key(|id| (names[id].is_none(), &names[id], *id));
    ids.into_iter().zip(1..).collect()
}

fn nodes_in(event: &TraceEvent) -> impl Iterator<Item = u64> {
    let leader = match event {
        TraceEvent::Role { leader, .. } => *leader,
        _ => None,
    };
    let (one, other) = event.lanes();
    [one, other, leader].into_iter().flatten().filter_map(|lane| match lane {
        Lane::Node(id) => Some(id),
        Lane::Client(_) | Lane::Watch(_) => None,
    })
}

/// Clients and watches that something happens to.
pub(super) fn clients(records: &[Record]) -> BTreeSet<Lane> {
    let lanes = records.iter().flat_map(|record| <[_; 2]>::from(record.event.lanes())).flatten();
    lanes.filter(|lane| !matches!(lane, Lane::Node(_))).collect()
}

/// Shards that something happens to.
pub(super) fn shards(records: &[Record]) -> Vec<u64> {
    let shards: BTreeSet<u64> = records.iter().filter_map(|record| record.event.shard()).collect();
    shards.into_iter().collect()
}
