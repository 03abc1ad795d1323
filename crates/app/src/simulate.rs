//! `quorate sim`: the cluster in one thread, from a seed.

use crate::cli::SimArgs;
use crate::diagram::write_file;
use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_sim::{
    Ground, MARKS, Only, Options, PLANTED, Report, faults_by_kind, minimise, planted, run_only, run_seed,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub fn run(args: &SimArgs) -> Result<(), Failure> {
    if let Some(name) = &args.scenario {
        return crate::scenario::run(name, args);
    }
    if let Some(nodes) = args.scale {
        return crate::scale::run(nodes, args.shards);
    }
    if args.mutants {
        return crate::mutants::run(args);
    }
    let planted = match args.sabotage.as_deref() {
        None => None,
        Some("list") => {
            PLANTED.iter().for_each(|planted| println!("{:<24} {}", planted.name, planted.what));
            return Ok(());
        }
        Some(name) => Some(planted(name).ok_or_else(|| {
            let names: Vec<&str> = PLANTED.iter().map(|planted| planted.name).collect();
            Failure::Usage(format!("no planted bug is called {name:?}; there are: {}", names.join(", ")))
        })?),
    };
    let options = Options { planted, ground: args.ground, storm: args.storm.map(Duration::from_secs), trace: false };
    match args.seed {
        Some(seed) if args.minimise => shorten(seed, args, Options { trace: true, ..options }),
        Some(seed) => replay(seed, args, Options { trace: true, ..options }),
        None => campaign(args, options),
    }
}

fn replay(seed: u64, args: &SimArgs, options: Options) -> Result<(), Failure> {
    let only = Only { faults: args.faults.clone(), operations: args.operations.clone() };
    if only == Only::default() {
        return show(seed, args, run_seed(seed, &options));
    }
    show(seed, args, run_only(seed, &options, &only))
}

/// Runs that a minimisation may take.
const MINIMISE_RUNS: usize = 2_000;

fn shorten(seed: u64, args: &SimArgs, options: Options) -> Result<(), Failure> {
    // A rule may be that nothing panics: what candidates say while they do is of no interest.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let small = minimise(seed, &options, MINIMISE_RUNS);
    panic::set_hook(hook);
    let Some(small) = small else {
        let why = "breaks no rule, or only with its faults drawn one by one: there is nothing to leave out";
        return Err(Failure::Usage(format!("seed {seed} {why}")));
    };
    let command = format!("quorate sim --seed {seed}{}{}", besides(options), small.only().flags());
    println!("the rule that breaks: {}", small.rule);
    println!("faults:     {} of {}", small.faults.len(), small.faults_before);
    println!("operations: {} of {}", small.operations.len(), small.operations_before);
    println!("runs:       {}", small.runs);
    println!("replay it:  {command}\nsee it:     {command} --diagram run.html");
    if args.diagram.is_none() && args.trace.is_none() {
        return Ok(());
    }
    show(seed, args, run_only(seed, &options, &small.only()))
}

/// What else a command must say so that a seed does the same again.
fn besides(options: Options) -> String {
    let planted = options.planted.map_or_else(String::new, |planted| format!(" --break {}", planted.name));
    let ground = match options.ground {
        Ground::Anywhere => String::new(),
        ground => format!(" --ground {}", ground.name()),
    };
    let storm = options.storm.map_or_else(String::new, |storm| format!(" --storm {}", storm.as_secs()));
    format!("{planted}{ground}{storm}")
}

/// Writes a traced run where it is wanted.
fn show(seed: u64, args: &SimArgs, report: Report) -> Result<(), Failure> {
    let trace = report.trace.expect("a replay is traced");
    if let Some(file) = &args.trace {
        write_file(file, |to| trace.write_json(to))?;
    }
    if let Some(file) = &args.diagram {
        write_file(file, |to| to.write_all(quorate_sim::diagram(&trace).as_bytes()))?;
    }
    if args.trace.is_none() && args.diagram.is_none() {
        trace.write_lines(std::io::BufWriter::new(std::io::stdout().lock()))?;
    }
    println!(
        "seed {seed}: {:.1} simulated s, {} operations, {} faults, output hash {:016x}",
        report.simulated.as_secs_f64(),
        report.operations,
        report.faults,
        report.output_hash
    );
    match report.violation {
        None => Ok(()),
        Some((at, violation)) => Err(Failure::Violation(format!("at {:.6} s: {violation}", at as f64 / 1e6))),
    }
}

/// What a campaign came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    seeds: u64,
    operations: u64,
    /// Those of each seed's first run, which the checks judged; and for how many of them one order, over all shards, was found.
    judged: u64,
    explained: u64,
    faults: u64,
    faults_by_kind: BTreeMap<&'static str, u64>,
    /// What the ground counts.
    counts: BTreeMap<&'static str, u64>,
    simulated_seconds: f64,
    simulated_seconds_per_second: f64,
    seeds_per_hour: f64,
    seconds_between_faults: f64,
    operations_per_simulated_second: f64,
    marks: BTreeMap<&'static str, u64>,
    unreached: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation: Option<String>,
}

/// What the workers of a campaign have together.
#[derive(Default)]
struct Tally {
    summary: Summary,
    simulated: Duration,
    /// The lowest seed that failed, and how.
    failure: Option<(u64, String)>,
}

impl Tally {
    fn add(&mut self, seed: u64, report: &Report, again: Option<&Report>, options: Options) {
        for run in std::iter::once(report).chain(again) {
            self.summary.operations += run.operations;
            self.summary.faults += run.faults;
            self.simulated += run.simulated;
        }
        self.summary.seeds += 1;
        self.summary.judged += report.operations;
        self.summary.explained += report.explained;
        report.marks.iter().for_each(|(mark, count)| *self.summary.marks.entry(mark).or_default() += count);
        if let Some(failure) = judge(seed, report, again, options)
            && self.failure.as_ref().is_none_or(|(lowest, _)| seed < *lowest)
        {
            self.failure = Some((seed, failure));
        }
    }
}

/// Runs seeds on every core, handed out in order until one fails; so no seed below a failed one is left out.
fn campaign(args: &SimArgs, options: Options) -> Result<(), Failure> {
    let began = Instant::now();
    let bar = progress(args);
    let (next, end) = (AtomicU64::new(args.first), args.first.saturating_add(args.seeds));
    let tally = Mutex::new(Tally::default());
    let failed = || tally.lock().expect("no worker panics").failure.is_some();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed() {
                        break;
                    }
                    let report = run_seed(seed, &options);
                    // A campaign without a planted bug also proves that each seed is the same twice.
                    let twice = options.planted.is_none() && !args.once && report.violation.is_none();
                    let again = twice.then(|| run_seed(seed, &options));
                    tally.lock().expect("no worker panics").add(seed, &report, again.as_ref(), options);
                    bar.inc(1);
                }
            });
        }
    });
    let Tally { mut summary, simulated, failure } = tally.into_inner().expect("no worker panics");
    let failure = failure.map(|(_, failure)| failure);
    bar.finish_and_clear();
    let (real, simulated) = (began.elapsed().as_secs_f64(), simulated.as_secs_f64());
    summary.simulated_seconds = simulated;
    summary.simulated_seconds_per_second = simulated / real;
    summary.seeds_per_hour = summary.seeds as f64 / real * 3600.0;
    summary.seconds_between_faults = simulated / (summary.faults.max(1)) as f64;
    summary.operations_per_simulated_second = summary.operations as f64 / simulated.max(0.001);
    summary.unreached = MARKS.iter().copied().filter(|mark| !summary.marks.contains_key(mark)).collect();
    summary.faults_by_kind = faults_by_kind(&summary.marks);
    summary.counts = args.ground.counts().iter().map(|count| (count.name, count.of(&summary.marks))).collect();
    summary.violation.clone_from(&failure);
    print(&summary, args, real)?;
    match (failure, options.planted) {
        (Some(violation), _) => Err(Failure::Violation(violation)),
        (None, Some(planted)) => {
            Err(Failure::Violation(format!("{} was not found within {} seeds", planted.name, summary.seeds)))
        }
        (None, None) => Ok(()),
    }
}

fn judge(seed: u64, report: &Report, again: Option<&Report>, options: Options) -> Option<String> {
    if let Some((at, violation)) = &report.violation {
        let besides = besides(options);
        return Some(format!(
            "seed {seed} at {:.6} s: {violation}\n  replay it: quorate sim --seed {seed}{besides}\n  see it:    quorate sim --seed {seed}{besides} --diagram run.html",
            *at as f64 / 1e6
        ));
    }
    let lacks = options.ground.counts().iter().find(|count| options.planted.is_none() && count.lacks(&report.marks));
    if let Some(count) = lacks {
        return Some(format!("seed {seed} has seen none of its {}: it shows nothing", count.name));
    }
    let differs = again.is_some_and(|again| again.output_hash != report.output_hash);
    differs.then(|| format!("seed {seed} gave different outputs when it was run twice"))
}

fn progress(args: &SimArgs) -> ProgressBar {
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left");
    ProgressBar::new(args.seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(summary: &Summary, args: &SimArgs, real: f64) -> Result<(), Failure> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(summary).map_err(std::io::Error::other)?);
        return Ok(());
    }
    println!(
        "{} seeds in {real:.1} s: {:.0} simulated s ({:.0} per second, {:.0} seeds per hour)",
        summary.seeds, summary.simulated_seconds, summary.simulated_seconds_per_second, summary.seeds_per_hour
    );
    println!(
        "{} operations ({:.0} per simulated s), {} faults (one each {:.1} s)",
        summary.operations, summary.operations_per_simulated_second, summary.faults, summary.seconds_between_faults
    );
    println!(
        "{} operations judged, each once; one order was found for {} over many shards",
        summary.judged, summary.explained
    );
    for (mark, count) in &summary.marks {
        println!("  {mark:<40} {count}");
    }
    if !summary.counts.is_empty() {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        println!("faults of the first runs: {}", list(&summary.faults_by_kind));
        println!("in the first runs: {}", list(&summary.counts));
    }
    if !summary.unreached.is_empty() {
        println!("never seen: {}", summary.unreached.join(", "));
    }
    if summary.violation.is_none() {
        println!(
            "no rule was broken{}",
            if args.sabotage.is_none() && !args.once { ", and every seed gave the same outputs twice" } else { "" }
        );
    }
    Ok(())
}
