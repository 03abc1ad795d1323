//! Development tasks: `cargo xtask tidy` checks that the house looks as ARCHITECTURE.md says, `crash-states` cuts the power under the log in
//! every way, `chaos` does harm to real clusters, and the others are experiments on running servers. All but the first live elsewhere, in `crates/lab` or beside what they
//! try, so that this stays a small program that needs nothing.

mod tidy;

use std::process::{Command, ExitCode};

/// Verbs that `quorate-lab` knows.
const EXPERIMENTS: &[&str] = &["differential", "clients", "transactions", "idle", "adding"];

/// Where `crash-states` lives: beside the log, whose insides it looks at.
const CRASH_STATES: &[&str] = &["quorate-storage", "--features", "enumerate", "--example", "crash_states"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("tidy") => {
            let problems = tidy::check(&tidy::root());
            problems.iter().for_each(|problem| eprintln!("tidy: {problem}"));
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some("crash-states") => run(CRASH_STATES, &args[1..]),
        Some("chaos") => run(&["quorate-chaos"], &args[1..]),
        Some(verb) if EXPERIMENTS.contains(&verb) => run(&["quorate-lab"], &args),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | crash-states [--states N] [--seed S] | differential [--seeds N] [--ops M] [--seed S] | clients | transactions | idle [--shards N] [--nodes N] | adding [--rate N] \
                 | chaos list|all|bank|NAME [--seconds N | --times N] [--seed S] [--binary PATH]"
            );
            ExitCode::from(64)
        }
    }
}

/// Runs a program of the workspace.
fn run(package: &[&str], args: &[String]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(tidy::root())
        .args(["run", "--quiet", "--locked", "--package"])
        .args(package)
        .arg("--")
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
