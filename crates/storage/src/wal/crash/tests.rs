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
        let violation = found.expect_err(&format!("{bug:?} was not found"));
        let as_expected = match bug {
            Planted::WatermarkTooHigh => matches!(violation.rule, Rule::Refused(WalError::Rot { .. })),
            Planted::AcceptBadChecksum => matches!(violation.rule, Rule::LostOrInvented(_)),
            Planted::SkipSync | Planted::SyncBeforeWrite | Planted::ForgetSyncDir => true,
        };
        assert!(as_expected, "{bug:?}: {violation}");
    }
}
