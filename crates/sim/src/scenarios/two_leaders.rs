//! Two leaders: the old one does not know yet, and still may not answer.

use super::{Finding, Scenario, finding};
use crate::driver::stage::Stage;
use crate::history::Violation;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-leaders",
    title: "an old leader that does not know of its successor serves no linearizable read",
    text: "A leader stands still, as in a long collection of garbage, and is cut off as well. The others elect another, which takes a write. Then the \
           old leader is asked, wakes up and still believes to lead. Its memory holds the old value; but before it answers, a majority must \
           confirm that it still leads, and no majority does. Once more without the cut: now it hears of its successor, and what it answers is \
           new. And a leader that is cut off while it runs: it believes to lead for a while, and serves no read in that time either.",
    source: "Gray, Cheriton: Leases (SOSP 1989); Ongaro: Consensus: bridging theory and practice (2014), section 6.4.",
    play: |seed| super::on_stage(seed, 3, 3, play),
};

fn play(stage: &mut Stage) -> Result<Vec<Finding>, Violation> {
    let mut findings = Vec::new();
    for cut in [true, false] {
        let old = stage.leader()?;
        stage.pause(old);
        if cut {
            stage.cut(&[old]);
        }
        stage.pass_ms(3_500)?;
        let both = stage.leaders();
        let write = stage.put(0, stage.others(&[old])[0], "k", if cut { "new" } else { "newer" })?;
        stage.pass_ms(500)?;
        let written = stage.done(write);
        // A linearizable read that began after a write was acknowledged must see it: if it is answered otherwise, a rule is broken.
        let read = stage.read(1, old, "k")?;
        stage.resume(old)?;
        stage.pass_ms(4_000)?;
        let (heard, done) = (stage.heard(read).is_some(), stage.done(read));
        findings.push(finding(both.len() == 2, "two nodes believe to lead, in different terms"));
        findings.push(finding(written, "the new leader has acknowledged a write before the old one is asked"));
        findings.push(match cut {
            true => finding(!done, "woken up behind the cut, the old leader does not answer the read"),
            false => finding(heard, "woken up without a cut, it refuses the read or answers with the new value"),
        });
        stage.heal();
        stage.pass_ms(4_000)?;
    }

    let old = stage.leader()?;
    let others = stage.others(&[old]);
    stage.cut(&[old]);
    let read = stage.read(1, old, "k")?;
    stage.pass_ms(300)?;
    findings.push(finding(
        stage.leaders().values().any(|node| *node == old),
        "a leader just cut off still believes to lead",
    ));
    stage.pass_ms(3_000)?;
    let write = stage.put(0, others[0], "k", "newest")?;
    stage.pass_ms(500)?;
    findings.push(finding(!stage.done(read), "it serves no linearizable read"));
    findings.push(finding(stage.done(write), "the others go on"));
    stage.heal();
    stage.pass_ms(4_000)?;
    let after = stage.read(2, old, "k")?;
    stage.pass_ms(1_500)?;
    findings.push(finding(
        stage.done(after) && stage.settled(),
        "after the heal its node serves reads of the newest value",
    ));
    Ok(findings)
}
