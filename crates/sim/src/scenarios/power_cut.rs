//! A power cut of the whole cluster: what was acknowledged is on disks.

use super::{Finding, Scenario, finding};
use crate::driver::stage::Stage;
use crate::history::Violation;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "power-cut",
    title: "all nodes lose power at once, and nothing that was acknowledged is gone",
    text: "Three nodes take writes, then all lose power in the same moment, one write still under way, and every disk forgets what it was not told \
           to sync. They start again, elect a leader and still hold every acknowledged write: an acknowledgement is sent only after a majority has \
           synced its log. The write under way may be there or not; its client was told neither. Three times over.",
    source: "Gray: Notes on data base operating systems (1978); Mohan et al.: ARIES (TODS 1992).",
    play: |seed| super::on_stage(seed, 3, 2, play),
};

fn play(stage: &mut Stage) -> Result<Vec<Finding>, Violation> {
    let mut findings = Vec::new();
    let mut kept = Vec::new();
    for cut in 1..=3 {
        let leader = stage.leader()?;
        for number in 1..=5 {
            let key = format!("{cut}-{number}");
            let write = stage.put(0, leader, &key, "kept")?;
            stage.pass_ms(50)?;
            if stage.done(write) {
                kept.push(key);
            }
        }
        let under_way = stage.put(1, leader, "under way", &cut.to_string())?;
        stage.power_cut();
        stage.pass_ms(5_000)?;
        let leader = stage.leader()?;
        let first = stage.put(0, leader, "first", "after the cut")?;
        stage.pass_ms(2_500)?;
        let unknown = !stage.done(under_way);
        let there = kept.iter().all(|key| stage.committed(key).as_deref() == Some("kept"));
        findings.push(finding(kept.len() == cut * 5, format!("the writes before cut {cut} were acknowledged")));
        findings.push(finding(unknown, "the client of the write under way was not told that it is done"));
        findings.push(finding(
            there && stage.settled(),
            format!("after cut {cut} all nodes hold all {} of them", kept.len()),
        ));
        findings.push(finding(stage.done(first), "and serve writes"));
    }
    Ok(findings)
}
