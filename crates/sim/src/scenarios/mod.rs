//! Textbook situations, one file each: who takes part, what goes wrong, and what must come of it.
//!
//! ```text
//!   scenario(seed) ──> real nodes on a stage (driver/stage.rs)  ┐
//!                  └─> a small model, told to a board (board.rs) ┴──> findings (sentences that hold or do not) + a trace for the picture
//! ```
//!
//! A finding is what the text claims, both ways round: that the bad thing happens where it must, and that it does not where it must not.

mod agenda;
mod atomic_commit;
mod board;
mod byzantine;
mod clocks;
mod fallacies;
mod flp;
mod flp_timeouts;
mod last_write_wins;
mod paxos;
mod paxos_and_raft;
mod power_cut;
mod quorums;
mod replica;
mod split_brain;
mod topologies;
mod two_generals;
mod two_leaders;
mod undo_and_redo;
mod write_skew;

use crate::driver::stage::Stage;
use crate::history::Violation;
use crate::trace::Trace;

/// One situation.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub title: &'static str,
    /// What it is about, a paragraph.
    pub text: &'static str,
    /// Who described it first.
    pub source: &'static str,
    play: fn(u64) -> Play,
}

/// What came of it.
#[derive(Debug)]
pub struct Play {
    /// What was claimed.
    pub findings: Vec<Finding>,
    /// What happened, or one telling run of many.
    pub trace: Trace,
}

/// A claim, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In a sentence.
    pub what: String,
    /// Whether it is so.
    pub holds: bool,
}

fn finding(holds: bool, what: impl Into<String>) -> Finding {
    Finding { what: what.into(), holds }
}

/// The median of some numbers, and the largest.
fn middle_and_longest(numbers: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    (numbers.get(numbers.len() / 2).copied().unwrap_or(0), numbers.last().copied().unwrap_or(0))
}

/// Real nodes play. That no rule of the simulator breaks on the way is the first finding of each.
fn on_stage(seed: u64, nodes: usize, clients: usize, play: fn(&mut Stage) -> Result<Vec<Finding>, Violation>) -> Play {
    let mut stage = Stage::new(seed, nodes, clients);
    let findings = match play(&mut stage) {
        Ok(mut findings) => {
            findings.insert(0, finding(true, "every rule that the simulator checks is kept"));
            findings
        }
        Err(violation) => vec![finding(false, format!("every rule that the simulator checks is kept: {violation}"))],
    };
    Play { findings, trace: stage.finish() }
}

/// All of them: first those that the real nodes play, then the models, some of which put real replicas beside them.
pub const SCENARIOS: &[Scenario] = &[
    split_brain::SCENARIO,
    two_leaders::SCENARIO,
    power_cut::SCENARIO,
    fallacies::SCENARIO,
    two_generals::SCENARIO,
    flp::SCENARIO,
    flp_timeouts::SCENARIO,
    byzantine::SCENARIO,
    clocks::LAMPORT,
    clocks::VECTOR,
    last_write_wins::SCENARIO,
    quorums::SCENARIO,
    paxos::SCENARIO,
    paxos_and_raft::SCENARIO,
    atomic_commit::SCENARIO,
    write_skew::SCENARIO,
    undo_and_redo::SCENARIO,
    topologies::SCENARIO,
];

/// The one of that name.
#[must_use]
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Plays it. The trace tells the paragraph and the findings.
    #[must_use]
    pub fn run(&self, seed: u64) -> Play {
        let mut play = (self.play)(seed);
        let about = &mut play.trace.about;
        about.title = format!("{}: {}", self.name, self.title);
        about.command = format!("quorate sim --scenario {} --seed {seed}", self.name);
        let mut story = vec![self.text.split_whitespace().collect::<Vec<_>>().join(" "), self.source.to_owned()];
        story.extend(play.findings.iter().map(ToString::to_string));
        about.story.splice(0..0, story);
        play
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", if self.holds { "holds" } else { "DOES NOT HOLD" }, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TRACE_VERSION;

    #[test]
    fn every_scenario_ends_as_its_text_says_and_the_same_twice() {
        for scenario in SCENARIOS {
            for seed in 1..=3 {
                let play = scenario.run(seed);
                let broken: Vec<_> = play.findings.iter().filter(|finding| !finding.holds).collect();
                assert!(broken.is_empty() && !play.findings.is_empty(), "{} {seed}: {broken:?}", scenario.name);
                let again = scenario.run(seed);
                assert_eq!(again.findings, play.findings, "{}", scenario.name);
                assert!(again.trace == play.trace, "{} is not the same twice", scenario.name);
            }
        }
    }

    #[test]
    fn every_trace_can_be_read_again_and_drawn() {
        for scenario in SCENARIOS {
            let trace = scenario.run(1).trace;
            assert_eq!(trace.about.quorate_trace, TRACE_VERSION);
            assert!(trace.records.len() > 5, "{} tells a story", scenario.name);
            let mut file = Vec::new();
            trace.write_json(&mut file).expect("memory takes it");
            let text = String::from_utf8(file).expect("JSON is UTF-8");
            assert_eq!(Trace::read_json(&text).expect(scenario.name), trace, "{}", scenario.name);
            assert!(crate::diagram(&trace).contains(scenario.name), "{}", scenario.name);
        }
    }

    #[test]
    fn every_scenario_is_in_the_table() {
        let table = include_str!("../../../../docs/lab.md");
        for scenario in SCENARIOS {
            assert!(table.contains(&format!("| {} |", scenario.name)), "docs/lab.md has no row for {}", scenario.name);
        }
    }
}
