//! Split brain: five nodes in two halves, and only one history.

use super::{Scenario, finding};
use crate::driver::stage::Stage;
use crate::history::Violation;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "split-brain",
    title: "the minority refuses, the majority goes on, and there is one history",
    text: "Five nodes are cut in two, the leader with one other on the smaller side. Clients on both sides write to the same key. Two of five are no \
           majority: they acknowledge nothing, however long they wait. The three elect a leader of their own and go on. When the cut heals, the old \
           leader finds a later term, throws away what it could not commit, and all five hold the history of the majority.",
    source: "Davidson, Garcia-Molina, Skeen: Consistency in partitioned networks (1985); Ongaro, Ousterhout: In search of an understandable \
             consensus algorithm (USENIX ATC 2014).",
    play: |seed| super::on_stage(seed, 5, 3, play),
};

fn play(stage: &mut Stage) -> Result<Vec<super::Finding>, Violation> {
    let leader = stage.leader()?;
    let before = stage.put(0, leader, "k", "before")?;
    stage.pass_ms(500)?;
    let minority = [leader, stage.others(&[leader])[0]];
    let majority = stage.others(&minority);
    stage.cut(&minority);
    let alone = stage.put(1, leader, "k", "minority")?;
    let began = stage.now();
    stage.pass_ms(3_000)?;
    let elected = stage.leaders().pop_last().map(|(_, node)| node);
    let on = stage.put(2, majority[0], "k", "majority")?;
    stage.pass_ms(1_500)?;
    let (done_alone, done_on) = (stage.done(alone), stage.done(on));
    let waited = stage.now() - began;
    stage.heal();
    stage.pass_ms(4_000)?;
    let held = stage.committed("k");
    let last = stage.read(0, minority[1], "k")?;
    stage.pass_ms(2_000)?;
    Ok(vec![
        finding(stage.done(before), "before the cut, writes are served"),
        finding(!done_alone, format!("the smaller side acknowledges nothing within {:.1} s", waited as f64 / 1e6)),
        finding(
            elected.is_some_and(|node| majority.contains(&node)),
            "the larger side elects a leader of a later term",
        ),
        finding(done_on, "the larger side serves writes during the cut"),
        finding(!stage.done(alone), "the write of the smaller side is never acknowledged"),
        finding(held.as_deref() == Some("majority"), "after the heal the key holds what the majority wrote"),
        finding(stage.done(last), "a node of the smaller side serves a linearizable read again"),
        finding(
            stage.leaders().len() == 1 && stage.settled(),
            "there is one leader, and all five nodes have applied the same log",
        ),
    ])
}
