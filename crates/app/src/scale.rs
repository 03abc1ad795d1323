//! `quorate sim --scale`: a large cluster, and what it costs.

use crate::failure::Failure;
use quorate_sim::scale::{Phase, Size, day, throughput};
use std::io::Write as _;

pub fn run(nodes: u16, shards: u32) -> Result<(), Failure> {
    let size = Size { nodes: nodes.into(), shards: shards as usize };
    println!("{nodes} nodes, {shards} shards of three replicas each, in one thread");
    println!(
        "{:<26} {:>12} {:>12} {:>12} {:>12} {:>14}",
        "", "simulated s", "messages", "MiB", "MiB copied", "processor s"
    );
    let tell = |phase: Phase| {
        let Phase { what, lasted, messages, bytes, copied, busy } = phase;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{what:<26} {:>12.1} {messages:>12} {:>12.1} {:>12.1} {:>14.1}",
            lasted.as_secs_f64(),
            mib(bytes),
            mib(copied),
            busy.as_secs_f64()
        );
        // What is told is told at once: some parts take minutes.
        let _ = std::io::stdout().flush();
    };
    day(size, tell).map_err(Failure::Violation)?;
    let [three, nine] = [3, 9].map(|nodes| throughput(nodes).map_err(Failure::Violation));
    let (three, nine) = (three?, nine?);
    println!(
        "writes per simulated second: {three:.0} on three nodes, {nine:.0} on nine, {:.2} times as many",
        nine / three
    );
    Ok(())
}
