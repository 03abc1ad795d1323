//! The fixed seeds, twice each, and every planted bug.

use crate::driver::MARKS;
use crate::{Options, PLANTED, run_seed};
use std::collections::BTreeMap;

/// Seeds that every build runs.
const FIXED: std::ops::RangeInclusive<u64> = 1..=16;

/// Seeds within which each planted bug must be found.
const HUNT: std::ops::RangeInclusive<u64> = 1..=60;

#[test]
fn fixed_seeds_are_clean_and_the_same_twice() {
    let options = Options::default();
    let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in FIXED {
        let first = run_seed(seed, &options);
        assert_eq!(first.violation, None, "seed {seed}; replay it with: quorate sim --seed {seed}");
        let second = run_seed(seed, &options);
        assert_eq!(first.output_hash, second.output_hash, "seed {seed} is not deterministic");
        assert_eq!((first.operations, first.faults), (second.operations, second.faults));
        for (mark, count) in first.marks {
            *marks.entry(mark).or_default() += count;
        }
    }
    let unreached: Vec<_> = MARKS.iter().filter(|mark| !marks.contains_key(*mark)).collect();
    assert!(unreached.is_empty(), "the fixed seeds never saw: {unreached:?}; seen: {marks:?}");
}

/// Seeds that once broke a rule (regressions/README.md).
const REGRESSIONS: &[u64] = &[1, 52, 112, 179, 217];

#[test]
fn what_once_broke_a_rule_does_so_no_more() {
    for seed in REGRESSIONS {
        let report = run_seed(*seed, &Options::default());
        assert_eq!(report.violation, None, "seed {seed}; replay it with: quorate sim --seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for planted in PLANTED {
        let options = Options { planted: Some(planted), trace: false };
        let found = HUNT.map(|seed| run_seed(seed, &options)).find(|report| report.violation.is_some());
        assert!(found.is_some(), "no seed found {} ({})", planted.name, planted.what);
    }
}
