//! Where shards should live: pure functions of the members, their zones, and where shards live now.
//!
//! What is wrong is put right in this order: replicas on nodes that go or are dead are replaced, and those on nodes whose places another is to take; who has too few gets more, who has too many fewer; replicas that
//! would fail together are put apart; and in the end, which nobody waits for, each node has about as many as any other. One replica of a shard moves at a time, and none
//! for the last two reasons while others are on their way: each is a copy of all rows.

use crate::placement::{Placement, Placements};
use quorate_env::{Instant, NodeId, ReplicaId, ShardId};
use quorate_kv::MemberRefusal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Shards that may be on their way at one time because nodes go: each is a copy of all rows, to a node that serves others meanwhile.
const MOVES_MAX: usize = 4;

/// Which of a shard's voters is to lead it.
#[must_use]
pub fn turn_of(shard: ShardId, voters: &[ReplicaId]) -> Option<ReplicaId> {
    quorate_consensus::first(voters, shard.0)
}

/// What placing goes by.
#[derive(Clone, Copy, Debug)]
pub struct Landscape<'a> {
    /// Nodes that may have replicas.
    pub nodes: &'a BTreeSet<NodeId>,
    /// Those of them that were not heard from for long, and those that are drained: they get none, and what they have is made up for elsewhere if it can
    /// be.
    pub dead: &'a BTreeSet<NodeId>,
    /// Where shards live.
    pub placements: &'a Placements,
}

impl Landscape<'_> {
    fn zone(&self, node: NodeId) -> &str {
        self.placements.zone(node)
    }

    /// How many replicas each node is to have.
    fn loads(&self) -> BTreeMap<NodeId, usize> {
        let mut loads: BTreeMap<NodeId, usize> = self.nodes.iter().map(|node| (*node, 0)).collect();
        for (_, placement) in self.placements.placed() {
            for node in &placement.wanted {
                *loads.entry(*node).or_default() += 1;
            }
        }
        loads
    }

    /// How many of some nodes are in a node's zone.
    fn near(&self, among: &BTreeSet<NodeId>, node: NodeId) -> usize {
        among.iter().filter(|other| self.zone(**other) == self.zone(node)).count()
    }

    fn zones(&self, among: &BTreeSet<NodeId>) -> usize {
        among.iter().map(|node| self.zone(*node)).collect::<BTreeSet<_>>().len()
    }

    /// Who takes the places of a node that is to be replaced, if it can already.
    fn heir(&self, node: NodeId) -> Option<NodeId> {
        self.placements.replaced_by(node).filter(|by| self.nodes.contains(by) && !self.dead.contains(by))
    }

    /// The best node for one more replica: in the zone that has the fewest of them, the one with the least to do.
    fn one_more(&self, chosen: &BTreeSet<NodeId>, loads: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let gets_some = |node: &NodeId| !self.dead.contains(node) && self.heir(*node).is_none();
        let free = self.nodes.iter().copied().filter(|node| !chosen.contains(node) && gets_some(node));
        free.min_by_key(|node| (self.near(chosen, *node), loads.get(node).copied().unwrap_or(0), *node))
    }

    /// Where new shards begin, which have so many replicas each. Fewer, where there are not so many nodes.
    #[must_use]
    pub fn begin(
        &self,
        shards: impl IntoIterator<Item = ShardId>,
        replicas: usize,
    ) -> Vec<(ShardId, BTreeSet<NodeId>)> {
        let mut loads = self.loads();
        let mut place = |shard| {
            let mut chosen = BTreeSet::new();
            while chosen.len() < replicas
                && let Some(node) = self.one_more(&chosen, &loads)
            {
                chosen.insert(node);
                *loads.entry(node).or_default() += 1;
            }
            (shard, chosen)
        };
        shards.into_iter().map(&mut place).collect()
    }

    /// The next shard with whose place something is wrong, and where it is to live. `replicas` says how many it should have.
    #[must_use]
    pub fn needed(&self, replicas: &dyn Fn(ShardId) -> usize) -> Option<(ShardId, BTreeSet<NodeId>)> {
        let under_way = self.under_way();
        let settled = || self.placements.placed().filter(|(shard, _)| self.placements.is_settled(*shard));
        let full = under_way >= MOVES_MAX;
        let loads = self.loads();
        // Who goes, goes whatever else is on its way; and if that is as much as may be, it may all be waiting for just that.
        let waits = |shard: ShardId| !full || !self.placements.is_settled(shard);
        let waiting = self.placements.placed().filter(|(shard, _)| waits(*shard));
        let gone = waiting.into_iter().find_map(|(shard, at)| Some((shard, self.without_gone(at, &loads)?)));
        if gone.is_some() || full {
            return gone;
        }
        let handed = settled().find_map(|(shard, at)| Some((shard, self.handed_over(at, &loads)?)));
        if handed.is_some() {
            return handed;
        }
        let mended = settled().find_map(|(shard, at)| Some((shard, self.mended(at, replicas(shard), &loads)?)));
        if mended.is_some() || under_way > 0 {
            return mended;
        }
        settled().find_map(|(shard, at)| Some((shard, self.apart(at, &loads)?)))
    }

    /// Why a node cannot get what another has, as things are: a shard would come to be in fewer zones, or it has a replica on both, and there is no third.
    #[must_use]
    pub fn hinders(&self, node: NodeId, by: NodeId) -> Option<MemberRefusal> {
        let loads = self.loads();
        let has_it = self.placements.placed().map(|(_, at)| &at.wanted).filter(|wanted| wanted.contains(&node));
        has_it.into_iter().find_map(|wanted| match wanted.contains(&by) {
            true => self.one_more(wanted, &loads).is_none().then_some(MemberRefusal::Needed),
            false => {
                let fewer = self.zones(&exchanged(wanted, node, by)) < self.zones(wanted);
                fewer.then_some(MemberRefusal::FewerZones)
            }
        })
    }

    /// Without a node that may have none, or is dead; with another in its place, if there is one.
    fn without_gone(&self, at: &Placement, loads: &BTreeMap<NodeId, usize>) -> Option<BTreeSet<NodeId>> {
        let goes = at.wanted.iter().copied().find(|node| !self.nodes.contains(node));
        let dead = at.wanted.iter().copied().find(|node| self.dead.contains(node));
        let leaves = goes.or(dead)?;
        let by = self.heir(leaves).filter(|by| !at.wanted.contains(by)).or_else(|| self.one_more(&at.wanted, loads));
        let mut wanted = at.wanted.clone();
        wanted.remove(&leaves);
        // The dead may come back, and are better than nothing; the last replica stays where it is.
        if by.is_none() && (goes.is_none() || wanted.is_empty()) {
            return None;
        }
        wanted.extend(by);
        Some(wanted)
    }

    /// With the node that is to have what another has in that one's place, or with a third if it has that already. As many as before, and in
    /// no fewer zones; otherwise it waits.
    fn handed_over(&self, at: &Placement, loads: &BTreeMap<NodeId, usize>) -> Option<BTreeSet<NodeId>> {
        at.wanted.iter().copied().find_map(|node| {
            let by = self.heir(node)?;
            let third = || self.one_more(&at.wanted, loads);
            let by = if at.wanted.contains(&by) { third()? } else { by };
            let wanted = exchanged(&at.wanted, node, by);
            (self.zones(&wanted) >= self.zones(&at.wanted)).then_some(wanted)
        })
    }

    /// With one more or one less, if it has too few or too many.
    fn mended(&self, at: &Placement, replicas: usize, loads: &BTreeMap<NodeId, usize>) -> Option<BTreeSet<NodeId>> {
        let mut wanted = at.wanted.clone();
        if wanted.len() < replicas {
            wanted.insert(self.one_more(&wanted, loads)?);
        } else if wanted.len() > replicas {
            let load = |node: &NodeId| loads.get(node).copied().unwrap_or(0);
            let most = wanted.iter().copied().max_by_key(|node| (self.near(&wanted, *node), load(node), *node))?;
            wanted.remove(&most);
        }
        (wanted != at.wanted).then_some(wanted)
    }

    /// With one replica in a zone that has none instead of one that has several.
    fn apart(&self, at: &Placement, loads: &BTreeMap<NodeId, usize>) -> Option<BTreeSet<NodeId>> {
        let crowded = at.wanted.iter().copied().max_by_key(|node| (self.near(&at.wanted, *node), *node))?;
        let by = self.one_more(&at.wanted, loads).filter(|node| self.near(&at.wanted, *node) == 0)?;
        (self.near(&at.wanted, crowded) > 1).then(|| exchanged(&at.wanted, crowded, by))
    }

    fn under_way(&self) -> usize {
        self.placements.placed().filter(|(shard, _)| !self.placements.is_settled(*shard)).count()
    }

    /// The next shard with which nothing is wrong, and where it is to live: with one replica from the node that has the most to the one that has the least, if that makes them
    /// more alike and nothing else is on its way. Rather one that is not to lead: then those who ask the shard need not wait for another leader.
    #[must_use]
    pub fn balanced(&self) -> Option<(ShardId, BTreeSet<NodeId>)> {
        if self.under_way() > 0 {
            return None;
        }
        let loads = self.loads();
        let stays =
            |node: &NodeId| self.nodes.contains(node) && !self.dead.contains(node) && self.heir(*node).is_none();
        let alive = || loads.iter().filter(|(node, _)| stays(node));
        let (most, many) = alive().max_by_key(|(node, load)| (**load, **node))?;
        let (least, few) = alive().min_by_key(|(node, load)| (**load, **node))?;
        if *many < few + 2 {
            return None;
        }
        let moves = |at: &Placement| at.wanted.contains(most) && !at.wanted.contains(least);
        let candidates = self.placements.placed().filter(|(_, at)| moves(at)).filter_map(|(shard, at)| {
            let wanted = exchanged(&at.wanted, *most, *least);
            (self.zones(&wanted) >= self.zones(&at.wanted)).then_some((shard, at, wanted))
        });
        let is_to_lead = |shard: ShardId, at: &Placement| {
            let voters: Vec<ReplicaId> = at.wanted.iter().map(|node| ReplicaId(node.0)).collect();
            turn_of(shard, &voters) == Some(ReplicaId(most.0))
        };
        let (shard, _, wanted) = candidates.min_by_key(|(shard, at, _)| (is_to_lead(*shard, at), *shard))?;
        Some((shard, wanted))
    }
}

/// The time after a move for the sake of balance in which no other is made for it. The more nodes there are, the shorter it is: each takes part in as few.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    since: Option<Instant>,
}

impl Rest {
    /// It begins now.
    #[must_use]
    pub fn since(now: Instant) -> Self {
        Self { since: Some(now) }
    }

    /// When it is over that takes `pause` for one node, among so many `nodes`; none if it is.
    #[must_use]
    pub fn until(self, pause: Duration, nodes: usize, now: Instant) -> Option<Instant> {
        let pause = pause / u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        self.since.map(|since| since + pause).filter(|end| now < *end)
    }
}

fn exchanged(wanted: &BTreeSet<NodeId>, one: NodeId, by: NodeId) -> BTreeSet<NodeId> {
    wanted.iter().copied().filter(|node| *node != one).chain([by]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::Rows;

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn next(landscape: &Landscape<'_>, replicas: usize) -> Option<(ShardId, BTreeSet<NodeId>)> {
        landscape.needed(&|_| replicas).or_else(|| landscape.balanced())
    }

    /// Carries out what is said until nothing more is, and says in how many moves.
    fn settle(rows: &mut Rows, nodes: &[u64], dead: &[u64], replicas: usize) -> usize {
        let (nodes, dead) = (set(nodes), set(dead));
        for moves in 0..1_000 {
            let placements = rows.read();
            let landscape = Landscape { nodes: &nodes, dead: &dead, placements: &placements };
            let Some((shard, wanted)) = next(&landscape, replicas) else { return moves };
            let (from, to) = (&placements.of(shard).expect("placed").wanted, &wanted);
            assert!(from.symmetric_difference(to).count() <= 2, "one replica moves at a time: {from:?} to {to:?}");
            assert!(!wanted.is_empty());
            rows.place(shard, &wanted);
            rows.settled(shard, &wanted);
        }
        panic!("it never ends")
    }

    fn loads(rows: &mut Rows, nodes: &[u64]) -> Vec<usize> {
        let (nodes, placements) = (set(nodes), rows.read());
        let none = BTreeSet::new();
        Landscape { nodes: &nodes, dead: &none, placements: &placements }.loads().into_values().collect()
    }

    fn begun(nodes: &[u64], zones: &[(u64, &str)], shards: u64, replicas: usize) -> Rows {
        let mut rows = Rows::default();
        zones.iter().for_each(|(node, zone)| rows.zone(NodeId(*node), zone));
        let (nodes, none, placements) = (set(nodes), BTreeSet::new(), rows.read());
        let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
        rows.found(landscape.begin((0..shards).map(|n| ShardId(17 + n)), replicas));
        rows
    }

    #[test]
    fn who_is_gone_is_not_waited_for_however_much_is_on_its_way_there() {
        let mut rows = begun(&[1, 2, 3], &[], 2 * MOVES_MAX as u64, 2);
        let shards: Vec<ShardId> = rows.read().placed().map(|(shard, _)| shard).collect();
        // As many as may move at one time were to go to a node that is no more.
        for shard in &shards[..MOVES_MAX] {
            rows.place(*shard, &set(&[1, 9]));
        }
        let nodes = set(&[1, 2, 3]);
        for _ in 0..MOVES_MAX {
            let (none, placements) = (BTreeSet::new(), rows.read());
            let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
            let (shard, wanted) = next(&landscape, 2).expect("nobody waits for it");
            assert!(shards[..MOVES_MAX].contains(&shard) && !wanted.contains(&NodeId(9)), "{shard} to {wanted:?}");
            rows.place(shard, &wanted);
        }
        let (none, placements) = (BTreeSet::new(), rows.read());
        let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
        assert_eq!(next(&landscape, 2), None, "they are on their way");
    }

    #[test]
    fn new_shards_are_spread_over_nodes_and_zones() {
        let mut rows = begun(&[1, 2, 3, 4, 5], &[], 10, 3);
        assert_eq!(loads(&mut rows, &[1, 2, 3, 4, 5]), [6; 5]);
        let zones = [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")];
        let mut rows = begun(&[1, 2, 3, 4, 5], &zones, 6, 3);
        for (_, at) in rows.read().placed() {
            assert!(at.wanted.contains(&NodeId(4)) && at.wanted.contains(&NodeId(5)), "one in each zone: {at:?}");
        }
        assert_eq!(settle(&mut rows, &[1, 2, 3, 4, 5], &[], 3), 0, "it is as it should be");
        assert_eq!(loads(&mut begun(&[1, 2], &[], 4, 3), &[1, 2]), [4, 4], "as many as there are nodes");
    }

    #[test]
    fn who_comes_gets_its_share_and_who_goes_leaves_nothing() {
        let mut rows = begun(&[1, 2, 3], &[], 8, 3);
        assert_eq!(loads(&mut rows, &[1, 2, 3]), [8, 8, 8]);
        let moves = settle(&mut rows, &[1, 2, 3, 4], &[], 3);
        assert_eq!((loads(&mut rows, &[1, 2, 3, 4]), moves), (vec![6; 4], 6), "no more than must");
        let (nodes, none, placements) = (set(&[1, 2, 3, 4, 5]), BTreeSet::new(), rows.read());
        let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
        assert_eq!(landscape.needed(&|_| 3), None, "nothing is wrong, and nobody waits for what is to move");
        let (shard, wanted) = landscape.balanced().expect("the fifth has none");
        let from = placements.of(shard).expect("placed").wanted.difference(&wanted).next().copied().expect("one goes");
        let voters = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| ReplicaId(node.0)).collect::<Vec<_>>();
        let leader = turn_of(shard, &voters(&placements.of(shard).expect("placed").wanted));
        assert_ne!(leader, Some(ReplicaId(from.0)), "its leader stays");
        assert!(landscape.needed(&|_| 4).is_some(), "they have too few");
        settle(&mut rows, &[1, 2, 4], &[], 3);
        assert_eq!(loads(&mut rows, &[1, 2, 4]), [8, 8, 8]);
        settle(&mut rows, &[1], &[], 3);
        assert_eq!(loads(&mut rows, &[1]), [8], "the last one keeps all");
        settle(&mut rows, &[2], &[], 3);
        assert_eq!(loads(&mut rows, &[2]), [8]);
        settle(&mut rows, &[2, 3, 4, 5], &[], 3);
        assert_eq!(loads(&mut rows, &[2, 3, 4, 5]), [6; 4]);
    }

    #[test]
    fn the_dead_are_made_up_for_and_stay_where_nobody_can() {
        let mut rows = begun(&[1, 2, 3, 4], &[], 4, 3);
        settle(&mut rows, &[1, 2, 3, 4], &[4], 3);
        assert_eq!(loads(&mut rows, &[1, 2, 3, 4]), [4, 4, 4, 0]);
        let mut rows = begun(&[1, 2, 3], &[], 4, 3);
        assert_eq!(settle(&mut rows, &[1, 2, 3], &[3], 3), 0);
    }

    #[test]
    fn who_is_drained_is_as_good_as_dead() {
        let mut rows = begun(&[1, 2, 3, 4], &[], 4, 3);
        rows.drain(NodeId(2));
        let drained: Vec<u64> = rows.read().drained().iter().map(|node| node.0).collect();
        settle(&mut rows, &[1, 2, 3, 4], &drained, 3);
        assert_eq!(loads(&mut rows, &[1, 2, 3, 4]), [4, 0, 4, 4]);
    }

    #[test]
    fn who_is_to_be_replaced_hands_its_places_to_its_heir() {
        let mut rows = begun(&[1, 2, 3, 4], &[], 8, 3);
        let before = loads(&mut rows, &[1, 2, 3, 4, 9])[1];
        let of = |rows: &mut Rows, node| {
            let placements = rows.read();
            placements.placed().filter(|(_, at)| at.wanted.contains(&node)).map(|(shard, _)| shard).collect::<Vec<_>>()
        };
        let had = of(&mut rows, NodeId(2));
        rows.replace(NodeId(2), NodeId(9));
        assert_eq!(settle(&mut rows, &[1, 2, 3, 4], &[], 3), 0, "it is not there yet");
        assert_eq!(settle(&mut rows, &[1, 2, 3, 4, 9], &[9], 3), 0, "it is dead");
        assert_eq!(
            settle(&mut rows, &[1, 2, 3, 4, 9], &[], 3),
            before,
            "one move for each of its replicas, and no more"
        );
        assert_eq!((of(&mut rows, NodeId(9)), of(&mut rows, NodeId(2))), (had, Vec::new()));
    }

    #[test]
    fn an_heir_that_has_the_shard_leaves_the_place_to_a_third_or_to_who_has_it() {
        for (nodes, expected) in [(&[1, 2, 3][..], [4, 4, 4].as_slice()), (&[1, 2, 3, 4], &[4, 0, 4, 4])] {
            let mut rows = begun(&[1, 2, 3], &[], 4, 3);
            rows.replace(NodeId(2), NodeId(3));
            settle(&mut rows, nodes, &[], 3);
            assert_eq!(loads(&mut rows, nodes), expected);
        }
    }

    #[test]
    fn an_heir_that_would_fail_with_the_others_does_not_get_the_place() {
        let zones = [(1, "a"), (2, "b"), (3, "c"), (4, "a")];
        let mut rows = begun(&[1, 2, 3], &zones, 4, 3);
        rows.replace(NodeId(2), NodeId(4));
        assert_eq!(settle(&mut rows, &[1, 2, 3], &[], 3), 0);
        let (nodes, none, placements) = (set(&[1, 2, 3, 4]), BTreeSet::new(), rows.read());
        let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
        for (_, at) in placements.placed() {
            assert_eq!(landscape.handed_over(at, &landscape.loads()), None);
        }
        assert_eq!(landscape.hinders(NodeId(2), NodeId(4)), Some(MemberRefusal::FewerZones));
        assert_eq!(landscape.hinders(NodeId(1), NodeId(4)), None, "it is in the same zone");
        assert_eq!(landscape.hinders(NodeId(1), NodeId(3)), None, "there is a third");
        let three = set(&[1, 2, 3]);
        let landscape = Landscape { nodes: &three, dead: &none, placements: &placements };
        assert_eq!(landscape.hinders(NodeId(1), NodeId(3)), Some(MemberRefusal::Needed));
    }

    #[test]
    fn replicas_that_would_fail_together_are_put_apart() {
        let mut rows = begun(&[1, 2, 3], &[(1, "a"), (2, "a"), (3, "b")], 4, 3);
        rows.zone(NodeId(4), "c");
        settle(&mut rows, &[1, 2, 3, 4], &[], 3);
        for (_, at) in rows.read().placed() {
            assert!(at.wanted.contains(&NodeId(3)) && at.wanted.contains(&NodeId(4)), "{at:?}");
        }
    }

    #[test]
    fn who_has_too_many_gives_up_one_that_would_fail_together_with_another() {
        let mut rows = begun(&[1, 2, 3, 4], &[(1, "a"), (2, "a"), (3, "b"), (4, "c")], 4, 4);
        assert_eq!(settle(&mut rows, &[1, 2, 3, 4], &[], 3), 4, "one of each shard");
        assert_eq!(loads(&mut rows, &[1, 2, 3, 4]), [2, 2, 4, 4], "of two in one zone, the one that has more");
        settle(&mut rows, &[1, 2, 3, 4], &[], 1);
        assert_eq!(loads(&mut rows, &[1, 2, 3, 4]), [1; 4]);
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        let mut rows = begun(&[1, 2, 3], &[], 8, 3);
        let (nodes, none) = (set(&[1, 2, 3, 4]), BTreeSet::new());
        let next = |rows: &mut Rows| {
            let placements = rows.read();
            next(&Landscape { nodes: &nodes, dead: &none, placements: &placements }, 3)
        };
        let (shard, wanted) = next(&mut rows).expect("there is a node without any");
        rows.place(shard, &wanted);
        assert_eq!(next(&mut rows), None, "one at a time, for the sake of balance");
        rows.settled(shard, &wanted);
        assert_ne!(next(&mut rows), None);
    }

    #[test]
    fn balance_rests_after_each_move_for_less_time_the_more_nodes_there_are() {
        let (at, pause) = (|ms: u64| Instant(0) + Duration::from_millis(ms), Duration::from_secs(8));
        assert_eq!(Rest::default().until(pause, 4, at(0)), None, "nothing was moved yet");
        let rest = Rest::since(at(1_000));
        assert_eq!(rest.until(pause, 4, at(1_000)), Some(at(3_000)));
        assert_eq!(rest.until(pause, 4, at(2_999)), Some(at(3_000)));
        assert_eq!(rest.until(pause, 4, at(3_000)), None);
        assert_eq!(rest.until(pause, 100, at(1_050)), Some(at(1_080)));
        assert_eq!(rest.until(pause, 0, at(2_000)), Some(at(9_000)), "a cluster of none is one of one");
    }
}
