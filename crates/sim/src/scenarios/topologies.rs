//! Topologies: what a lost node costs where one is in the middle, where some are, and where none is.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;
use std::collections::BTreeSet;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "topologies",
    title: "centralised, decentralised, distributed: the same loss, three different outages",
    text: "Twelve nodes pass messages on: over one in the middle; over three that know each other, each with its own followers; or over a mesh in \
           which each knows its two neighbours on either side. In each, every pair of those that are left is to reach each other after every way \
           to lose up to three nodes. Whoever is in the middle takes everything along; a lost middle of three takes its followers along; of \
           the mesh any three can go. What it costs is length: over the one in the middle every way has two steps, and over the mesh ways grow with the number of nodes.",
    source: "Baran: On distributed communications, I (RAND, 1964).",
    play,
};

const NODES: usize = 12;
const HUBS: usize = 3;
const LOST_MAX: u32 = 3;

/// Who knows whom.
type Links = BTreeSet<(usize, usize)>;

struct Topology {
    name: &'static str,
    links: Links,
}

fn both_ways(links: impl Iterator<Item = (usize, usize)>) -> Links {
    links.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

fn topologies() -> [Topology; 3] {
    let star = (1..NODES).map(|leaf| (0, leaf));
    let hubs = (0..HUBS).flat_map(|one| (0..one).map(move |other| (other, one)));
    let followers = (HUBS..NODES).map(|leaf| (leaf % HUBS, leaf));
    let mesh = (0..NODES).flat_map(|one| [1, 2].map(|apart| (one, (one + apart) % NODES)));
    [
        Topology { name: "centralised", links: both_ways(star) },
        Topology { name: "decentralised", links: both_ways(hubs.chain(followers)) },
        Topology { name: "distributed", links: both_ways(mesh) },
    ]
}

/// How many steps it is from one node to each, without those that are lost; none where there is no way.
fn distances(links: &Links, from: usize, lost: usize) -> [Option<usize>; NODES] {
    let mut far = [None; NODES];
    let (mut edge, mut steps) = (vec![from], 0);
    while !edge.is_empty() {
        edge.retain(|node| lost >> node & 1 == 0 && far[*node].is_none());
        edge.iter().for_each(|node| far[*node] = Some(steps));
        edge = edge.iter().flat_map(|node| links.range((*node, 0)..(*node + 1, 0)).map(|(_, to)| *to)).collect();
        steps += 1;
    }
    far
}

/// Of the pairs of nodes that are left: how many there are, how many reach each other, and over how many steps at most.
fn reached(links: &Links, lost: usize) -> (usize, usize, usize) {
    let left = (0..NODES).filter(|node| lost >> node & 1 == 0);
    let (mut pairs, mut reach, mut longest) = (0, 0, 0);
    for from in left {
        let far = distances(links, from, lost);
        for to in (from + 1..NODES).filter(|node| lost >> node & 1 == 0) {
            pairs += 1;
            reach += usize::from(far[to].is_some());
            longest = longest.max(far[to].unwrap_or(0));
        }
    }
    (pairs, reach, longest)
}

/// The worst that losing so many can do: the share of pairs of those left that still reach each other, in percent, and who was lost.
fn worst(links: &Links, lost: u32) -> (usize, usize) {
    let sets = (0..1_usize << NODES).filter(|set| set.count_ones() == lost);
    let share = |set| {
        let (pairs, reach, _) = reached(links, set);
        (reach * 100 / pairs, set)
    };
    sets.map(share).min().unwrap_or((100, 0))
}

fn play(seed: u64) -> Play {
    let [star, hubs, mesh] = topologies();
    let costs = |topology: &Topology| (1..=LOST_MAX).map(|lost| worst(&topology.links, lost).0).collect::<Vec<_>>();
    let (of_star, of_hubs, of_mesh) = (costs(&star), costs(&hubs), costs(&mesh));
    let leaf_only = (1..NODES).all(|leaf| {
        let (pairs, reach, _) = reached(&star.links, 1 << leaf);
        pairs == reach
    });
    let steps = |topology: &Topology| reached(&topology.links, 0).2;
    let lengths = (steps(&star), steps(&hubs), steps(&mesh));
    let findings = vec![
        finding(
            of_star[0] == 0 && leaf_only,
            "centralised: without the one in the middle nobody reaches anybody; without any other, all that are left do",
        ),
        finding(
            of_hubs[0] > 0 && of_hubs[0] < 100 && of_hubs.windows(2).all(|pair| pair[1] < pair[0]),
            format!(
                "decentralised: the worst loss of one, two, three leaves {} %, {} %, {} % of the pairs in touch",
                of_hubs[0], of_hubs[1], of_hubs[2]
            ),
        ),
        finding(
            of_mesh == [100; 3],
            "distributed: whichever one, two or three are lost, all that are left reach each other",
        ),
        finding(worst(&mesh.links, 4).0 < 100, "it ends there: four in the right places cut even the mesh in two"),
        finding(
            lengths.0 < lengths.1 && lengths.1 <= lengths.2,
            format!("the ways are {}, {} and {} steps long at most", lengths.0, lengths.1, lengths.2),
        ),
    ];
    Play { findings, trace: tell(seed) }
}

/// A message between the same two over each of them, before and after the same kind of node is lost: the one that hurts most.
fn tell(seed: u64) -> crate::Trace {
    let mut rng = Rng::new(seed);
    let mut board = Board::new(&["a node"; NODES]);
    let mut at = 1_000;
    for Topology { name, links } in topologies() {
        let lost = worst(&links, 1).1.trailing_zeros() as usize;
        let ends: Vec<usize> = (0..NODES).filter(|node| *node != lost).collect();
        let (from, to) = (ends[rng.below(5) as usize], ends[NODES - 2 - rng.below(4) as usize]);
        board.note(at, from, format!("{name}: a message for n{}", to + 1));
        for gone in [0, 1 << lost] {
            if gone != 0 {
                board.note(at, lost, "is lost");
            }
            at = pass_on(&mut board, &links, (from, to), gone, at + 1_000);
        }
        at += 10_000;
    }
    board.finish()
}

/// Passes a message on, step by step, to whoever is nearer to its end; where nobody is, it goes to the one who is lost. Returns when that is over.
fn pass_on(board: &mut Board, links: &Links, (from, to): (usize, usize), lost: usize, mut at: u64) -> u64 {
    let mut here = from;
    let far = distances(links, to, lost);
    while here != to {
        let next = links.range((here, 0)..(here + 1, 0)).map(|(_, next)| *next);
        let step = next.clone().filter(|next| far[*next].is_some() && far[*next] < far[here]).min();
        let nearer = |next: &usize| lost >> next & 1 == 1;
        let Some(there) = step.or_else(|| next.clone().find(nearer)) else {
            board.note(at, here, "knows nobody who could pass it on");
            return at + 2_000;
        };
        let arrives = at + 2_000;
        board.message((here, there), (at, step.is_some().then_some(arrives)), "message", format!("for n{}", to + 1));
        if step.is_none() {
            return arrives;
        }
        (here, at) = (there, arrives + 200);
    }
    at
}
