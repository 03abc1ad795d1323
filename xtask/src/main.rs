//! Development tasks: `cargo xtask tidy` checks that the house looks as ARCHITECTURE.md says.

mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => {
            let problems = tidy::check(&tidy::root());
            problems.iter().for_each(|problem| eprintln!("tidy: {problem}"));
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            eprintln!("usage: cargo xtask tidy");
            ExitCode::from(64)
        }
    }
}
