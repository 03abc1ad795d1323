//! What a failing run can do without: faults and operations are left out as long as the same rule still breaks (delta debugging, Zeller and
//! Hildebrandt, TSE 2002).
//!
//! A shorter run is the seed's own run with some numbers kept: each fault comes at its old time, with the randomness that it had then, so that it
//! hits the same node in the same way whatever was left out before it. Networks and disks go on drawing and may differ from the first difference on;
//! so a candidate is tried, not reasoned about, and what is found is a smaller failing run, not the smallest.

use crate::Options;
use crate::driver::play;
use crate::driver::script::{Played, Script};
use crate::numbers::Numbers;
use crate::plan::Plan;
use crate::report::Report;

/// A candidate may break the rule so much later than the whole run did.
const LATER_US: u64 = 1_000_000;

/// Which faults and client operations of a seed's run happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Faults, in the order of the whole run; none named is all.
    pub faults: Option<Numbers>,
    /// Operations, by their number in a trace. Those that prove in the calm that a node serves are always asked.
    pub operations: Option<Numbers>,
}

impl Only {
    /// The flags of the command line that say the same, each after a space.
    #[must_use]
    pub fn flags(&self) -> String {
        let flag = |name: &str, numbers: &Option<Numbers>| {
            numbers.as_ref().map_or_else(String::new, |numbers| format!(" --{name} {numbers}"))
        };
        flag("faults", &self.faults) + &flag("operations", &self.operations)
    }
}

/// What is left of a failing run.
#[derive(Clone, Debug)]
pub struct Minimised {
    /// The faults that are left.
    pub faults: Numbers,
    /// The operations that are left.
    pub operations: Numbers,
    /// The rule that breaks, in the whole run and in this one.
    pub rule: &'static str,
    /// How many faults and operations the whole run had.
    pub faults_before: usize,
    /// See `faults_before`.
    pub operations_before: usize,
    /// Runs that it took.
    pub runs: usize,
}

impl Minimised {
    /// What to replay.
    #[must_use]
    pub fn only(&self) -> Only {
        Only { faults: Some(self.faults.clone()), operations: Some(self.operations.clone()) }
    }
}

/// Runs those parts of a seed.
#[must_use]
pub fn run_only(seed: u64, options: &Options, only: &Only) -> Report {
    let (_, played) = play(seed, &Options { trace: false, ..*options }, Plan::of(seed, options), None);
    let drawn = played.faults();
    let faults = only.faults.as_ref().unwrap_or(&drawn);
    let script =
        Script { played: &played, faults, churns: true, operations: only.operations.as_ref(), until_us: u64::MAX };
    let mut report = play(seed, options, Plan::of(seed, options), Some(&script)).0;
    if let Some(trace) = &mut report.trace {
        trace.about.command += &only.flags();
        let asked = only.operations.as_ref().map_or_else(|| "all".into(), Numbers::to_string);
        trace
            .about
            .story
            .push(format!("Only these of the {} faults come: {faults}. Operations: {asked}.", drawn.len()));
    }
    report
}

/// Leaves out what it can within so many runs. Nothing, if the seed breaks no rule, or breaks it only when it draws its faults one by one.
#[must_use]
pub fn minimise(seed: u64, options: &Options, runs_max: usize) -> Option<Minimised> {
    let options = Options { trace: false, ..*options };
    let (report, played) = play(seed, &options, Plan::of(seed, &options), None);
    let (at, violation) = report.violation?;
    let (mut faults, mut operations) = (played.faults(), played.asked.clone());
    let (faults_before, operations_before) = (faults.len(), operations.len());
    let rule = violation.rule;
    let mut hunt = Hunt { seed, options, played, rule, until_us: at + LATER_US, runs: 0, runs_max };
    if !hunt.breaks(&faults, &operations) {
        return None;
    }
    loop {
        let before = (faults.len(), operations.len());
        faults = hunt.fewer(&faults, |hunt, faults| hunt.breaks(faults, &operations));
        operations = hunt.fewer(&operations, |hunt, operations| hunt.breaks(&faults, operations));
        if before == (faults.len(), operations.len()) || hunt.spent() {
            break;
        }
    }
    // Numbers that the shorter run never comes to mean nothing.
    let asked = hunt.run(&faults, &operations).1.asked;
    let operations = operations.and(&asked);
    Some(Minimised { faults, operations, rule, faults_before, operations_before, runs: hunt.runs })
}

struct Hunt {
    seed: u64,
    options: Options,
    played: Played,
    rule: &'static str,
    until_us: u64,
    runs: usize,
    runs_max: usize,
}

impl Hunt {
    fn spent(&self) -> bool {
        self.runs >= self.runs_max
    }

    fn run(&self, faults: &Numbers, operations: &Numbers) -> (Report, Played) {
        let (played, until_us) = (&self.played, self.until_us);
        let script = Script { played, faults, churns: true, operations: Some(operations), until_us };
        play(self.seed, &self.options, Plan::of(self.seed, &self.options), Some(&script))
    }

    fn breaks(&mut self, faults: &Numbers, operations: &Numbers) -> bool {
        self.runs += 1;
        let violation = self.run(faults, operations).0.violation;
        violation.is_some_and(|(_, violation)| violation.rule == self.rule)
    }

    /// Drops runs of numbers, half of them at first, single ones at last.
    fn fewer(&mut self, numbers: &Numbers, breaks: impl Fn(&mut Self, &Numbers) -> bool) -> Numbers {
        let mut kept: Vec<u64> = numbers.iter().collect();
        let mut chunk = kept.len();
        while chunk > 0 {
            let mut from = 0;
            while from < kept.len() && !self.spent() {
                let to = (from + chunk).min(kept.len());
                let rest: Vec<u64> = kept[..from].iter().chain(&kept[to..]).copied().collect();
                if breaks(self, &rest.iter().copied().collect()) {
                    kept = rest;
                } else {
                    from = to;
                }
            }
            chunk /= 2;
        }
        kept.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PLANTED, planted, run_seed};

    fn broken(name: &str) -> Options {
        let planted = planted(name);
        assert!(planted.is_some(), "{name} is one of {}", PLANTED.len());
        Options { planted, ..Options::default() }
    }

    #[test]
    fn everything_kept_is_the_same_run() {
        for (seed, options) in [(3, Options::default()), (1, broken("forget-vote"))] {
            let (whole, played) = play(seed, &options, Plan::of(seed, &options), None);
            assert!(played.asked.len() > 10 && !played.faults().is_empty(), "seed {seed} does something");
            let only = Only { faults: Some(played.faults()), operations: Some(played.asked.clone()) };
            let same = run_only(seed, &options, &only);
            assert_eq!((same.output_hash, same.violation), (whole.output_hash, whole.violation), "seed {seed}");
        }
    }

    #[test]
    fn a_planted_bug_needs_few_faults_and_operations() {
        for name in ["forget-vote", "expire-early"] {
            let options = broken(name);
            let small = minimise(1, &options, 80).expect("seed 1 finds it");
            assert!(small.faults.len() * 2 <= small.faults_before, "{name}: {small:?}");
            assert!(small.operations.len() * 2 <= small.operations_before, "{name}: {small:?}");
            let report = run_only(1, &Options { trace: true, ..options }, &small.only());
            let (at, violation) = report.violation.expect("it still breaks");
            assert_eq!(violation.rule, small.rule, "at {at}");
            let trace = report.trace.expect("it was asked for");
            assert!(trace.about.command.contains("--faults"), "{}", trace.about.command);
        }
    }

    #[test]
    fn what_breaks_nothing_is_not_minimised() {
        assert!(minimise(2, &Options::default(), 10).is_none());
        assert_eq!(run_seed(2, &Options::default()).violation, None);
    }
}
