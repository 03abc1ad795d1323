//! Last write wins: with clocks that differ, a write that was acknowledged is dropped for an older one.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "last-write-wins",
    title: "clocks that differ lose acknowledged writes, an order of revisions does not",
    text: "Two replicas stamp the writes of their clients with their own wall clock, tell each other, and keep the value with the larger stamp. One \
           clock is behind. A client writes at the replica whose clock is ahead, another then reads that and writes its answer at the other: \
           acknowledged, and gone, because its stamp is older than what it replaced. The same writes in the order of one log, each with the next \
           revision, lose nothing, whatever the clocks say. With clocks that agree closer than writes follow each other, stamps are safe as well; \
           nobody tells you when that ends.",
    source: "Kingsbury: The trouble with timestamps (2013); Corbett et al.: Spanner (OSDI 2012), for clocks that know how wrong they may be.",
    play,
};

const WRITES: usize = 40;

#[derive(Clone, Copy)]
struct Write {
    at: u64,
    replica: usize,
}

/// Writes one after another, each begun when the one before was acknowledged and had been told to all.
fn writes(rng: &mut Rng) -> Vec<Write> {
    let mut at = 10_000;
    let next = |_| {
        at += rng.between(1_000, 20_000);
        Write { at, replica: rng.below(2) as usize }
    };
    (0..WRITES).map(next).collect()
}

/// Acknowledged writes that a value written before them has overcome when all is told, if `stamp` decides.
fn lost(writes: &[Write], stamp: impl Fn(usize, Write) -> i64) -> Vec<usize> {
    let mut kept: Option<i64> = None;
    let mut lost = Vec::new();
    for (number, write) in writes.iter().enumerate() {
        let mine = stamp(number, *write);
        match kept {
            Some(stronger) if stronger >= mine => lost.push(number),
            _ => kept = Some(mine),
        }
    }
    lost
}

fn play(seed: u64) -> Play {
    let mut rng = Rng::new(seed);
    let writes = writes(&mut rng);
    let stamped = |skew: i64| lost(&writes, |_, write| write.at as i64 - if write.replica == 1 { skew } else { 0 });
    let (skewed, agreeing) = (stamped(50_000), stamped(500));
    let by_revision = lost(&writes, |number, _| number as i64);
    let findings = vec![
        finding(
            !skewed.is_empty(),
            format!("with one clock 50 ms behind, {} of {WRITES} acknowledged writes are lost", skewed.len()),
        ),
        finding(agreeing.is_empty(), "with clocks half a millisecond apart and writes at least one apart, none is"),
        finding(by_revision.is_empty(), "ordered by revision, none is, and no clock is asked"),
    ];
    let mut board = Board::new(&["a replica with the right time", "a replica whose clock is 50 ms behind"]);
    let value = |number: usize| format!("v{}", number + 1);
    for (number, write) in writes.iter().enumerate() {
        let stamp = write.at as i64 - if write.replica == 1 { 50_000 } else { 0 };
        let words = format!("{} at {:.1} ms of its clock", value(number), stamp as f64 / 1e3);
        board.operation(
            (write.replica as u64, write.replica),
            (write.at, write.at + 300),
            &format!("write {}", value(number)),
            "done",
        );
        board.message((write.replica, 1 - write.replica), (write.at + 310, Some(write.at + 900)), "tell", words);
        if skewed.contains(&number) {
            board.note(write.at + 920, 1 - write.replica, format!("keeps the older value, {} is lost", value(number)));
        }
    }
    Play { findings, trace: board.finish() }
}
