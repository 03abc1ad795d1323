//! The fixed seeds, twice each, and every planted bug.

use crate::{Ground, MARKS, MessageId, Options, PLANTED, Planted, Report, Trace, TraceEvent, planted, run_seed};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Seeds that every build runs, by their grounds. Together they see every mark, most of them many times: a change of the core changes what each of
/// them sees.
const FIXED: [(Ground, &[u64]); 13] = [
    (Ground::Anywhere, &[1, 2, 3, 4, 5, 6, 7, 8, 15, 51, 63, 87, 90, 108, 124]),
    (Ground::StaleLeaders, &[1, 2, 20]),
    (Ground::Rot, &[1, 2, 16, 21, 24, 29, 37]),
    (Ground::Forgetfulness, &[1, 2, 11, 24, 29, 37]),
    (Ground::Transactions, &[1, 2, 7, 17, 34]),
    (Ground::Upgrades, &[1, 2, 12, 14, 17, 24, 29, 38]),
    (Ground::Splits, &[1, 2, 3, 11, 16, 17, 34, 38]),
    (Ground::Moves, &[1, 2, 4, 9, 15]),
    (Ground::Reservations, &[1, 2]),
    (Ground::Logs, &[1, 2, 7]),
    (Ground::Merges, &[1, 2, 5]),
    (Ground::Replication, &[1, 2, 3, 11, 57]),
    (Ground::Early, &[1, 2, 18, 32, 37]),
];

/// Seeds within which each planted bug must be found.
const HUNT: std::ops::RangeInclusive<u64> = 1..=60;

fn run(ground: Ground, seed: u64) -> Report {
    run_seed(seed, &Options { ground, ..Options::default() })
}

fn replay(ground: Ground, seed: u64) -> String {
    format!("replay it with: quorate sim --seed {seed} --ground {}", ground.name())
}

#[test]
fn fixed_seeds_are_clean_and_the_same_twice() {
    let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
    for (ground, seed) in FIXED.into_iter().flat_map(|(ground, seeds)| seeds.iter().map(move |seed| (ground, *seed))) {
        let first = run(ground, seed);
        assert_eq!(first.violation, None, "{}", replay(ground, seed));
        let second = run(ground, seed);
        assert_eq!(first.output_hash, second.output_hash, "seed {seed} on {ground:?} is not deterministic");
        assert_eq!((first.operations, first.faults), (second.operations, second.faults));
        for (mark, count) in first.marks {
            *marks.entry(mark).or_default() += count;
        }
    }
    let unreached: Vec<_> = MARKS.iter().filter(|mark| !marks.contains_key(*mark)).collect();
    assert!(unreached.is_empty(), "the fixed seeds never saw: {unreached:?}; seen: {marks:?}");
}

/// Seeds that once broke a rule (regressions/README.md).
const REGRESSIONS: [(Ground, &[u64]); 8] = [
    (Ground::Anywhere, &[1, 3, 6, 9, 35, 52, 63, 67, 72, 112, 129, 153, 163, 179, 217]),
    (Ground::Rot, &[5]),
    (Ground::Forgetfulness, &[1]),
    (Ground::Transactions, &[2, 14]),
    (Ground::Upgrades, &[4, 37]),
    (Ground::Splits, &[1, 15, 32, 42, 65]),
    (Ground::Moves, &[17, 19, 55, 62, 88]),
    (Ground::Merges, &[10, 14, 16, 30, 32]),
];

/// The plan of the long run, for less than an hour.
fn bank(storm_s: u64, planted: Option<&'static Planted>) -> Report {
    let storm = Some(Duration::from_secs(storm_s));
    run_seed(1, &Options { ground: Ground::Bank, storm, planted, ..Options::default() })
}

#[test]
fn a_bank_of_a_thousand_accounts_keeps_its_money() {
    let report = bank(40, None);
    assert_eq!(report.violation, None, "replay it with: quorate sim --seed 1 --ground bank --storm 40");
    let lacking: Vec<_> = Ground::Bank.counts().iter().filter(|count| count.lacks(&report.marks)).collect();
    assert!(lacking.is_empty(), "{lacking:?} of {:?}", report.marks);
}

#[test]
fn a_bank_with_a_bug_does_not() {
    let broken = bank(20, planted("decide-unprepared")).violation;
    assert!(broken.is_some(), "decide-unprepared was not found");
}

#[test]
fn what_once_broke_a_rule_does_so_no_more() {
    for (ground, seed) in REGRESSIONS.into_iter().flat_map(|(ground, seeds)| seeds.iter().map(move |s| (ground, *s))) {
        assert_eq!(run(ground, seed).violation, None, "{}", replay(ground, seed));
    }
}

#[test]
fn every_planted_bug_is_found_where_nothing_is_without_it() {
    let mut lost = Vec::new();
    let mut found = BTreeSet::new();
    for planted in PLANTED {
        let options = Options { planted: Some(planted), ..Options::default() };
        match HUNT.into_iter().find(|seed| run_seed(*seed, &options).violation.is_some()) {
            Some(seed) => _ = found.insert((planted.ground, seed)),
            None => lost.push((planted.name, planted.what)),
        }
    }
    assert_eq!(lost, [], "no seed found these");
    let is_fixed = |ground, seed| FIXED.iter().any(|(fixed, seeds)| *fixed == ground && seeds.contains(&seed));
    for (ground, seed) in found.into_iter().filter(|(ground, seed)| !is_fixed(*ground, *seed)) {
        assert_eq!(run(ground, seed).violation, None, "{}", replay(ground, seed));
    }
}

#[test]
fn a_trace_ties_every_message_to_its_ends_and_changes_nothing() {
    // With drops, cuts and crashes, and with a planted bug that ends the run early.
    for (seed, planted) in [(2, None), (3, planted("expire-early"))] {
        let quiet = run_seed(seed, &Options { planted, ..Options::default() });
        let traced = run_seed(seed, &Options { planted, trace: true, ..Options::default() });
        assert_eq!(quiet.output_hash, traced.output_hash, "tracing changed seed {seed}");
        assert!(quiet.trace.is_none());
        let trace = traced.trace.expect("it was asked for");
        let mut under_way: BTreeMap<MessageId, u64> = BTreeMap::new();
        let mut arrived = BTreeSet::new();
        for record in &trace.records {
            match &record.event {
                TraceEvent::Send { message, .. } => {
                    assert_eq!(under_way.insert(*message, record.at), None, "{message:?} is sent once");
                }
                TraceEvent::Deliver { message } | TraceEvent::Lose { message, .. } => {
                    let sent = under_way.get(message).expect("what ends has begun");
                    assert!(*sent <= record.at);
                    arrived.insert(*message);
                }
                _ => {}
            }
        }
        // What has no end is still on its way: nothing may be missing but at the end of the run.
        let end = trace.records.last().expect("a run has an end").at;
        let longest_us = 20 * 20_000;
        under_way.retain(|message, sent| !arrived.contains(message) && *sent + longest_us < end);
        assert!(under_way.is_empty(), "seed {seed}: neither delivered nor lost: {under_way:?}");

        let mut file = Vec::new();
        trace.write_json(&mut file).expect("memory takes it");
        let file = String::from_utf8(file).expect("JSON is UTF-8");
        assert_eq!(Trace::read_json(&file).expect("a trace"), trace);
    }
}
