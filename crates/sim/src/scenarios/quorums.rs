//! Quorums: a stale read exists exactly when a read quorum can miss a write quorum.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "quorums",
    title: "a stale read exists exactly when R + W <= N",
    text: "A register is kept on N replicas without a leader. A write is done when W of them have it, a later read asks R of them and believes the \
           highest version. For every N up to 6, every W and R, every choice of replicas is tried. Where R + W > N each read meets each write that \
           was done before it; everywhere else some read returns what was overwritten. Two writes are sure to meet only where 2 W > N.",
    source: "Gifford: Weighted voting for replicated data (SOSP 1979); DeCandia et al.: Dynamo (SOSP 2007).",
    play,
};

const NODES_MAX: u32 = 6;

/// All ways to choose `size` of `nodes`, as bits.
fn choices(nodes: u32, size: u32) -> impl Iterator<Item = u32> {
    (0..1_u32 << nodes).filter(move |set| set.count_ones() == size)
}

/// The version that a reader of `asked` believes, after version 1 came to all and version 2 to those `written`.
fn read(written: u32, asked: u32, nodes: u32) -> u32 {
    let versions = (0..nodes).map(|node| 1 + (written >> node & 1));
    let seen = versions.enumerate().filter(|(node, _)| asked >> node & 1 == 1);
    seen.map(|(_, version)| version).max().unwrap_or(0)
}

/// A write and a read of these sizes such that the read is stale.
fn stale(nodes: u32, write: u32, asked: u32) -> Option<(u32, u32)> {
    choices(nodes, write)
        .flat_map(|written| choices(nodes, asked).map(move |asked| (written, asked)))
        .find(|(written, asked)| read(*written, *asked, nodes) < 2)
}

fn play(seed: u64) -> Play {
    let mut sizes = Vec::new();
    for nodes in 1..=NODES_MAX {
        sizes.extend((1..=nodes).flat_map(|write| (1..=nodes).map(move |asked| (nodes, write, asked))));
    }
    let (weak, strong): (Vec<_>, Vec<_>) =
        sizes.iter().copied().partition(|(nodes, write, asked)| write + asked <= *nodes);
    let all_stale = weak.iter().all(|(nodes, write, asked)| stale(*nodes, *write, *asked).is_some());
    let none_stale = strong.iter().all(|(nodes, write, asked)| stale(*nodes, *write, *asked).is_none());
    let writes_meet = (1..=NODES_MAX).all(|nodes| {
        (1..=nodes).all(|write| {
            let apart = choices(nodes, write).any(|one| choices(nodes, write).any(|other| one & other == 0));
            apart == (2 * write <= nodes)
        })
    });
    let findings = vec![
        finding(all_stale, format!("each of {} choices with R + W <= N has a stale read", weak.len())),
        finding(none_stale, format!("none of {} choices with R + W > N has one", strong.len())),
        finding(writes_meet, "two writes can miss each other exactly where 2 W <= N"),
    ];
    Play { findings, trace: tell(seed) }
}

/// The same read after the same write, with quorums that may miss and that cannot.
fn tell(seed: u64) -> crate::Trace {
    let mut rng = Rng::new(seed);
    let nodes = 3;
    let mut board = Board::new(&["a replica", "a replica", "a replica"]);
    for (write, asked, begin) in [(1, 1, 0), (2, 2, 40_000)] {
        let version = 1 + begin / 40_000 * 2 + 1;
        // The write reaches its quorum only; the reader asks those that it misses first.
        let (written, read_set) = stale(nodes, write, asked).unwrap_or((0b011, 0b110));
        let at = begin + 1_000;
        for node in (0..nodes).filter(|node| written >> node & 1 == 1) {
            let heard = at + rng.between(1_000, 4_000);
            board.note(heard, node as usize, format!("version {version}"));
        }
        let first = written.trailing_zeros() as usize;
        board.operation(
            (0, first),
            (at, at + 5_000),
            &format!("write version {version}, W = {write} of {nodes}"),
            "done",
        );
        let seen = if read(written, read_set, nodes) == 2 { version } else { version - 1 };
        let first = read_set.trailing_zeros() as usize;
        let words = if seen == version { format!("version {seen}") } else { format!("version {seen}: stale") };
        board.operation((1, first), (at + 10_000, at + 15_000), &format!("read, R = {asked} of {nodes}"), words);
    }
    board.finish()
}
