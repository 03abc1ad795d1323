//! Oral messages: with one liar among three generals nobody can tell who lies; among four they can.

use super::board::Board;
use super::{Play, Scenario, finding};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "byzantine",
    title: "one liar defeats three generals and not four",
    text: "A commander gives an order, the lieutenants tell each other what they heard, and each does what most say: the algorithm OM(m) of oral \
           messages. It must hold that all loyal lieutenants do the same, and that they obey a loyal commander. Every liar and every combination of \
           lies is tried. Three generals with one liar fail, four with one do not; two liars defeat four. This is why a cluster that should \
           survive liars needs 3 f + 1 members, and why Quorate, which trusts its members and needs 2 f + 1, does not claim to.",
    source: "Lamport, Shostak, Pease: The Byzantine generals problem (TOPLAS 1982).",
    play,
};

/// Who lies, and what: each lie is one bit, taken in the order in which a liar speaks.
struct Lies {
    liars: u32,
    bits: u64,
    spoken: u32,
}

impl Lies {
    /// What `from` says when the truth is `order`.
    fn say(&mut self, from: usize, order: bool) -> bool {
        if self.liars >> from & 1 == 0 {
            return order;
        }
        let said = self.bits >> self.spoken & 1 == 1;
        self.spoken += 1;
        said
    }
}

/// OM(m): what each of `lieutenants` makes of the order of `commander`.
fn oral(m: u32, commander: usize, lieutenants: &[usize], order: bool, lies: &mut Lies) -> Vec<bool> {
    let heard: Vec<bool> = lieutenants.iter().map(|_| lies.say(commander, order)).collect();
    if m == 0 {
        return heard;
    }
    // Each passes on what it heard, as the commander of a smaller round.
    let mut votes: Vec<Vec<bool>> = heard.iter().map(|order| vec![*order]).collect();
    for (at, (lieutenant, order)) in lieutenants.iter().zip(&heard).enumerate() {
        let others: Vec<usize> = lieutenants.iter().copied().filter(|other| other != lieutenant).collect();
        let passed = oral(m - 1, *lieutenant, &others, *order, lies);
        let places = (0..lieutenants.len()).filter(|place| *place != at);
        places.zip(passed).for_each(|(place, order)| votes[place].push(order));
    }
    // A tie is a retreat.
    votes.iter().map(|votes| votes.iter().filter(|vote| **vote).count() * 2 > votes.len()).collect()
}

/// Whether the loyal agree, and obey if the commander is loyal.
fn holds(liars: u32, order: bool, decided: &[bool]) -> bool {
    let loyal: Vec<bool> = (1..=decided.len()).filter(|n| liars >> n & 1 == 0).map(|n| decided[n - 1]).collect();
    let agree = loyal.windows(2).all(|pair| pair[0] == pair[1]);
    agree && (liars & 1 == 1 || loyal.iter().all(|done| *done == order))
}

/// The first liars and lies that defeat OM(m) among so many generals, and how many were tried.
fn defeat(generals: usize, liars_count: u32, m: u32) -> (Option<(u32, bool, u64)>, u64) {
    let lieutenants: Vec<usize> = (1..generals).collect();
    let mut tried = 0;
    for liars in (0..1_u32 << generals).filter(|set| set.count_ones() == liars_count) {
        for order in [false, true] {
            // How often liars speak does not depend on what they say.
            let mut count = Lies { liars, bits: 0, spoken: 0 };
            oral(m, 0, &lieutenants, order, &mut count);
            for bits in 0..1_u64 << count.spoken {
                tried += 1;
                let decided = oral(m, 0, &lieutenants, order, &mut Lies { liars, bits, spoken: 0 });
                if !holds(liars, order, &decided) {
                    return (Some((liars, order, bits)), tried);
                }
            }
        }
    }
    (None, tried)
}

fn play(_seed: u64) -> Play {
    let (three, _) = defeat(3, 1, 1);
    let (four, tried) = defeat(4, 1, 1);
    let (two_of_four, _) = defeat(4, 2, 1);
    let (without_round, _) = defeat(4, 1, 0);
    let (honest, _) = defeat(3, 0, 1);
    let findings = vec![
        finding(three.is_some(), "one liar among three defeats OM(1)"),
        finding(
            four.is_none(),
            format!("one liar among four does not, with {tried} combinations of liar, order and lies tried"),
        ),
        finding(two_of_four.is_some(), "two liars among four do"),
        finding(without_round.is_some(), "without the second round, one liar among four does: the commander"),
        finding(honest.is_none(), "three who do not lie agree"),
    ];
    Play { findings, trace: tell() }
}

/// The loyal lieutenant's view that decides it: with three, two worlds look the same.
fn tell() -> crate::Trace {
    let mut board =
        Board::new(&["the commander", "a lieutenant", "a lieutenant", "a lieutenant, in the second part only"]);
    board.note(500, 0, "lies");
    board.message((0, 1), (1_000, Some(4_000)), "order", "attack");
    board.message((0, 2), (1_000, Some(5_000)), "order", "retreat");
    board.message((1, 2), (6_000, Some(9_000)), "heard", "attack");
    board.message((2, 1), (6_000, Some(9_500)), "heard", "retreat");
    board.note(11_000, 1, "attack or retreat: a tie, who lies?");
    board.note(11_000, 2, "attack or retreat: a tie, who lies?");
    board.note(30_000, 0, "lies again");
    for (to, order) in [(1, "attack"), (2, "retreat"), (3, "attack")] {
        board.message((0, to), (31_000, Some(34_000 + to as u64 * 300)), "order", order);
    }
    for (from, heard) in [(1, "attack"), (2, "retreat"), (3, "attack")] {
        for to in (1..=3).filter(|to| *to != from) {
            board.message((from, to), (36_000, Some(39_000 + to as u64 * 300)), "heard", heard);
        }
    }
    (1..=3).for_each(|who| board.note(42_000, who, "attacks: two of three say so"));
    board.finish()
}
