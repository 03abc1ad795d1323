//! Two generals: no number of messengers makes both certain.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-generals",
    title: "no number of acknowledgements makes both sides certain",
    text: "Two armies win only if they attack together, and their messengers may be caught. Each general answers every message, up to a number of \
           messages agreed upon beforehand, and attacks once enough of them came. Whatever is enough, there is a loss that leaves one attacking \
           alone: the sender of the last message that matters cannot know whether it came. All rules of that kind are tried, with every way to lose \
           a messenger. What is left to a client in the same place is an honest third answer: the outcome is unknown.",
    source: "Akkoyunlu, Ekanadham, Huber: Some constraints and trade-offs in the design of network communications (SOSP 1975); Gray, 1978.",
    play,
};

/// The most messages that the generals agree upon.
const MESSAGES_MAX: usize = 12;

/// How many messages each general has received when `delivered` of a chain arrive: each is sent only in answer to the one before.
fn received(delivered: usize) -> [usize; 2] {
    // The first general sends the odd messages, so the second receives them.
    [delivered / 2, delivered.div_ceil(2)]
}

/// Whether the generals attack, who each demand to have received so many.
fn attacks(enough: [usize; 2], delivered: usize) -> [bool; 2] {
    let got = received(delivered);
    [got[0] >= enough[0], got[1] >= enough[1]]
}

fn play(seed: u64) -> Play {
    let (mut rules, mut betrayed, mut peaceful, mut useless) = (0, 0, 0, 0);
    for messages in 0..=MESSAGES_MAX {
        let most = received(messages);
        // A general who demands more than ever comes never attacks.
        for first in 0..=most[0] + 1 {
            for second in 0..=most[1] + 1 {
                let enough = [first, second];
                let together = attacks(enough, messages) == [true, true];
                let alone =
                    (0..=messages).any(|delivered| attacks(enough, delivered).iter().filter(|a| **a).count() == 1);
                let quiet = (0..=messages).all(|delivered| attacks(enough, delivered) == [false, false]);
                let blind = enough == [0, 0];
                rules += 1;
                betrayed += usize::from(together && alone);
                peaceful += usize::from(!together && quiet);
                useless += usize::from(together && !alone && !blind);
            }
        }
    }
    let last_lost = (1..=MESSAGES_MAX).all(|messages| {
        // Each demands all that can come: the strictest rule there is.
        let enough = received(messages);
        attacks(enough, messages) == [true, true] && attacks(enough, messages - 1).iter().filter(|a| **a).count() == 1
    });
    let findings = vec![
        finding(
            last_lost,
            format!("with 1 to {MESSAGES_MAX} messages, all demanded, losing just the last leaves one general alone"),
        ),
        finding(
            useless == 0 && betrayed > 0,
            format!(
                "of {rules} rules, {betrayed} attack together when nothing is lost, and each of these attacks alone in some loss; none is safe \
                 but to attack whatever comes"
            ),
        ),
        finding(peaceful > 0, format!("{peaceful} rules never attack alone because they never attack")),
    ];
    Play { findings, trace: tell(seed) }
}

/// One run: some messages arrive, and the next is caught.
fn tell(seed: u64) -> crate::Trace {
    let mut rng = Rng::new(seed);
    let messages = rng.between(3, 7) as usize;
    let mut board = Board::new(&["the first general", "the second general"]);
    let mut at = 1_000;
    board.note(500, 0, "wants to attack at dawn");
    for number in 1..=messages {
        let (from, to) = if number % 2 == 1 { (0, 1) } else { (1, 0) };
        let arrival = at + rng.between(2_000, 5_000);
        let text = if number == 1 { "attack at dawn?".into() } else { format!("I have your message {}", number - 1) };
        let lost = number == messages;
        board.message((from, to), (at, (!lost).then_some(arrival)), "messenger", text);
        at = arrival + 500;
    }
    // Each demands all that it should get.
    let alone = attacks(received(messages), messages - 1);
    for (who, attacks) in alone.into_iter().enumerate() {
        board.note(at + 8_000, who, if attacks { "attacks, alone" } else { "waits for a messenger" });
    }
    board.finish()
}
