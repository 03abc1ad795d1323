//! Cuts the power in every way under random lives of the write-ahead log: `cargo xtask crash-states [--states N] [--seed S]`.
//!
//! What a state is and when it is legal is in `wal::crash`. Then each planted bug is looked for; one that is not found is a failure, too.

use quorate_storage::wal::crash::{Options, Planted, enumerate};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = parse(&args) else {
        eprintln!("usage: cargo xtask crash-states [--states N] [--seed S]");
        return ExitCode::from(64);
    };
    let began = Instant::now();
    match enumerate(&options) {
        Ok(report) => println!("{report}; {:.1} s", began.elapsed().as_secs_f64()),
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    }
    let missed: Vec<_> = Planted::ALL.iter().filter(|bug| !is_found(&options, **bug)).collect();
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_found(options: &Options, bug: Planted) -> bool {
    let began = Instant::now();
    let outcome = enumerate(&Options { planted: Some(bug), ..*options });
    let took = began.elapsed().as_secs_f64();
    match &outcome {
        Ok(_) => println!("{bug:?}: NOT FOUND; {took:.1} s"),
        Err(violation) => println!("{bug:?}: found: {violation}; {took:.1} s"),
    }
    outcome.is_err()
}

fn parse(args: &[String]) -> Option<Options> {
    let mut options = Options { seed: 1, states: 100_000, planted: None };
    for pair in args.chunks(2) {
        let [flag, value] = pair else { return None };
        let number = value.replace('_', "").parse().ok()?;
        match flag.as_str() {
            "--states" => options.states = number,
            "--seed" => options.seed = number,
            _ => return None,
        }
    }
    Some(options)
}
