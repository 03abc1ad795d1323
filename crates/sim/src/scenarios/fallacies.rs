//! The fallacies of distributed computing, each as a switch of the simulated world.

use super::{Finding, Play, Scenario, finding};
use crate::driver::play as run;
use crate::fault::Fault;
use crate::net::{CALM, Weather};
use crate::plan::Plan;
use crate::report::Report;
use crate::{Options, Trace};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "fallacies",
    title: "what everybody believes of networks, switched off one by one",
    text: "The network is reliable, latency is zero, bandwidth is infinite, topology does not change, there is one administrator, transport cost is \
           zero, the network is homogeneous. Each belief is made false by itself for some seconds under clients that read and write, with every \
           check of the simulator; then all is well again and everything must recover. It must also be seen that the switch does something: \
           something happens that does not happen on a quiet day, or fewer operations are served. An eighth belief, that the network is \
           secure, is not played: the members of a cluster trust each other here. The picture is of the first.",
    source: "Deutsch, Gosling: The fallacies of distributed computing (1994 to 1997).",
    play,
};

/// A belief, how it is made false, and how that shows.
struct Fallacy {
    belief: &'static str,
    falsify: fn(&mut Plan),
    shows: Shows,
}

enum Shows {
    /// One of these marks, which a quiet day has not.
    Marks(&'static [&'static str]),
    /// Fewer operations than on a quiet day.
    Slower,
    /// Messages are lost.
    Losses,
}

const MS: u64 = 1_000;

const FALLACIES: &[Fallacy] = &[
    Fallacy {
        belief: "the network is reliable",
        falsify: |plan| {
            plan.weather = Weather { drop_per_mille: 200, duplicate_per_mille: 300, straggler_per_mille: 100, ..CALM }
        },
        shows: Shows::Losses,
    },
    Fallacy {
        belief: "latency is zero",
        falsify: |plan| plan.weather.delay_us = (20 * MS, 60 * MS),
        shows: Shows::Slower,
    },
    Fallacy {
        belief: "bandwidth is infinite",
        falsify: |plan| plan.weather.bytes_per_ms = Some(10),
        shows: Shows::Slower,
    },
    Fallacy {
        belief: "topology does not change",
        falsify: |plan| {
            plan.faults.extend([(Fault::Cut, 1_000 * MS), (Fault::Crash, 1_000 * MS)]);
        },
        shows: Shows::Marks(&["crash", "cut"]),
    },
    Fallacy {
        belief: "there is one administrator",
        // Each sets the clocks as he sees fit.
        falsify: |plan| plan.faults.extend([(Fault::Jump, 300 * MS)]),
        shows: Shows::Marks(&["wall clock jump"]),
    },
    Fallacy {
        belief: "transport cost is zero",
        // Logs are kept short, so that whoever was away is sent everything, in small pieces over a narrow link.
        falsify: |plan| {
            (plan.log_keep_bytes, plan.log_hold_bytes) = (0, 0);
            plan.flush_bytes = 4 << 10;
            plan.chunk_bytes = 768;
            plan.weather.bytes_per_ms = Some(100);
            plan.faults.insert(Fault::Crash, 1_000 * MS);
            (plan.storm_us, plan.think_us) = (10_000 * MS, (MS, 10 * MS));
        },
        shows: Shows::Marks(&["snapshot installed"]),
    },
    Fallacy {
        belief: "the network is homogeneous",
        falsify: |plan| {
            plan.weather.delay_us = (2 * MS, 8 * MS);
            plan.weather.uneven = true;
        },
        shows: Shows::Slower,
    },
];

fn day(seed: u64, falsify: fn(&mut Plan), trace: bool) -> Report {
    let mut plan = Plan { watchers: 1, calm_us: 10_000 * MS, think_us: (MS, 60 * MS), ..Plan::quiet(3, 4) };
    falsify(&mut plan);
    run(seed, &Options { trace, ..Options::default() }, plan, None).0
}

fn play(seed: u64) -> Play {
    let quiet = day(seed, |_| {}, false);
    let mut findings = vec![judge("on a quiet day", &quiet)];
    let mut picture: Option<Trace> = None;
    for fallacy in FALLACIES {
        let losses = matches!(fallacy.shows, Shows::Losses);
        let mut report = day(seed, fallacy.falsify, losses);
        findings.push(judge(&format!("where it is false that {}", fallacy.belief), &report));
        let trace = report.trace.take();
        let shows = match fallacy.shows {
            Shows::Marks(marks) => {
                marks.iter().any(|mark| report.marks.contains_key(mark) && !quiet.marks.contains_key(mark))
            }
            Shows::Slower => report.operations < quiet.operations,
            Shows::Losses => trace.as_ref().is_some_and(lost),
        };
        findings.push(finding(shows, "and that shows"));
        picture = picture.or(trace);
    }
    Play { findings, trace: picture.expect("the first is traced") }
}

fn lost(trace: &Trace) -> bool {
    use crate::trace::{Loss, TraceEvent};
    trace.records.iter().any(|record| matches!(record.event, TraceEvent::Lose { why: Loss::Dropped, .. }))
}

fn judge(when: &str, report: &Report) -> Finding {
    let broken = report.violation.as_ref().map_or_else(String::new, |(_, violation)| format!(", but {violation}"));
    finding(report.violation.is_none(), format!("{when}, no rule breaks in {} operations{broken}", report.operations))
}
