//! Development tasks: `cargo xtask tidy` checks that the house looks as ARCHITECTURE.md says; the others are experiments on running servers,
//! which live in `crates/lab` so that this stays a small program that needs nothing.

mod tidy;

use std::process::{Command, ExitCode};

/// Verbs that `quorate-lab` knows.
const EXPERIMENTS: &[&str] = &["differential"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("tidy") => {
            let problems = tidy::check(&tidy::root());
            problems.iter().for_each(|problem| eprintln!("tidy: {problem}"));
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(verb) if EXPERIMENTS.contains(&verb) => experiment(&args),
        _ => {
            eprintln!("usage: cargo xtask tidy | differential [--seeds N] [--ops M] [--seed S]");
            ExitCode::from(64)
        }
    }
}

fn experiment(args: &[String]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(tidy::root())
        .args(["run", "--quiet", "--locked", "--package", "quorate-lab", "--"])
        .args(args)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("cargo cannot be started: {e}");
            ExitCode::FAILURE
        }
    }
}
