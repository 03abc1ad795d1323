//! `quorate sim --mutants`: every planted bug, and which seed finds it. It proves that the checks can fail.

use crate::cli::SimArgs;
use crate::failure::Failure;
use quorate_sim::{Options, PLANTED, Planted, run_seed};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A bug that takes longer than this to find counts as not found.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How the hunt for one bug ended.
#[derive(Debug, Serialize)]
struct Hunt {
    name: &'static str,
    what: &'static str,
    /// The first seed that broke a rule, and the rule.
    found: Option<(u64, &'static str)>,
    seeds: u64,
    seconds: f64,
}

pub fn run(args: &SimArgs) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let hunts = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(planted) = PLANTED.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(planted, args.first);
                    if !args.json {
                        print(&hunt);
                    }
                    hunts.lock().expect("no hunter panics").push(hunt);
                }
            });
        }
    });
    let hunts = hunts.into_inner().expect("no hunter panics");
    if args.json {
        println!("{}", serde_json::to_string_pretty(&hunts).map_err(std::io::Error::other)?);
    }
    let missed: Vec<&str> = hunts.iter().filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.name).collect();
    if missed.is_empty() {
        if !args.json {
            println!("all {} planted bugs were found", hunts.len());
        }
        return Ok(());
    }
    Err(Failure::Violation(format!("not found: {}", missed.join(", "))))
}

fn hunt(planted: &'static Planted, first: u64) -> Hunt {
    let began = Instant::now();
    let options = Options { planted: Some(planted), ..Options::default() };
    let mut seeds = 0;
    let mut found = None;
    while found.is_none() && began.elapsed() < PATIENCE {
        let seed = first + seeds;
        seeds += 1;
        found = run_seed(seed, &options).violation.map(|(_, violation)| (seed, violation.rule));
    }
    Hunt { name: planted.name, what: planted.what, found, seeds, seconds: began.elapsed().as_secs_f64() }
}

fn print(hunt: &Hunt) {
    match hunt.found {
        Some((seed, rule)) => {
            println!("{:<24} seed {seed:<5} {:>6.1} s  {rule}", hunt.name, hunt.seconds);
        }
        None => println!("{:<24} NOT FOUND in {} seeds, {:.0} s", hunt.name, hunt.seeds, hunt.seconds),
    }
}
