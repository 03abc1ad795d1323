//! Logical clocks: what a number can say about what happened before what, and what only a vector can.

use super::board::Board;
use super::{Finding, Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const LAMPORT: Scenario = Scenario {
    name: "lamport-clocks",
    title: "what happened before has the smaller number, and not the other way round",
    text: "Each process counts its events, sends its count along with every message and goes on from the larger one. Whatever happened before \
           something else then has a smaller number. A smaller number, though, proves nothing: of two events that could not know of each other one \
           has it as well. All pairs of events of random runs are compared with the happens-before relation itself, which is computed from the messages.",
    source: "Lamport: Time, clocks, and the ordering of events in a distributed system (CACM 1978).",
    play: |seed| play(seed, lamport),
};

pub(super) const VECTOR: Scenario = Scenario {
    name: "vector-clocks",
    title: "vectors are ordered exactly as events happened before each other",
    text: "Each process keeps a count for every process and sends all of them along. One vector is below another exactly when its event happened \
           before the other; where neither is below, neither event could know of the other, and a store that sees two such versions of a value \
           knows that they conflict. A vector needs an entry for each process: that is its price.",
    source: "Fidge: Timestamps in message-passing systems (1988); Mattern: Virtual time and global states (1989).",
    play: |seed| play(seed, vector),
};

const PROCESSES: usize = 4;
const EVENTS: usize = 60;
const RUNS: u64 = 50;

struct Happening {
    process: usize,
    at: u64,
    /// The sending that it received.
    received: Option<usize>,
    sent_to: Option<usize>,
    number: u64,
    vector: [u64; PROCESSES],
}

/// A random run: every event is a step of its own, a sending, or a receipt of what is under way.
fn happenings(rng: &mut Rng) -> Vec<Happening> {
    let mut all: Vec<Happening> = Vec::new();
    let mut under_way: Vec<usize> = Vec::new();
    let mut numbers = [0; PROCESSES];
    let mut vectors = [[0; PROCESSES]; PROCESSES];
    for event in 0..EVENTS {
        let mut process = rng.below(PROCESSES as u64) as usize;
        let (mut received, mut sent_to) = (None, None);
        match rng.below(3) {
            0 if !under_way.is_empty() => {
                let sending = under_way.swap_remove(rng.below(under_way.len() as u64) as usize);
                process = all[sending].sent_to.expect("only sendings are under way");
                numbers[process] = numbers[process].max(all[sending].number);
                for (mine, theirs) in vectors[process].iter_mut().zip(all[sending].vector) {
                    *mine = theirs.max(*mine);
                }
                received = Some(sending);
            }
            1 => {
                sent_to = Some((process + rng.between(1, PROCESSES as u64 - 1) as usize) % PROCESSES);
                under_way.push(event);
            }
            _ => {}
        }
        numbers[process] += 1;
        vectors[process][process] += 1;
        let (number, vector) = (numbers[process], vectors[process]);
        all.push(Happening { process, at: (event as u64 + 1) * 1_000, received, sent_to, number, vector });
    }
    all
}

/// Which event happened before which, from nothing but processes and messages.
fn before(all: &[Happening]) -> Vec<Vec<bool>> {
    let mut before = vec![vec![false; all.len()]; all.len()];
    let mut latest: [Option<usize>; PROCESSES] = [None; PROCESSES];
    for (at, event) in all.iter().enumerate() {
        for cause in [latest[event.process], event.received].into_iter().flatten() {
            before[cause][at] = true;
            before.iter_mut().filter(|row| row[cause]).for_each(|row| row[at] = true);
        }
        latest[event.process] = Some(at);
    }
    before
}

/// How often two clocks agree and disagree with what happened, over all ordered pairs.
#[derive(Default)]
struct Tally {
    before: u64,
    concurrent: u64,
    number_misses: u64,
    number_claims_too_much: u64,
    vector_misses: u64,
    vector_claims_too_much: u64,
}

fn tally(rng: &mut Rng) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..RUNS {
        let all = happenings(rng);
        let before = before(&all);
        for (one, other) in (0..all.len()).flat_map(|one| (0..all.len()).map(move |other| (one, other))) {
            if one == other {
                continue;
            }
            let (a, b) = (&all[one], &all[other]);
            let below = a.vector != b.vector && a.vector.iter().zip(b.vector).all(|(a, b)| *a <= b);
            let truth = before[one][other];
            tally.before += u64::from(truth);
            tally.concurrent += u64::from(!truth && !before[other][one] && one < other);
            tally.number_misses += u64::from(truth && a.number >= b.number);
            tally.number_claims_too_much += u64::from(!truth && a.number < b.number);
            tally.vector_misses += u64::from(truth && !below);
            tally.vector_claims_too_much += u64::from(!truth && below);
        }
    }
    tally
}

fn lamport(tally: &Tally) -> Vec<Finding> {
    vec![
        finding(
            tally.number_misses == 0,
            format!("in all {} pairs of which one happened before the other it has the smaller number", tally.before),
        ),
        finding(
            tally.number_claims_too_much > 0,
            format!(
                "a smaller number proves nothing: {} pairs have one and did not happen in that order",
                tally.number_claims_too_much
            ),
        ),
    ]
}

fn vector(tally: &Tally) -> Vec<Finding> {
    vec![
        finding(
            tally.vector_misses == 0,
            format!("all {} pairs that happened in order have vectors in that order", tally.before),
        ),
        finding(
            tally.vector_claims_too_much == 0 && tally.concurrent > 0,
            format!(
                "and no others: {} pairs that knew nothing of each other have vectors that cannot be compared",
                tally.concurrent
            ),
        ),
    ]
}

fn play(seed: u64, judge: fn(&Tally) -> Vec<Finding>) -> Play {
    let mut rng = Rng::new(seed);
    let all = happenings(&mut rng);
    let mut board = Board::new(&["a process"; PROCESSES]);
    for (number, event) in all.iter().enumerate() {
        board.note(event.at, event.process, format!("{} {:?}", event.number, event.vector));
        if let Some(to) = event.sent_to {
            let arrival = all.iter().find(|later| later.received == Some(number)).map(|later| later.at);
            // What nobody received in this run comes after its end.
            let arrival = arrival.unwrap_or((EVENTS as u64 + 2) * 1_000);
            board.message(
                (event.process, to),
                (event.at, Some(arrival)),
                "message",
                format!("{} {:?}", event.number, event.vector),
            );
        }
    }
    Play { findings: judge(&tally(&mut rng)), trace: board.finish() }
}
