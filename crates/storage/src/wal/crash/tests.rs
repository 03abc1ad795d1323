//! The enumeration in a bounded form, and that it can fail.

use super::*;

#[test]
fn every_power_cut_leaves_a_legal_log() {
    let report = enumerate(&Options { seed: 1, states: 20_000, planted: None }).unwrap_or_else(|e| panic!("{e}"));
    let (made, recycled, deleted) = report.segments;
    assert!(report.torn > 500 && report.unacknowledged > 500 && report.lives > 5, "{report}");
    assert!(made > 5 && recycled > 5 && deleted > 0 && report.rewrites > 0, "{report}");
}

#[test]
fn every_planted_bug_is_found() {
    for &bug in Planted::ALL {
        let found = enumerate(&Options { seed: 1, states: 20_000, planted: Some(bug) });
        assert!(found.is_err(), "{bug:?} was not found");
    }
}

#[test]
fn what_recovery_leaves_undone_is_found_by_going_on() {
    let found = enumerate(&Options { seed: 1, states: 20_000, planted: Some(Planted::ForgetRepair) });
    let rule = found.expect_err("it was not found").rule;
    assert!(matches!(rule, Rule::DoesNotGoOn(_)), "{rule}");
}
