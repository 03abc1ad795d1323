//! Which lane of the picture is whose. Ids of real nodes are long: nodes are numbered as they are named.

use crate::{Lane, Life, LifeHead, Record, TraceEvent};
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
        let mut born: BTreeMap<u64, u64> = BTreeMap::new();
        for LifeHead { node, wall, .. } in lives.iter().map(|life| &life.head) {
            born.entry(*node).and_modify(|born| *born = *wall.min(born)).or_insert(*wall);
        }
        Self { numbers: as_named(&names, &born).unwrap_or_else(|| in_order(&names)), recorded }
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

/// Where nodes are called n and a number, that is their number. Of two of the same name, one of which came back with another disk, the first to live
/// has it; others, and those whose name nobody knows, get numbers that nobody has.
fn as_named(names: &BTreeMap<u64, Option<String>>, born: &BTreeMap<u64, u64>) -> Option<BTreeMap<u64, u64>> {
    let mut ids: Vec<u64> = names.keys().copied().collect();
    ids.sort_by_key(|id| (born.get(id).copied().unwrap_or(u64::MAX), *id));
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut taken, mut others) = (BTreeSet::new(), Vec::new());
    for id in ids {
        let number = match &names[&id] {
            Some(name) => Some(u64::from(name.strip_prefix('n')?.parse::<u32>().ok()?)),
            None => None,
        };
        match number.filter(|number| taken.insert(*number)) {
            Some(number) => drop(numbers.insert(id, number)),
            None => others.push(id),
        }
    }
    let free = taken.last().copied().unwrap_or(0) + 1..;
    numbers.extend(others.into_iter().zip(free));
    Some(numbers)
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
